import os from "node:os";
import {
  add,
  apply,
  BackendUnavailableError,
  cacheWrite,
  DeviceError,
  DisposedError,
  defineComposite,
  definePrimitive,
  f32,
  GraphError,
  gather,
  i32,
  matmul,
  mean,
  mul,
  reference,
  silu,
  slice,
  sum,
  type Tensor,
  trace,
  UnsupportedOpError,
  valueAndGrad,
} from "@sisa/core";
import { InferenceSession } from "onnxruntime-node";
import { afterEach, describe, expect, test, vi } from "vitest";
import { lowering, onnxruntime } from "./index.ts";

const backends: AsyncDisposable[] = [];

async function backend() {
  const made = await onnxruntime({ threads: 1 });
  backends.push(made);
  return made;
}

afterEach(async () => {
  for (const made of backends.splice(0)) await made[Symbol.asyncDispose]();
});

const counter = () => trace({ x: f32(2), step: f32(2) }, ({ x, step }) => ({ next: add(x, step), twice: mul(x, 2) }));

describe("compile and run", () => {
  test("gives what the reference gives, gradients included", async () => {
    const loss = trace({ x: f32("T", 8), w: f32(8, 4) }, ({ x, w }) => mean(silu(matmul(x, w))));
    const graph = valueAndGrad(loss, { wrt: ["w"] });
    const x = Float32Array.from({ length: 24 }, (_, index) => Math.sin(index));
    const w = Float32Array.from({ length: 32 }, (_, index) => Math.cos(index));
    const results = [];
    for (const device of [reference(), await backend()]) {
      const program = await device.compile(graph);
      const outputs = program.run({ x: device.tensor(f32(3, 8), x), w: device.tensor(f32(8, 4), w) });
      results.push([...(await outputs.value.read()), ...(await outputs["grad.w"].read())]);
    }
    const [expected = [], actual = []] = results;
    expect(actual.length).toBe(33);
    for (const [index, value] of actual.entries()) expect(value).toBeCloseTo(expected[index] ?? Number.NaN, 6);
  });

  test("one executable serves all lengths", async () => {
    const device = await backend();
    const program = await device.compile(trace({ x: f32("B", "T") }, ({ x }) => sum(x, { axes: [1] })));
    for (const [batch, length] of [
      [1, 3],
      [2, 5],
      [2, 0],
      [1, 3],
    ] as const) {
      const x = device.tensor(f32(batch, length), new Float32Array(batch * length).fill(1));
      const { value } = program.run({ x });
      expect(value.spec.shape.map((size) => size.value)).toEqual([batch]);
      expect([...(await value.read())]).toEqual(new Array(batch).fill(length));
    }
  });

  test("constants are part of the executable", async () => {
    const device = await backend();
    const graph = trace({ x: f32(1, 3), w: f32(2, 3) }, ({ x, w }) => matmul(x, w, { transposeB: true }));
    const w = Float32Array.of(1, 2, 3, 4, 5, 6);
    const program = await device.compile(graph, { constants: { w } });
    w.fill(0);
    const { value } = program.run({ x: device.tensor(f32(1, 3), Float32Array.of(1, 1, 1)) });
    expect([...(await value.read())]).toEqual([6, 15]);
    const shorter = new Float32Array(5);
    await expect(device.compile(graph, { constants: { w: shorter } })).rejects.toThrow("Float32Array of 6");
    await expect(device.compile(graph, { constants: { v: w } as object })).rejects.toThrow('"v" is no input');
  });

  test("inputs must be there, fit, and belong to the backend", async () => {
    const device = await backend();
    const program = await device.compile(counter());
    const x = device.tensor(f32(2));
    expect(() => program.run({ x })).toThrow('input "step" is missing');
    expect(() => program.run({ x, step: device.tensor(f32(3)) })).toThrow('input "step" must be [2], got [3]');
    expect(() => program.run({ x, step: device.tensor(i32(2)) })).toThrow('input "step" must be float32, got int32');
    expect(() => program.run({ x, step: reference().tensor(f32(2)) })).toThrow("another backend");
  });

  test("an output that is an input, or twice an output, is copied", async () => {
    const device = await backend();
    const program = await device.compile(
      trace({ x: f32(2) }, ({ x }) => {
        const y = add(x, 1);
        return { x, a: y, b: y };
      }),
    );
    const outputs = program.run({ x: device.tensor(f32(2), Float32Array.of(1, 2)) });
    expect([...(await outputs.x.read())]).toEqual([1, 2]);
    expect([...(await outputs.a.read())]).toEqual([2, 3]);
    expect([...(await outputs.b.read())]).toEqual([2, 3]);
  });

  test("refuses floats other than float32 by name", async () => {
    const device = await backend();
    const graph = trace({ x: { ...f32(2), dtype: "bfloat16" as const } }, ({ x }) => add(x, 1));
    await expect(device.compile(graph)).rejects.toThrow(UnsupportedOpError);
    await expect(device.compile(graph)).rejects.toThrow("float32 only, got bfloat16[2]");
  });
});

