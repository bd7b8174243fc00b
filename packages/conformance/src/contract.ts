// What every backend promises beside right numbers: state, constants, how long values hold, memory, errors. As tests.

import {
  add,
  type Backend,
  cacheWrite,
  DisposedError,
  f32,
  GraphError,
  gather,
  i32,
  matmul,
  mul,
  reference,
  SisaError,
  sub,
  sum,
  trace,
} from "@sisa/core";
import { expect, test } from "vitest";

const numbers = (...values: number[]) => Float32Array.from(values);

/** Registers the tests. `backend` is shared; `create` makes one that a test may close. */
export function contractTests(backend: () => Backend, create: () => Backend | Promise<Backend>): void {
  const double = trace({ x: f32("T") }, ({ x }) => mul(x, 2));
  const bound = (length: number) => (backend().limits.symbolicDims ? double : double.bind({ T: length }));

  test("tensors without data are zero, and hold what is written", async () => {
    const tensor = backend().tensor(f32(3));
    expect(await tensor.read()).toEqual(numbers(0, 0, 0));
    const data = numbers(1, 2, 3);
    backend().write(tensor, data);
    data.fill(9);
    expect(await tensor.read()).toEqual(numbers(1, 2, 3));
    tensor.dispose();
  });

  test("after each run the handle of a state input denotes the output's value", async () => {
    const graph = trace({ total: f32(2), x: f32(2) }, ({ total, x }) => {
      const next = add(total, x);
      return { next, before: sum(total) };
    });
    const step = await backend().compile(graph, { state: { total: "next" } });
    const [total, x] = [backend().tensor(f32(2)), backend().tensor(f32(2), numbers(1, 10))];
    const before: number[] = [];
    for (let run = 0; run < 4; run++) {
      const outputs = step.run({ total, x });
      before.push(...(await outputs.before.read()));
      expect(outputs.next).toBe(total);
    }
    expect(await total.read()).toEqual(numbers(4, 40));
    expect(before).toEqual([0, 11, 22, 33]);
    step.close();
  });

  test("states that are computed from one another all start from the old values", async () => {
    const graph = trace({ a: f32(2), b: f32(2) }, ({ a, b }) => ({ nextA: b, nextB: add(a, b), both: sub(a, b) }));
    const step = await backend().compile(graph, { state: { a: "nextA", b: "nextB" } });
    const [a, b] = [backend().tensor(f32(2), numbers(0, 1)), backend().tensor(f32(2), numbers(1, 1))];
    const both = [];
    for (let run = 0; run < 5; run++) both.push((await step.run({ a, b }).both.read())[0]);
    // Fibonacci numbers, from 0, 1 and from 1, 1.
    expect([await a.read(), await b.read()]).toEqual([numbers(5, 8), numbers(8, 13)]);
    expect(both).toEqual([-1, 0, -1, -1, -2]);
    step.close();
  });

  test("a cache keeps all rows that were written, in runs that nobody waits for", async () => {
    const graph = trace({ cache: f32(2, 4, 1), row: f32(2, 1, 1), start: i32(2) }, ({ cache, row, start }) => ({
      next: cacheWrite(cache, row, start),
    }));
    const step = await backend().compile(graph, { state: { cache: "next" } });
    const cache = backend().tensor(f32(2, 4, 1));
    const [row, start] = [backend().tensor(f32(2, 1, 1)), backend().tensor(i32(2))];
    for (let run = 0; run < 3; run++) {
      backend().write(row, numbers(run + 1, -run - 1));
      backend().write(start, Int32Array.of(run, run + 1));
      step.run({ cache, row, start });
    }
    expect(await cache.read()).toEqual(numbers(1, 2, 3, 0, 0, -1, -2, -3));
    step.close();
  });

  test("a cache in pages keeps what all sequences wrote to it", async () => {
    const specs = { cache: f32(3, 2, 1), row: f32(2, 1, 1), start: i32(2), pages: i32(2, 2) };
    const graph = trace(specs, ({ cache, row, start, pages }) => ({ next: cacheWrite(cache, row, start, pages) }));
    const step = await backend().compile(graph, { state: { cache: "next" } });
    const cache = backend().tensor(specs.cache);
    const [row, start] = [backend().tensor(specs.row), backend().tensor(specs.start)];
    const pages = backend().tensor(specs.pages, Int32Array.of(2, 0, 1, 1));
    for (let run = 0; run < 3; run++) {
      backend().write(row, numbers(run + 1, -run - 1));
      backend().write(start, Int32Array.of(run, run % 2));
      step.run({ cache, row, start, pages });
    }
    expect(await cache.read()).toEqual(numbers(3, 0, -3, -2, 1, 2));
    step.close();
  });

  test("constants are values of inputs that runs do not name", async () => {
    const graph = trace({ x: f32(2), weight: f32(2) }, ({ x, weight }) => mul(x, weight));
    const weight = numbers(3, 4);
    const executable = await backend().compile(graph, { constants: { weight } });
    const x = backend().tensor(f32(2), numbers(1, 2));
    expect(await executable.run({ x }).value.read()).toEqual(numbers(3, 8));
    expect(await executable.run({ x }).value.read()).toEqual(numbers(3, 8));
    executable.close();
  });

  test("a program keeps its constants when their array changes, or another program of the same array is closed", async () => {
    const graph = (count: number) =>
      trace({ x: f32(count, 2), weight: f32(2, 2) }, ({ x, weight }) => matmul(x, mul(weight, 2)));
    const weight = numbers(1, 2, 3, 4);
    const row = backend().tensor(f32(1, 2), numbers(1, 1));
    const rows = backend().tensor(f32(2, 2), numbers(1, 1, 1, 1));
    const constants = { weight };
    const [first, second] = [
      await backend().compile(graph(1), { constants }),
      await backend().compile(graph(2), { constants }),
    ];
    weight.fill(5);
    const changed = await backend().compile(graph(1), { constants });
    const read = (program: typeof first, x = row) => program.run({ x }).value.read();
    expect(await read(first)).toEqual(numbers(8, 12));
    expect(await read(second, rows)).toEqual(numbers(8, 12, 8, 12));
    expect(await read(changed)).toEqual(numbers(20, 20));
    first.close();
    expect(await read(second, rows)).toEqual(numbers(8, 12, 8, 12));
    second.close();
    expect(await read(changed)).toEqual(numbers(20, 20));
    changed.close();
    for (const tensor of [row, rows]) tensor.dispose();
  });

  test("outputs hold until the next run, kept ones longer", async () => {
    const executable = await backend().compile(bound(2));
    const x = backend().tensor(f32(2), numbers(1, 2));
    const first = executable.run({ x }).value;
    const kept = first.keep();
    backend().write(x, numbers(5, 6));
    expect(await first.read()).toEqual(numbers(2, 4));
    const second = executable.run({ x }).value;
    await expect(async () => first.read()).rejects.toSatisfy((error) => DisposedError.isInstance(error));
    expect([await kept.read(), await second.read()]).toEqual([numbers(2, 4), numbers(10, 12)]);
    kept.dispose();
    executable.close();
  });

  test("outputs can be inputs of other executables before anybody reads them", async () => {
    const [first, second] = [await backend().compile(bound(2)), await backend().compile(bound(2))];
    const x = backend().tensor(f32(2), numbers(1, 2));
    const result = second.run({ x: first.run({ x }).value }).value;
    expect(await result.read()).toEqual(numbers(4, 8));
    first.close();
    second.close();
  });

  test("wrong inputs are refused by name", async () => {
    const executable = await backend().compile(bound(2));
    const refuses = async (run: () => unknown, words: string) => {
      const error = await Promise.resolve()
        .then(run)
        .then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
      expect(GraphError.isInstance(error), `${error}`).toBe(true);
      expect(String(error)).toContain(words);
    };
    await refuses(() => executable.run({}), '"x"');
    await refuses(() => executable.run({ x: backend().tensor(f32(2, 1)) }), '"x"');
    await refuses(() => backend().tensor(f32(2), numbers(1, 2, 3)), "float32[2]");
    await refuses(() => backend().tensor(f32(2), Int32Array.of(1, 2)), "float32[2]");
    const other = reference();
    await refuses(() => executable.run({ x: other.tensor(f32(2)) }), "another backend");
    await other.close();
    executable.close();
  });

  test("an error of a run names the operation where the result is read, and later runs are as good as ever", async () => {
    const graph = trace({ table: f32(3, 2), ids: i32(1) }, ({ table, ids }) => gather(table, ids));
    const executable = await backend().compile(graph);
    const [table, ids] = [backend().tensor(f32(3, 2), numbers(1, 2, 3, 4, 5, 6)), backend().tensor(i32(1))];
    backend().write(ids, Int32Array.of(7));
    const wrong = executable.run({ table, ids }).value;
    await expect(async () => wrong.read()).rejects.toSatisfy(
      (error) => SisaError.isInstance(error) && error.message.includes("gather"),
    );
    backend().write(ids, Int32Array.of(2));
    expect(await executable.run({ table, ids }).value.read()).toEqual(numbers(5, 6));
    executable.close();
  });

  test("memory stays flat over runs whose outputs nobody disposes of", async () => {
    const executable = await backend().compile(bound(1000));
    const x = backend().tensor(f32(1000));
    const after: number[] = [];
    for (let run = 0; run < 60; run++) {
      await executable.run({ x }).value.read();
      after.push(backend().memory().deviceBytes);
    }
    expect(Math.max(...after.slice(10))).toBe(after[10]);
    executable.close();
    x.dispose();
  });

  test("what is closed says so", async () => {
    const own = await create();
    const executable = await own.compile(double.bind({ T: 2 }));
    const x = own.tensor(f32(2));
    executable.close();
    expect(() => executable.run({ x })).toThrow(expect.objectContaining({ code: DisposedError.code }));
    await own.close();
    expect(() => own.tensor(f32(2))).toThrow(expect.objectContaining({ code: DisposedError.code }));
    expect(own.memory().deviceBytes).toBe(0);
  });
}
