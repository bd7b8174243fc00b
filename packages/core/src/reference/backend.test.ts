import { describe, expect, test } from "vitest";
import type { Backend, DeviceTensor } from "../backend.ts";
import { dim } from "../dim.ts";
import { DataError, DisposedError, GraphError } from "../errors.ts";
import { trace } from "../graph/graph.ts";
import { add } from "../ops/add.ts";
import { cast } from "../ops/cast.ts";
import { constant } from "../ops/constant.ts";
import { exp } from "../ops/exp.ts";
import { gather } from "../ops/gather.ts";
import { linear } from "../ops/linear.ts";
import { mean } from "../ops/mean.ts";
import { mul } from "../ops/mul.ts";
import { not } from "../ops/not.ts";
import { reshape } from "../ops/reshape.ts";
import { sub } from "../ops/sub.ts";
import { sum } from "../ops/sum.ts";
import { bool, f32, i32, type TensorSpec } from "../spec.ts";
import { reference } from "./backend.ts";

const floats = (...values: readonly number[]) => Float32Array.from(values);
const wide = (dtype: "float64" | "float16" | "bfloat16", ...shape: readonly number[]): TensorSpec<"float"> => ({
  ...f32(...shape),
  dtype,
});
const counter = trace({ total: f32(2), x: f32(2) }, ({ total, x }) => ({ next: add(total, x), sum: sum(x) }));

describe("tensors", () => {
  const backend = reference();

  test("hold zeros, or what they are given, in every dtype", async () => {
    const cases: readonly (readonly [TensorSpec, Parameters<Backend["write"]>[1]])[] = [
      [f32(2), floats(1.5, -0)],
      [wide("float64", 2), Float64Array.of(0.1, Number.NaN)],
      [wide("float16", 3), Uint16Array.of(0x3c00, 0x7c00, 0x0001)],
      [wide("bfloat16", 3), Uint16Array.of(0x3f80, 0xff80, 0x0001)],
      [i32(2), Int32Array.of(-5, 2 ** 31 - 1)],
      [bool(2), Uint8Array.of(0, 1)],
    ];
    for (const [spec, data] of cases) {
      expect(await backend.tensor(spec, data).read()).toEqual(data);
      const zeros = await backend.tensor(spec).read();
      expect(zeros.constructor).toBe(data.constructor);
      expect(zeros.every((value) => value === 0)).toBe(true);
      expect(zeros.length).toBe(data.length);
    }
    expect(await backend.tensor(f32(0, 3)).read()).toEqual(floats());
    expect(await backend.tensor(f32(), floats(7)).read()).toEqual(floats(7));
  });

  test("are written anew, and what was read or passed in stays as it was", async () => {
    const data = floats(1, 2);
    const tensor = backend.tensor(f32(2), data);
    data[0] = 9;
    const before = await tensor.read();
    backend.write(tensor, floats(3, 4));
    expect(before).toEqual(floats(1, 2));
    expect(await tensor.read()).toEqual(floats(3, 4));
    before[0] = 99;
    expect(await tensor.read()).toEqual(floats(3, 4));
  });

  test("refuse data of another type or length, and sizes that are not bound", () => {
    const tensor = backend.tensor(f32(2));
    const held = backend.memory().deviceBytes;
    expect(() => backend.write(tensor, floats(1, 2, 3))).toThrow(
      new GraphError("expected a Float32Array of 2 for float32[2], got a Float32Array of 3"),
    );
    expect(() => backend.write(tensor, Float64Array.of(1, 2))).toThrow(
      new GraphError("expected a Float32Array of 2 for float32[2], got a Float64Array of 2"),
    );
    expect(() => backend.tensor(wide("bfloat16", 2), floats(1, 2))).toThrow("expected a Uint16Array of 2");
    expect(() => backend.tensor(i32(2), Uint8Array.of(1, 2))).toThrow("expected a Int32Array of 2");
    expect(() => backend.tensor(f32("T"))).toThrow("size T is not bound");
    expect(backend.memory().deviceBytes).toBe(held);
  });

  test("are of no use once disposed of; that may be done twice", async () => {
    const tensor = backend.tensor(f32(2));
    tensor.dispose();
    tensor.dispose();
    await expect(tensor.read()).rejects.toThrow(DisposedError);
    await expect(tensor.read()).rejects.toThrow(
      "a float32[2] tensor was used after it was disposed or its value replaced; keep() it",
    );
    expect(() => tensor.keep()).toThrow(DisposedError);
    expect(() => backend.write(tensor, floats(1, 2))).toThrow(DisposedError);
    const program = await backend.compile(counter);
    expect(() => program.run({ total: tensor, x: backend.tensor(f32(2)) })).toThrow(DisposedError);
  });

  test("belong to one backend", async () => {
    await using other = reference();
    const tensor = other.tensor(f32(2));
    const message = "reference: the tensor belongs to another backend; make it with this backend's tensor()";
    expect(() => backend.write(tensor, floats(1, 2))).toThrow(new GraphError(message));
    const program = await backend.compile(counter);
    expect(() => program.run({ total: tensor, x: backend.tensor(f32(2)) })).toThrow(new GraphError(message));
  });
});