describe("state", () => {
  test("after a run, the handle of an input denotes the new value", async () => {
    const device = await backend();
    const program = await device.compile(counter(), { state: { x: "next" } });
    const x = device.tensor(f32(2), Float32Array.of(0, 10));
    const step = device.tensor(f32(2), Float32Array.of(1, 2));
    const before = x.read();
    let outputs = program.run({ x, step });
    for (let index = 1; index < 50; index++) outputs = program.run({ x, step });
    expect([...(await x.read())]).toEqual([50, 110]);
    // The other output saw the value before the last run.
    expect([...(await outputs.twice.read())]).toEqual([98, 216]);
    expect(outputs.next).toBe(x);
    expect([...(await before)]).toEqual([0, 10]);
  });

  test("a kept value outlives later runs", async () => {
    const device = await backend();
    const program = await device.compile(counter(), { state: { x: "next" } });
    const x = device.tensor(f32(2));
    const step = device.tensor(f32(2), Float32Array.of(1, 1));
    const kept = [];
    for (let index = 0; index < 4; index++) {
      program.run({ x, step });
      kept.push(x.keep());
    }
    const values = await Promise.all(kept.map((tensor) => tensor.read()));
    expect(values.map(([first]) => first)).toEqual([1, 2, 3, 4]);
  });

  test("an output of an executable, or one tensor twice, is no state", async () => {
    const device = await backend();
    const graph = trace({ x: f32(1), y: f32(1) }, ({ x, y }) => ({ x: add(x, 1), y: add(y, 1) }));
    const program = await device.compile(graph, { state: { x: "x", y: "y" } });
    const plain = await device.compile(graph);
    const x = device.tensor(f32(1));
    expect(() => program.run({ x, y: x })).toThrow("for two states");
    const { y } = plain.run({ x, y: device.tensor(f32(1)) });
    expect(() => program.run({ x, y })).toThrow(GraphError);
  });

  test("caches are written in place, unless an older value is kept", async () => {
    const device = await backend();
    const graph = trace({ cache: f32(1, 4, 2), update: f32(1, 1, 2), start: i32(1) }, ({ cache, update, start }) => {
      const written = cacheWrite(cache, update, start);
      return { cache: written, total: sum(written) };
    });
    const program = await device.compile(graph, { state: { cache: "cache" } });
    const cache = device.tensor(f32(1, 4, 2));
    const update = device.tensor(f32(1, 1, 2), Float32Array.of(1, 2));
    const start = device.tensor(i32(1), Int32Array.of(0));
    program.run({ cache, update, start });
    const { deviceBytes } = device.memory();
    for (let row = 1; row < 3; row++) {
      device.write(start, Int32Array.of(row));
      program.run({ cache, update, start });
    }
    expect(device.memory().deviceBytes).toBe(deviceBytes);
    const kept = cache.keep();
    device.write(start, Int32Array.of(3));
    const { total } = program.run({ cache, update, start });
    expect([...(await kept.read())]).toEqual([1, 2, 1, 2, 1, 2, 0, 0]);
    expect([...(await cache.read())]).toEqual([1, 2, 1, 2, 1, 2, 1, 2]);
    expect([...(await total.read())]).toEqual([12]);
  });
});

