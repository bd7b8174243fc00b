// Halves on a device that has them: operands are read as they are, sums are float32, and what is stored is rounded once.
// Bounds are those of these roundings: 2^-11 of what is stored, and 2^-24 of the terms for every float32 addition.

import { testGpu } from "@sisa/browser-testing/node";
import {
  type AnyTensor,
  apply,
  attentionBackwardOp,
  attentionOp,
  type Backend,
  constant,
  Decoder,
  decayAttentionBackwardOp,
  decayAttentionOp,
  f32,
  finite,
  fromFloat16Bits,
  type Graph,
  initialize,
  languageModel,
  linearCrossEntropy,
  matmul,
  mul,
  RandomStream,
  reference,
  rmsNorm,
  roundTo,
  type Tensor,
  type TensorSpec,
  toFloat16Bits,
  trace,
  UnsupportedOpError,
} from "@sisa/core";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type WebgpuBackend, webgpu } from "./backend.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const gpu = await testGpu();
const probe = await webgpu({ gpu });
const hasHalves = probe.features.has("shader-f16");
const matrixUnits = "chromium-experimental-subgroup-matrix";
const hasUnits = probe.features.has(matrixUnits);
await probe.close();

const half = (...shape: readonly number[]) => ({ dtype: "float16" as const, shape: f32(...shape).shape });
type Values = { readonly [name: string]: ArrayLike<number> };

/** Runs a graph on numbers; halves go in and come out as their bits. */
async function run(backend: Backend, graph: Graph, inputs: Values): Promise<Values> {
  const executable = await backend.compile(graph);
  const tensors = Object.entries(graph.inputs as { readonly [name: string]: TensorSpec }).map(([name, spec]) => {
    const numbers = inputs[name] ?? [];
    const data =
      spec.dtype === "float16"
        ? Uint16Array.from(numbers, toFloat16Bits)
        : spec.dtype === "int32"
          ? Int32Array.from(numbers)
          : Float32Array.from(numbers);
    return [name, backend.tensor(spec, data)] as const;
  });
  const outputs: Record<string, ArrayLike<number>> = {};
  for (const [name, tensor] of Object.entries(executable.run(Object.fromEntries(tensors)))) {
    const data = await tensor.read();
    outputs[name] = tensor.spec.dtype === "float16" ? Float64Array.from(data, fromFloat16Bits) : data;
  }
  executable.close();
  for (const [, tensor] of tensors) tensor.dispose();
  return outputs;
}

/** Numbers that halves hold. */
function halves(label: string, count: number): Float64Array {
  return Float64Array.from(new RandomStream(1, label).normal(count), (value) => roundTo("float16", value));
}

if (hasHalves) describe("float16", halfTests);
else {
  test("float16: not run here, since this adapter has no shader-f16; refused by name", async () => {
    await using backend = await webgpu({ gpu });
    const graph = trace({ a: half(8, 16), b: half(16, 8) }, ({ a, b }) => matmul(a, b));
    const isNamed = (error: unknown) => UnsupportedOpError.isInstance(error) && String(error).includes("shader-f16");
    await expect(backend.compile(graph)).rejects.toSatisfy(isNamed);
  });
}