describe("a run", () => {
  test("gives every output by name, rounded to its dtype", async () => {
    await using backend = reference();
    const graph = trace({ x: f32(2), ids: i32(2), flags: bool(2) }, ({ x, ids, flags }) => ({
      third: mul(x, 1 / 3),
      narrow: cast(x, "bfloat16"),
      ids: add<"int">(ids, 1),
      flags: not(flags),
    }));
    const program = await backend.compile(graph);
    const outputs = program.run({
      x: backend.tensor(f32(2), floats(1, 0.1)),
      ids: backend.tensor(i32(2), Int32Array.of(4, 5)),
      flags: backend.tensor(bool(2), Uint8Array.of(1, 0)),
    });
    expect(Object.keys(outputs)).toEqual(["third", "narrow", "ids", "flags"]);
    expect(await outputs.third.read()).toEqual(floats(1 / 3, Math.fround(Math.fround(0.1) * Math.fround(1 / 3))));
    expect(await outputs.narrow.read()).toEqual(Uint16Array.of(0x3f80, 0x3dcd));
    expect(await outputs.ids.read()).toEqual(Int32Array.of(5, 6));
    expect(await outputs.flags.read()).toEqual(Uint8Array.of(0, 1));
    expect(outputs.narrow.spec.dtype).toBe("bfloat16");
  });

  test("in float64 mode rounds nothing on the way", async () => {
    const graph = trace({ x: f32() }, ({ x }) => cast(sub(add(x, 1e-12), x), "float64"));
    const difference = async (backend: Backend) => {
      const { value } = (await backend.compile(graph)).run({ x: backend.tensor(f32(), floats(1)) });
      return (await value.read())[0];
    };
    expect(await difference(reference())).toBe(0);
    expect(await difference(reference({ mode: "float64" }))).toBeCloseTo(1e-12, 15);
  });

  test("outputs hold until the next run, unless kept; reading is no claim", async () => {
    await using backend = reference();
    const program = await backend.compile(counter);
    const run = (value: number) =>
      program.run({ total: backend.tensor(f32(2)), x: backend.tensor(f32(2), floats(value, value)) });
    const first = run(1);
    const kept = first.next.keep();
    const copy = await first.sum.read();
    const second = run(2);
    expect(copy).toEqual(floats(2));
    expect(await kept.read()).toEqual(floats(1, 1));
    await expect(first.next.read()).rejects.toThrow(DisposedError);
    await expect(first.sum.read()).rejects.toThrow(DisposedError);
    expect(() => first.next.keep()).toThrow(DisposedError);
    expect(await second.next.read()).toEqual(floats(2, 2));
    kept.dispose();
    await expect(kept.read()).rejects.toThrow(DisposedError);
  });

  test("an output may be fed back into the program that made it, and two programs do not disturb each other", async () => {
    await using backend = reference();
    const program = await backend.compile(counter);
    const other = await backend.compile(counter);
    const x = backend.tensor(f32(2), floats(1, 10));
    let total: DeviceTensor = backend.tensor(f32(2));
    for (let step = 0; step < 3; step++) total = program.run({ total, x }).next;
    other.run({ total: x, x });
    expect(await total.read()).toEqual(floats(3, 30));
  });

  test("refuses inputs that are missing, unknown, or of another dtype or shape", async () => {
    await using backend = reference();
    const program = await backend.compile(counter);
    const good = backend.tensor(f32(2));
    expect(() => program.run({ x: good })).toThrow(new GraphError('run: input "total" is missing'));
    const unknown = { total: good, x: good, y: good };
    expect(() => program.run(unknown)).toThrow(new GraphError('run: no input is named "y"; this graph has total, x'));
    expect(() => program.run({ total: good, x: backend.tensor(i32(2)) })).toThrow(
      new GraphError('run: input "x" must be float32, got int32[2]'),
    );
    expect(() => program.run({ total: good, x: backend.tensor(f32(3)) })).toThrow(
      new GraphError('run: input "x" must be [2], got [3]'),
    );
    expect(() => program.run({ total: good, x: backend.tensor(f32(2, 1)) })).toThrow(
      'input "x" must be [2], got [2,1]',
    );
  });
});