describe("outputs", () => {
  test("hold until the next run, unless kept or read before", async () => {
    const device = await backend();
    const program = await device.compile(counter());
    const x = device.tensor(f32(2), Float32Array.of(1, 1));
    const step = device.tensor(f32(2), Float32Array.of(1, 1));
    const first = program.run({ x, step });
    const kept = first.next.keep();
    const read = first.next.read();
    device.write(x, Float32Array.of(5, 5));
    program.run({ x, step });
    await expect(first.next.read()).rejects.toThrow(DisposedError);
    expect([...(await read)]).toEqual([2, 2]);
    expect([...(await kept.read())]).toEqual([2, 2]);
    kept.dispose();
    await expect(kept.read()).rejects.toThrow(DisposedError);
  });

  test("can be inputs of other executables in the same queue", async () => {
    const device = await backend();
    const program = await device.compile(counter());
    const other = await device.compile(trace({ y: f32(2) }, ({ y }) => mul(y, 10)));
    const x = device.tensor(f32(2));
    const step = device.tensor(f32(2), Float32Array.of(1, 2));
    const results = [];
    for (let index = 0; index < 3; index++) {
      const { next } = program.run({ x, step });
      results.push(other.run({ y: next }).value.keep());
      device.write(x, new Float32Array(2).fill(index + 1));
    }
    const values = await Promise.all(results.map((tensor) => tensor.read()));
    expect(values.map((value) => [...value])).toEqual([
      [10, 20],
      [20, 30],
      [30, 40],
    ]);
  });

  test("cannot be written", async () => {
    const device = await backend();
    const program = await device.compile(counter());
    const { next } = program.run({ x: device.tensor(f32(2)), step: device.tensor(f32(2)) });
    expect(() => device.write(next, new Float32Array(2))).toThrow("an output of an executable");
  });
});

describe("the queue", () => {
  test("writes take effect between the runs around them, whatever becomes of the array", async () => {
    const device = await backend();
    const program = await device.compile(trace({ x: f32(1) }, ({ x }) => add(x, 0)));
    const x = device.tensor(f32(1));
    const data = new Float32Array(1);
    const outputs = [];
    for (let index = 0; index < 5; index++) {
      data[0] = index;
      device.write(x, data);
      outputs.push(program.run({ x }).value.keep());
    }
    data[0] = 99;
    const values = await Promise.all(outputs.map((tensor) => tensor.read()));
    expect(values.map(([value]) => value)).toEqual([0, 1, 2, 3, 4]);
  });

  test("an error surfaces where its results are read, with the operation's name, and nowhere else", async () => {
    const device = await backend();
    const program = await device.compile(
      trace({ table: f32(3, 2), ids: i32(1) }, ({ table, ids }) => ({ row: gather(table, ids), all: add(table, 1) })),
      { state: { table: "all" } },
    );
    const sumOf = await device.compile(trace({ x: f32(1, 2) }, ({ x }) => sum(x)));
    const table = device.tensor(f32(3, 2));
    const ids = device.tensor(i32(1), Int32Array.of(7));
    const { row } = program.run({ table, ids });
    const { value } = sumOf.run({ x: row });
    await expect(row.read()).rejects.toThrow(DeviceError);
    await expect(row.read()).rejects.toThrow(/^gather: /);
    await expect(value.read()).rejects.toThrow(/^gather: /);
    await expect(table.read()).rejects.toThrow(/^gather: /);
    // What is written anew is sound again.
    device.write(table, new Float32Array(6).fill(2));
    device.write(ids, Int32Array.of(1));
    const again = program.run({ table, ids });
    expect([...(await again.row.read())]).toEqual([2, 2]);
    expect([...(await table.read())]).toEqual([3, 3, 3, 3, 3, 3]);
  });
});

describe("memory", () => {
  test("stays flat over 300 runs that nobody disposes of", async () => {
    const device = await backend();
    const loss = trace({ x: f32(16, 8), w: f32(8, 8) }, ({ x, w }) => mean(silu(matmul(x, w))));
    const graph = valueAndGrad(loss, { wrt: ["w"] });
    const program = await device.compile(graph, { state: { w: "grad.w" } });
    const x = device.tensor(f32(16, 8), new Float32Array(128).fill(0.5));
    const w = device.tensor(f32(8, 8), new Float32Array(64).fill(0.5));
    const sizes = new Set<number>();
    for (let index = 0; index < 300; index++) {
      const { value } = program.run({ x, w });
      if (index % 10 === 0) await value.read();
      if (index > 0) sizes.add(device.memory().deviceBytes);
    }
    expect([...sizes]).toHaveLength(1);
  });

  test("closing frees what is held, and what is closed says so", async () => {
    const device = await backend();
    const program = await device.compile(counter());
    const x = device.tensor(f32(2));
    const { next } = program.run({ x, step: x });
    const kept = next.keep();
    program.close();
    expect(() => program.run({ x, step: x })).toThrow("the executable is closed");
    await device.close();
    expect(device.memory().deviceBytes).toBe(0);
    await expect(kept.read()).rejects.toThrow(DisposedError);
    expect(() => device.tensor(f32(1))).toThrow("the backend is closed");
    await expect(device.compile(counter())).rejects.toThrow(DisposedError);
  });
});