function halfTests() {
  let backend: WebgpuBackend;
  beforeAll(async () => {
    backend = await webgpu({ gpu });
  });
  afterAll(() => backend.close());

  /** Sizes by the variants that they lead to, and how operands lie: a, b, or both transposed. */
  const sizes = [
    ["few rows", 3, 67, 41, ["", "b"]],
    ["few rows, four at a time", 1, 300, 42, ["b"]],
    ["small", 7, 33, 5, ["", "a", "b", "ab"]],
    ["odd tiles", 35, 67, 37, ["", "ab"]],
    ["tiles, four at a time", 36, 132, 40, ["a", "b"]],
    ["a long sum in parts", 33, 1030, 36, ["a"]],
  ] as const;
  type Case = readonly [m: number, k: number, n: number, transposeA: boolean, transposeB: boolean];

  /** The largest difference to float64, as a part of what the roundings of sums and results allow. */
  async function productError([m, k, n, transposeA, transposeB]: Case, a: Float64Array, b: Float64Array) {
    const specs = { a: transposeA ? half(k, m) : half(m, k), b: transposeB ? half(n, k) : half(k, n) };
    const graph = trace(specs, ({ a, b }) => ({
      narrow: matmul(a, b, { transposeA, transposeB }),
      wide: matmul(a, b, { transposeA, transposeB, dtype: "float32" }),
    }));
    const { narrow = [], wide = [] } = await run(backend, graph as never, { a, b });
    let [worstNarrow, worstWide] = [0, 0];
    // Of large products some rows, in all parts of tiles.
    for (let i = 0; i < m; i += m > 1000 ? 29 : 1) {
      for (let j = 0; j < n; j++) {
        let [exact, terms, flushed] = [0, 0, 0];
        for (let l = 0; l < k; l++) {
          const x = a[transposeA ? l * m + i : i * k + l] ?? 0;
          const y = b[transposeB ? j * k + l : l * n + j] ?? 0;
          exact += x * y;
          terms += Math.abs(x * y);
          // WGSL may take what is below the normal numbers as zero.
          if (Math.min(Math.abs(x), Math.abs(y)) < 2 ** -14) flushed += Math.abs(x * y);
        }
        const sums = k * 2 ** -24 * terms + flushed;
        const place = i * n + j;
        worstWide = Math.max(worstWide, Math.abs((wide[place] ?? Number.NaN) - exact) / (sums || 2 ** -149));
        if (Math.abs(exact) + sums >= 65520) continue;
        const stored = sums + 2 ** -11 * Math.abs(exact) + (Math.abs(exact) < 2 ** -13 ? 2 ** -14 : 0);
        worstNarrow = Math.max(worstNarrow, Math.abs((narrow[place] ?? Number.NaN) - exact) / stored);
      }
    }
    return { narrow: worstNarrow, wide: worstWide, values: { narrow, wide } };
  }

  test.each(sizes)("products of %s have the error of float32 sums and one rounding", async (name, m, k, n, lying) => {
    const [a, b] = [halves(`${name} a`, m * k), halves(`${name} b`, k * n)];
    for (const transposed of lying) {
      const error = await productError([m, k, n, transposed.includes("a"), transposed.includes("b")], a, b);
      expect.soft(error.wide, transposed).toBeLessThanOrEqual(1);
      expect.soft(error.narrow, transposed).toBeLessThanOrEqual(1);
    }
  });

  /** By the tile that they lead to; with odd sizes, and with sums in parts. */
  const unitSizes = [
    ["64 x 64", 104, 136, 120, ["", "a", "b", "ab"]],
    ["64 x 64, in parts", 128, 1032, 120, ["", "a", "b", "ab"]],
    ["64 x 64 of an odd height", 97, 136, 121, ["b"]],
    ["128 x 128", 2008, 40, 1528, ["", "a", "b", "ab"]],
  ] as const;
  if (hasUnits) {
    test.each(unitSizes)("matrix units by %s keep the same bounds", async (name, m, k, n, lying) => {
      const [a, b] = [halves(`${name} a`, m * k), halves(`${name} b`, k * n)];
      for (const transposed of lying) {
        const error = await productError([m, k, n, transposed.includes("a"), transposed.includes("b")], a, b);
        expect.soft(error.wide, transposed).toBeLessThanOrEqual(1);
        expect.soft(error.narrow, transposed).toBeLessThanOrEqual(1);
      }
    });

    test("without matrix units, sums of whole numbers are the same", async () => {
      const graph = trace({ a: half(3, 160, 96), b: half(96, 192) }, ({ a, b }) => mul(matmul(a, b), 0.5));
      const whole = (label: string, count: number) =>
        Float64Array.from(new RandomStream(1, label).normal(count), (value) => Math.round(2 * value));
      const values = { a: whole("a", 3 * 160 * 96), b: whole("b", 96 * 192) };
      await using plain = await webgpu({ gpu, without: [matrixUnits] });
      expect(plain.features).not.toContain(matrixUnits);
      expect(await run(backend, graph as never, values)).toEqual(await run(plain, graph as never, values));
    });
  } else {
    test("matrix units: not run here, since this adapter offers none for halves", () => {
      expect(backend.features).not.toContain(matrixUnits);
    });
  }

  test("4,099 ones add up to 4,099, which sums in float16 stop short of at 2,048", async () => {
    const k = 4099;
    for (const m of [1, 34]) {
      const graph = trace({ a: half(m, k), b: half(40, k) }, ({ a, b }) =>
        matmul(a, b, { transposeB: true, dtype: "float32" }),
      );
      const ones = (count: number) => new Float64Array(count).fill(1);
      const { value = [] } = await run(backend, graph as never, { a: ones(m * k), b: ones(40 * k) });
      expect(new Set(Array.from(value))).toEqual(new Set([k]));
    }
  });

  test("the largest and the smallest halves are multiplied within the same bounds, and too large a result is infinite", async () => {
    const hostile = [65504, -65504, 2 ** -24, -(2 ** -24), 2 ** -14, 1023 * 2 ** -24, 0, 1, -2048];
    for (const [m, k, n] of [
      [1, 9, 40],
      [5, 9, 7],
      [34, 9, 38],
    ] as const) {
      const pick = (count: number, step: number) =>
        Float64Array.from({ length: count }, (_, index) => hostile[(index * step) % hostile.length] ?? 0);
      const { narrow, wide, values } = await productError([m, k, n, false, false], pick(m * k, 4), pick(k * n, 7));
      expect(wide).toBeLessThanOrEqual(1);
      expect(narrow).toBeLessThanOrEqual(1);
      const beyond = Array.from(values.wide, (value, index) => [value, values.narrow[index]] as const).filter(
        ([value]) => Math.abs(value) >= 65536,
      );
      expect(beyond.length).toBeGreaterThan(0);
      for (const [value, stored] of beyond) expect(stored).toBe(value > 0 ? Infinity : -Infinity);
    }
  });

  test("a result beyond what halves hold is found not finite, as loss scaling needs it", async () => {
    const graph = trace({ a: half(2, 3), b: half(3, 2) }, ({ a, b }) => {
      const product = matmul(a, b);
      return { product, verdict: finite(product) };
    });
    const inputs = (scale: number) => ({ a: new Float64Array(6).fill(scale), b: new Float64Array(6).fill(scale) });
    const verdict = async (scale: number) =>
      Array.from((await run(backend, graph as never, inputs(scale))).verdict ?? []);
    expect(await verdict(100)).toEqual([1, 1, 1, 1]);
    expect(await verdict(200)).toEqual([0, 0, 0, 0]);
  });

  /** The same graph with halves and with float32, which the reference computes in float64. */
  async function compare(
    shapes: { readonly [name: string]: readonly number[] },
    wideNames: readonly string[],
    build: (inputs: Record<string, Tensor>) => { readonly [name: string]: AnyTensor },
    values: Values,
  ) {
    const spec = (isWide: boolean) =>
      Object.fromEntries(
        Object.entries(shapes).map(([name, shape]) => [
          name,
          isWide || wideNames.includes(name) ? f32(...shape) : half(...shape),
        ]),
      );
    const graph = (isWide: boolean) => trace(spec(isWide), build as never) as unknown as Graph;
    const exact = await run(reference({ mode: "float64" }), graph(true), values);
    const own = await run(backend, graph(false), values);
    for (const [name, expected] of Object.entries(exact)) {
      const largest = Array.from(expected).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      let worst = 0;
      Array.from(expected).forEach((value, index) => {
        // One rounding of what is stored, and 2^-16 of the largest element for some hundred float32 operations before.
        const allowed = 2 ** -11 * Math.abs(value) + 2 ** -16 * largest + 2 ** -25;
        worst = Math.max(worst, Math.abs((own[name]?.[index] ?? Number.NaN) - value) / allowed);
      });
      expect.soft(worst, name).toBeLessThanOrEqual(1);
    }
  }

  const [B, H, D, S] = [2, 2, 20, 12];
  const attentionShapes = (T: number, C: number) => ({ q: [B, T, H, D], k: [B, C, H, D], v: [B, C, H, D] });
  const decayShapes = (T: number, C: number) => ({
    ...attentionShapes(T, C),
    ...{ cRotated: [B, T, H, S], bRotated: [B, C, H, S] },
    ...{ gQuery: [B, T, H], gKey: [B, C, H], lambda: [H] },
  });
  const gates = ["gQuery", "gKey", "lambda"];
  function fill(shapes: { readonly [name: string]: readonly number[] }): Values {
    return Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => {
        const values = halves(
          name,
          shape.reduce((a, b) => a * b, 1),
        );
        if (name === "lambda") return [name, values.map(Math.abs)];
        // Sums of decays since the block began, ever lower.
        if (name === "gQuery" || name === "gKey") {
          const T = shape[1] ?? 0;
          return [name, values.map((_, index) => -0.05 * ((Math.floor(index / H) % T) % 64))];
        }
        return [name, values];
      }),
    );
  }

  test.each([
    ["tiles", 70],
    ["a few queries of a cache", 3],
  ] as const)("attention and SISA attention over %s", async (_, T) => {
    const plain = attentionShapes(T, 70);
    await compare(
      plain,
      [],
      (inputs) => {
        const { value } = apply(attentionOp, inputs as never, { scale: 0.25, causal: false });
        return { value };
      },
      fill(plain),
    );
    const decay = decayShapes(T, 70);
    await compare(
      decay,
      gates,
      (inputs) => {
        const { value } = apply(decayAttentionOp, inputs as never, { scale: 0.25 });
        return { value };
      },
      fill(decay),
    );
  });

  test("cached decoding, whose caches are halves too, gives what the reference gives", async () => {
    const sizes = { width: 32, heads: 2, feedForwardWidth: 40, stateWidth: 8, vocabularySize: 37, maximumLength: 160 };
    const rest = { form: "exact", ropeBase: 10_000, normEpsilon: 1e-6, mixers: ["sisa", "attention"] } as const;
    const model = languageModel({ ...sizes, ...rest });
    const options = { model, parameters: initialize(model, 1), capacity: 16, precision: "float16" } as const;
    await using own = await Decoder.create({ ...options, backend });
    await using exact = await Decoder.create({ ...options, backend: reference() });
    for (const [start, ids] of [
      [0, [3, 10, 17, 24, 31]],
      [5, [1]],
      [6, [8]],
    ] as const) {
      const [found, wanted] = [await own.append([ids], [start]), await exact.append([ids], [start])];
      const largest = Math.max(...wanted.map(Math.abs));
      expect(Math.max(...wanted.map((x, id) => Math.abs(x - (found[id] ?? Number.NaN)))) / largest).toBeLessThan(2e-3);
    }
  });

  test("gradients of attention and of SISA attention", async () => {
    const T = 70;
    for (const [forward, backward, shapes, wide] of [
      [attentionOp, attentionBackwardOp, attentionShapes(T, T), []],
      [decayAttentionOp, decayAttentionBackwardOp, decayShapes(T, T), gates],
    ] as const) {
      const values = fill({ ...shapes, gradient: [B, T, H, D] });
      const attributes = { scale: 0.25, ...(forward === attentionOp && { causal: true }) };
      const specs = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, f32(...shape)]));
      const graph = trace(specs, (inputs) =>
        apply(forward as typeof attentionOp, inputs as never, attributes as never),
      );
      const { value = [], logSumExp = [] } = await run(reference({ mode: "float64" }), graph as never, values);
      // What was stored forward is given to both, so that only the gradients' own roundings are compared.
      const stored = Float64Array.from(value, (one) => roundTo("float16", one));
      const all = { ...shapes, value: [B, T, H, D], logSumExp: [B, H, T], gradient: [B, T, H, D] };
      await compare(
        all,
        [...wide, "logSumExp"],
        (inputs) => {
          const {
            bias: _,
            scores: __,
            ...gradients
          } = apply(backward as typeof attentionBackwardOp, inputs as never, attributes as never) as Record<
            string,
            AnyTensor
          >;
          return gradients;
        },
        { ...values, value: stored, logSumExp },
      );
    }
  });

  test("norms and the loss of a head", async () => {
    const [N, M, V] = [5, 36, 43];
    const shapes = { x: [N, M], weight: [M] };
    await compare(shapes, [], ({ x, weight }) => ({ value: rmsNorm(x as Tensor, weight as Tensor) }), fill(shapes));
    const specs = { x: [N, M], weight: [V, M] };
    const targets = constant(
      Int32Array.from({ length: N }, (_, index) => (index * 11) % V),
      "int32",
    );
    await compare(
      specs,
      [],
      ({ x, weight }) => ({ value: linearCrossEntropy({ x: x as Tensor, weight: weight as Tensor, targets }) }),
      fill(specs),
    );
  });
}