describe("symbolic dims", () => {
  const graph = trace({ x: f32("B", "T"), y: f32("T"), z: f32("B", dim("T").plus(1)) }, ({ x, y, z }) => ({
    scaled: mul(x, y),
    mean: mean(z),
    flat: reshape(x, [dim("B").times("T")]),
  }));

  test("are bound by the inputs, anew at every run", async () => {
    await using backend = reference();
    const program = await backend.compile(graph);
    for (const [B, T] of [
      [2, 3],
      [1, 5],
      [2, 3],
      [0, 4],
    ] as const) {
      const outputs = program.run({
        x: backend.tensor(f32(B, T), new Float32Array(B * T).fill(2)),
        y: backend.tensor(
          f32(T),
          Float32Array.from({ length: T }, (_, index) => index),
        ),
        z: backend.tensor(f32(B, T + 1), new Float32Array(B * (T + 1)).fill(3)),
      });
      expect(outputs.scaled.spec).toEqual(f32(B, T));
      expect(await outputs.scaled.read()).toEqual(Float32Array.from({ length: B * T }, (_, index) => 2 * (index % T)));
      expect(await outputs.flat.read()).toHaveLength(B * T);
      expect((await outputs.mean.read())[0]).toBe(B === 0 ? Number.NaN : 3);
    }
  });

  test("must agree", async () => {
    await using backend = reference();
    const program = await backend.compile(graph);
    const [x, y] = [backend.tensor(f32(2, 3)), backend.tensor(f32(3))];
    expect(() => program.run({ x, y: backend.tensor(f32(4)), z: backend.tensor(f32(2, 4)) })).toThrow(
      new GraphError('run: dim T is 3 elsewhere but 4 in input "y"'),
    );
    expect(() => program.run({ x, y, z: backend.tensor(f32(2, 3)) })).toThrow(
      new GraphError('run: input "z" must be [2,4], got [2,3]'),
    );
    expect(() => program.run({ x: y, y, z: y })).toThrow('input "x" must be [3,3], got [3]');
  });

  test("that no input shows alone have to be bound before", async () => {
    await using backend = reference();
    const sums = trace({ x: f32(dim("P").plus("T")) }, ({ x }) => exp(x));
    const program = await backend.compile(sums);
    expect(() => program.run({ x: backend.tensor(f32(5)) })).toThrow(
      new GraphError('run: input "x" must be [P + T], got [5]'),
    );
    const bound = await backend.compile(sums.bind({ P: 2, T: 3 }));
    expect(() => bound.run({ x: backend.tensor(f32(5)) })).not.toThrow();
  });
});