describe("operations of third parties", () => {
  const cube = definePrimitive<"acme/cube", { readonly x: Tensor }, Record<string, never>>({
    name: "acme/cube",
    inputs: ["x"],
    infer: ({ x }) => ({ value: { dtype: x.dtype, shape: x.shape } }),
    reference: ({ x }, _attributes, { value }) => {
      x.data.forEach((element, index) => {
        value.data[index] = element ** 3;
      });
    },
    vjp: { reason: "nobody asked" },
  });
  const twice = defineComposite<"acme/twice", { readonly x: Tensor }, Record<string, never>>({
    name: "acme/twice",
    inputs: ["x"],
    compose: ({ x }) => ({ value: add(x, x) }),
  });
  const cubes = () => trace({ x: f32(2) }, ({ x }) => apply(cube, { x }, {}).value);

  test("composites run by their composition", async () => {
    const device = await backend();
    const program = await device.compile(trace({ x: f32(2) }, ({ x }) => apply(twice, { x }, {}).value));
    const { value } = program.run({ x: device.tensor(f32(2), Float32Array.of(1, 2)) });
    expect([...(await value.read())]).toEqual([2, 4]);
  });

  test("primitives need a lowering", async () => {
    const plain = await backend();
    await expect(plain.compile(cubes())).rejects.toThrow(UnsupportedOpError);
    const lowered = lowering(cube, ({ emit, inputs: { x } }) => ({
      value: emit.node("Mul", [emit.node("Mul", [x, x]), x]),
    }));
    const device = await onnxruntime({ lowerings: { "acme/cube": lowered } });
    backends.push(device);
    const program = await device.compile(cubes());
    const { value } = program.run({ x: device.tensor(f32(2), Float32Array.of(2, 3)) });
    expect([...(await value.read())]).toEqual([8, 27]);
  });

  test("one that is marked as unsupported is refused though it has a composition", async () => {
    const device = await onnxruntime({ lowerings: { "acme/twice": "unsupported" } });
    backends.push(device);
    const graph = trace({ x: f32(2) }, ({ x }) => slice(apply(twice, { x }, {}).value, { axis: 0, end: 1 }));
    await expect(device.compile(graph)).rejects.toThrow('cannot run "acme/twice"');
  });
});

test("a missing package is an error that says how to install it", async () => {
  vi.doMock("onnxruntime-node", () => {
    throw new Error("Cannot find package 'onnxruntime-node'");
  });
  try {
    await expect(onnxruntime()).rejects.toThrow(BackendUnavailableError);
    await expect(onnxruntime()).rejects.toThrow("ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node");
  } finally {
    vi.doUnmock("onnxruntime-node");
  }
});

test("a process that may use some of the cores takes no more threads than those", async () => {
  const create = vi.spyOn(InferenceSession, "create");
  const available = vi.spyOn(os, "availableParallelism");
  try {
    const threads = async (cores: number) => {
      available.mockReturnValue(cores);
      create.mockClear();
      await using device = await onnxruntime();
      await device.compile(counter());
      return create.mock.calls.map((call) => (call as unknown as [unknown, { intraOpNumThreads?: number }])[1]);
    };
    const cores = os.cpus().length;
    for (const options of await threads(cores - 1)) expect(options.intraOpNumThreads).toBe(cores - 1);
    for (const options of await threads(cores)) expect(options.intraOpNumThreads).toBeUndefined();
    expect(create).toHaveBeenCalled();
  } finally {
    create.mockRestore();
    available.mockRestore();
  }
});

test("threads must be a whole number", async () => {
  await expect(onnxruntime({ threads: 0 })).rejects.toThrow("threads must be a whole number >= 1, got 0");
});
