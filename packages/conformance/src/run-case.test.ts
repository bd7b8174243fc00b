// That wrong backends are found wrong: backends here are the reference with one fault each.

import {
  add,
  type Backend,
  DataError,
  DeviceError,
  type DeviceTensor,
  f32,
  floor,
  mul,
  reference,
  type TypedArray,
  UnsupportedOpError,
} from "@sisa/core";
import { describe, expect, test } from "vitest";
import { type Case, floats, given, testCase } from "./case.ts";
import { gatherCases } from "./cases/gather.ts";
import { counts } from "./result.ts";
import { inPart, runCase, runCases } from "./run-case.ts";

type Outputs = { readonly [name: string]: DeviceTensor };

/** The reference, with its outputs and inputs passed through `tamper` after each run. */
function faulty(tamper: (outputs: Outputs, inputs: { readonly [name: string]: DeviceTensor }) => Outputs): Backend {
  const backend = reference();
  const compile: Backend["compile"] = async (graph, options) => {
    const executable = await backend.compile(graph, options);
    const run: typeof executable.run = (inputs) =>
      tamper(executable.run(inputs), inputs as { readonly [name: string]: DeviceTensor }) as ReturnType<typeof run>;
    return { run, close: () => executable.close() };
  };
  return Object.assign(Object.create(backend) as Backend, {
    name: "faulty",
    limits: backend.limits,
    compile,
    tensor: backend.tensor.bind(backend),
    write: backend.write.bind(backend),
    close: () => backend.close(),
  });
}

/** Outputs whose contents are changed when they are read. */
function reading(change: (data: TypedArray) => TypedArray): (outputs: Outputs) => Outputs {
  return (outputs) =>
    Object.fromEntries(
      Object.entries(outputs).map(([name, { spec, ...output }]) => {
        const tensor = outputs[name];
        const read = async () => change((await tensor?.read()) ?? new Float32Array());
        return [name, { ...output, spec, read } as DeviceTensor];
      }),
    );
}

const product = testCase({
  name: "product",
  inputs: { a: floats([5]), b: floats([5]) },
  program: ({ a, b }) => mul(a, b),
});

async function statusOf(backend: Backend, item: Case = product, mode: "forward" | "grad" = "forward") {
  const row = await runCase(backend, "mul", item, mode);
  return `${row?.status}${row?.error === undefined ? "" : `: ${row.error}`}`;
}

describe("a backend passes", () => {
  test("where it computes what the reference computes", async () => {
    expect(await statusOf(reference())).toBe("passed");
    expect(await statusOf(reference(), product, "grad")).toBe("passed");
  });
});

describe("a backend fails", () => {
  test("where a value is off by a thousandth, forward and by gradient", async () => {
    const wrong = faulty(reading((data) => data.map((value) => value * 1.001) as TypedArray));
    expect(await statusOf(wrong)).toContain("failed: value: NMSE 1.00e-6, allowed 1e-7");
    expect(await statusOf(wrong, product, "grad")).toContain("failed: grad.");
  });

  test("where it loses NaN", async () => {
    const hostile = testCase({
      name: "hostile",
      inputs: { a: given(f32(2), [Number.NaN, 1]) },
      program: ({ a }) => add(a, 1),
      ieee: true,
    });
    const wrong = faulty(reading((data) => data.map((value) => (Number.isNaN(value) ? 0 : value)) as TypedArray));
    expect(await statusOf(wrong, hostile)).toBe("failed: value: element 0 is 0, expected NaN");
  });

  test("where an output has another shape, or is missing", async () => {
    const reshaped = faulty((outputs) =>
      Object.fromEntries(
        Object.entries(outputs).map(([name, output]) => [
          name,
          { ...output, spec: f32(1, 5), read: () => output.read() } as DeviceTensor,
        ]),
      ),
    );
    expect(await statusOf(reshaped)).toContain('output "value" is float32[1,5], expected float32[5]');
    expect(await statusOf(faulty(() => ({})))).toContain('output "value" is missing');
  });

  test("where it changes an input", async () => {
    const backend: Backend = faulty((outputs, { a }) => {
      if (a) backend.write(a, new Float32Array(5));
      return outputs;
    });
    expect(await statusOf(backend)).toContain('input "a" was changed by the run');
  });

  test("where runs differ in a bit", async () => {
    let runs = 0;
    const wrong = faulty(
      reading((data) => data.map((value) => (runs++ < 5 ? value : value * (1 + 2 ** -23))) as TypedArray),
    );
    expect(await statusOf(wrong, { ...product, repeat: 2 })).toContain("value: run 2 gave other bits than the first");
  });

  test("where it gives a value for what must fail, or fails with something that is no error of ours", async () => {
    const [item] = gatherCases.cases.filter(({ name }) => name === "past-the-end");
    if (item === undefined) throw new Error("gather has no such case");
    expect(await statusOf(reference(), item)).toBe("passed");
    expect(await statusOf(reference(), { ...product, fails: DataError })).toContain("must fail with DataError");
    const device = faulty((outputs) => ({
      ...outputs,
      get value(): DeviceTensor {
        throw new DeviceError("index 5 is out of range");
      },
    }));
    expect(await statusOf(device, item)).toBe("passed");
    const other = faulty(() => {
      throw new TypeError("cannot read properties of undefined");
    });
    expect(await statusOf(other, item)).toContain("must fail with DataError, got TypeError");
  });
});

describe("a case is unsupported", () => {
  const refusing = () =>
    faulty(() => {
      throw new UnsupportedOpError("mul", "faulty", "it runs nothing");
    });

  test("where the backend says so, which is not passed", async () => {
    expect(await statusOf(refusing())).toContain("unsupported: UnsupportedOpError");
    expect(counts(await runCases(refusing(), { op: "mul", cases: [product], refusals: [] }, "forward"))).toEqual({
      passed: 0,
      failed: 0,
      unsupported: 1,
    });
  });

  test("where it needs IEEE 754 and the backend does not promise that", async () => {
    const row = await runCase(reference(), "mul", { ...product, ieee: true }, "forward", { ieee: false });
    expect(row).toMatchObject({ status: "unsupported", error: "no IEEE 754 guarantees" });
  });
});

test("what has no gradients has no row for them", async () => {
  const item = testCase({ name: "floor", inputs: { x: floats([3]) }, program: ({ x }) => floor(x) });
  expect(await runCase(reference(), "floor", item, "grad")).toBeUndefined();
});

test("both parts together are all cases but those for timing", () => {
  const cases = [product, { ...product, slow: true }, { ...product, perf: true }];
  const inParts = (part: "fast" | "slow" | undefined) => cases.map((item) => inPart(item, part));
  expect([inParts("fast"), inParts("slow"), inParts(undefined)]).toEqual([
    [true, false, false],
    [false, true, false],
    [true, true, false],
  ]);
});