describe("state", () => {
  test("after a run the handle of the input denotes the output's value", async () => {
    await using backend = reference();
    const program = await backend.compile(counter, { state: { total: "next" } });
    const total = backend.tensor(f32(2), floats(100, 200));
    const x = backend.tensor(f32(2), floats(1, 2));
    for (let step = 0; step < 3; step++) expect(program.run({ total, x }).next).toBe(total);
    expect(await total.read()).toEqual(floats(103, 206));
    expect(await x.read()).toEqual(floats(1, 2));
  });

  test("every output is computed from the old values", async () => {
    await using backend = reference();
    const swap = trace({ a: f32(1), b: f32(1) }, ({ a, b }) => ({ a: b, b: a, sum: add(a, b) }));
    const program = await backend.compile(swap, { state: { a: "a", b: "b" } });
    const [a, b] = [backend.tensor(f32(1), floats(1)), backend.tensor(f32(1), floats(2))];
    program.run({ a, b });
    expect([await a.read(), await b.read()]).toEqual([floats(2), floats(1)]);
    const { sum } = program.run({ a, b });
    expect([await a.read(), await b.read(), await sum.read()]).toEqual([floats(1), floats(2), floats(3)]);
  });

  test("belongs to the handle, so one program serves many states, and a state many programs", async () => {
    await using backend = reference();
    const program = await backend.compile(counter, { state: { total: "next" } });
    const reader = await backend.compile(trace({ t: f32(2) }, ({ t }) => mul(t, 10)));
    const [one, two] = [backend.tensor(f32(2)), backend.tensor(f32(2))];
    const x = backend.tensor(f32(2), floats(1, 1));
    program.run({ total: one, x });
    program.run({ total: two, x });
    program.run({ total: two, x });
    const kept = two.keep();
    program.run({ total: two, x });
    expect(await one.read()).toEqual(floats(1, 1));
    expect(await two.read()).toEqual(floats(3, 3));
    expect(await kept.read()).toEqual(floats(2, 2));
    expect(await reader.run({ t: two }).value.read()).toEqual(floats(30, 30));
    backend.write(two, floats(7, 7));
    program.run({ total: two, x });
    expect(await two.read()).toEqual(floats(8, 8));
  });

  test("pairs must exist and look alike, one output for one input", async () => {
    await using backend = reference();
    const graph = trace({ a: f32(2), b: f32(2), c: f32(3), ids: i32(2) }, ({ a, c }) => ({
      next: exp(a),
      other: exp(c),
    }));
    const wrong = "nothing" as "next";
    await expect(backend.compile(graph, { state: { a: wrong } })).rejects.toThrow(
      new GraphError('state: "a" -> "nothing" must name an input and an output'),
    );
    await expect(backend.compile(graph, { state: { a: "other" } })).rejects.toThrow(
      new GraphError('state: "a" is float32[2] but "other" is float32[3]'),
    );
    await expect(backend.compile(graph, { state: { ids: "next" } })).rejects.toThrow(
      new GraphError('state: "ids" is int32[2] but "next" is float32[2]'),
    );
    await expect(backend.compile(graph, { state: { a: "next", b: "next" } })).rejects.toThrow(
      new GraphError('state: output "next" is for both "a" and "b"'),
    );
  });

  test("each state has a tensor of its own, and not one that an executable may take back", async () => {
    await using backend = reference();
    const graph = trace({ m: f32(2), v: f32(2) }, ({ m, v }) => ({ m: exp(m), v: exp(v), sum: add(m, v) }));
    const program = await backend.compile(graph, { state: { m: "m", v: "v" } });
    const shared = backend.tensor(f32(2));
    expect(() => program.run({ m: shared, v: shared })).toThrow(
      new GraphError('run: inputs "m" and "v" are state, so each needs a tensor of its own'),
    );
    const { sum } = program.run({ m: shared, v: backend.tensor(f32(2)) });
    const take = () => program.run({ m: sum, v: shared });
    expect(take).toThrow(
      new GraphError('run: state "m" is an output of an executable; keep() it, or make it with tensor()'),
    );
    expect(() => program.run({ m: sum.keep(), v: shared })).not.toThrow();
  });
});

describe("constants", () => {
  const graph = trace({ x: f32("T", 2), weight: f32(3, 2), bias: f32(3) }, ({ x, weight, bias }) =>
    linear(x, weight, bias),
  );

  test("are given once and left out of runs", async () => {
    await using backend = reference();
    const weight = floats(1, 0, 0, 1, 1, 1);
    const program = await backend.compile(graph, { constants: { weight, bias: floats(0, 0, 10) } });
    weight.fill(0);
    for (const scale of [1, 2]) {
      const { value } = program.run({ x: backend.tensor(f32(1, 2), floats(scale, 5)) });
      expect(await value.read()).toEqual(floats(scale, 5, scale + 15));
    }
  });

  test("must be inputs, hold the right data, and be neither state nor passed again", async () => {
    await using backend = reference();
    const unknown: { readonly [name: string]: Float32Array } = { scale: floats(1) };
    await expect(backend.compile(graph, { constants: unknown })).rejects.toThrow(
      new GraphError('constants: no input is named "scale"; this graph has x, weight, bias'),
    );
    await expect(backend.compile(graph, { constants: { bias: floats(1) } })).rejects.toThrow(
      new GraphError("expected a Float32Array of 3 for float32[3], got a Float32Array of 1"),
    );
    await expect(backend.compile(graph, { constants: { x: floats(1) } })).rejects.toThrow("size 2*T is not bound");
    const held = await backend.compile(counter, { constants: { x: floats(1, 2) } });
    const [total, x] = [backend.tensor(f32(2)), backend.tensor(f32(2))];
    expect(() => held.run({ total, x })).toThrow(
      new GraphError('run: input "x" is a constant of this executable; leave it out'),
    );
    const both = { constants: { total: floats(1, 2) }, state: { total: "next" } } as const;
    await expect(backend.compile(counter, both)).rejects.toThrow(
      new GraphError('constants: input "total" is state, so it is not constant'),
    );
  });
});

describe("errors of a run", () => {
  const graph = trace({ table: f32(3), ids: i32(2), seen: f32(2) }, ({ table, ids, seen }) => {
    const rows = gather(table, ids);
    return { rows, seen: add(seen, rows), untouched: exp(table) };
  });
  const wrongIds = "gather: expected ids from 0 to 2, got 7";

  test("surface where somebody reads, with the operation's name", async () => {
    await using backend = reference();
    const program = await backend.compile(graph);
    const outputs = program.run({
      table: backend.tensor(f32(3)),
      ids: backend.tensor(i32(2), Int32Array.of(0, 7)),
      seen: backend.tensor(f32(2)),
    });
    for (const output of Object.values(outputs)) await expect(output.read()).rejects.toThrow(new DataError(wrongIds));
  });

  test("stay with state and with what is computed from it, until it is written again", async () => {
    await using backend = reference();
    const program = await backend.compile(graph, { state: { seen: "seen" } });
    const table = backend.tensor(f32(3), floats(1, 2, 3));
    const ids = backend.tensor(i32(2), Int32Array.of(0, 7));
    const seen = backend.tensor(f32(2));
    const failed = program.run({ table, ids, seen });
    const kept = failed.rows.keep();
    expect(failed.seen).toBe(seen);
    await expect(seen.read()).rejects.toThrow(wrongIds);

    backend.write(ids, Int32Array.of(0, 1));
    const after = program.run({ table, ids, seen });
    await expect(after.rows.read()).rejects.toThrow(wrongIds);
    await expect(kept.read()).rejects.toThrow(wrongIds);

    backend.write(seen, floats(10, 10));
    const good = program.run({ table, ids, seen });
    expect(await good.rows.read()).toEqual(floats(1, 2));
    expect(await seen.read()).toEqual(floats(11, 12));
  });
});

describe("memory", () => {
  test("counts what is held, in the bytes of its dtype", async () => {
    await using backend = reference();
    const bytes = () => backend.memory().deviceBytes;
    expect(bytes()).toBe(0);
    const x = backend.tensor(f32(10));
    backend.tensor(wide("bfloat16", 10));
    backend.tensor(bool(3));
    expect(bytes()).toBe(40 + 20 + 3);
    const program = await backend.compile(
      trace({ x: f32(10), w: f32(10) }, (t) => ({ y: mul(t.x, t.w), s: sum(t.x) })),
      {
        constants: { w: new Float32Array(10) },
      },
    );
    expect(bytes()).toBe(63 + 40);
    const { y } = program.run({ x });
    expect(bytes()).toBe(63 + 40 + 40 + 4);
    const kept = y.keep();
    expect(bytes()).toBe(63 + 40 + 40 + 4 + 40);
    kept.dispose();
    program.close();
    expect(bytes()).toBe(63);
    x.dispose();
    expect(bytes()).toBe(23);
  });

  test("stays flat over 300 runs without disposing of anything, failed runs too", async () => {
    await using backend = reference();
    const graph = trace({ total: f32(2), x: f32("T", 2), ids: i32(1) }, ({ total, x, ids }) => ({
      next: add(total, sum(x, { axes: [0] })),
      row: gather(x, ids),
      scaled: mul(x, constant(2)),
    }));
    const program = await backend.compile(graph, { state: { total: "next" } });
    const total = backend.tensor(f32(2));
    const inputs = [3, 5].map((length) => backend.tensor(f32(length, 2), new Float32Array(length * 2).fill(1)));
    const ids = backend.tensor(i32(1));
    const levels = new Set<number>();
    for (let run = 0; run < 300; run++) {
      const x = inputs[run % 2];
      expect.assert(x);
      const fails = run % 50 === 49;
      backend.write(ids, Int32Array.of(fails ? 9 : 0));
      const { scaled } = program.run({ total, x, ids });
      if (fails) {
        await expect(scaled.read()).rejects.toThrow(DataError);
        backend.write(total, floats(0, 0));
      }
      levels.add(backend.memory().deviceBytes);
    }
    expect(levels.size).toBe(2);
    expect(await total.read()).toEqual(floats(0, 0));
  });
});

describe("closing", () => {
  test("an executable frees its outputs and refuses to run; what was kept stays", async () => {
    await using backend = reference();
    const program = await backend.compile(counter);
    const x = backend.tensor(f32(2), floats(1, 2));
    const { next, sum: total } = program.run({ total: x, x });
    const kept = next.keep();
    program.close();
    program.close();
    await expect(total.read()).rejects.toThrow(DisposedError);
    expect(() => program.run({ total: x, x })).toThrow(new DisposedError("reference: the executable is closed"));
    expect(await kept.read()).toEqual(floats(2, 4));
    expect(await x.read()).toEqual(floats(1, 2));
  });

  test("a backend frees everything and refuses to go on", async () => {
    const backend = reference();
    const program = await backend.compile(counter);
    const x = backend.tensor(f32(2));
    const { next } = program.run({ total: x, x });
    await backend.close();
    await backend.close();
    expect(backend.memory().deviceBytes).toBe(0);
    const closed = new DisposedError("reference: the backend is closed");
    expect(() => backend.tensor(f32(2))).toThrow(closed);
    await expect(backend.compile(counter)).rejects.toThrow(closed);
    expect(() => program.run({ total: x, x })).toThrow(closed);
    await expect(next.read()).rejects.toThrow(DisposedError);
    await expect(x.read()).rejects.toThrow(DisposedError);
    program.close();
  });

  test("`await using` closes at the end of the block", async () => {
    let left: Backend | undefined;
    {
      await using backend = reference();
      left = backend;
      expect(backend).toMatchObject({ name: "reference", limits: { symbolicDims: true } });
    }
    expect(() => left?.tensor(f32(1))).toThrow(DisposedError);
  });
});
