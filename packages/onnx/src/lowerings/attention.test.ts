import {
  type AnyTensor,
  allocate,
  apply,
  attention,
  attentionOp,
  concat,
  decayAttention,
  elementsOf,
  f32,
  forgettingAttention,
  type Graph,
  i32,
  mul,
  reference,
  sigmoidDecayAttention,
  sizeOf,
  sum,
  type Tensor,
  type TypedArray,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { onnxruntime } from "../index.ts";
import { lower } from "../lower.ts";
import { tileFor } from "./attention-tiles.ts";

const sizes = { B: 2, H: 2, D: 4, E: 6, S: 4 };

let backend: Awaited<ReturnType<typeof onnxruntime>>;
beforeAll(async () => {
  backend = await onnxruntime();
});
afterAll(() => backend.close());

/** Numbers that look random and are always the same. */
function noise(length: number, seed: number): Float32Array {
  return Float32Array.from({ length }, (_, index) => {
    const x = Math.sin((index + 1) * 12.9898 + seed * 78.233) * 43758.5453;
    return (x - Math.floor(x)) * 2 - 1;
  });
}

/** Sums of log decay within blocks of 64, of `decay` a token on average. */
function blockSums(T: number, decay: number): Float32Array {
  const { B, H } = sizes;
  const g = new Float32Array(B * T * H);
  const steps = noise(B * T * H, 9);
  for (let batch = 0; batch < B; batch++) {
    for (let h = 0; h < H; h++) {
      for (let t = 0; t < T; t++) {
        const index = (batch * T + t) * H + h;
        const before = t % 64 === 0 ? 0 : (g[index - H] ?? 0);
        g[index] = before - decay * (1 + (steps[index] ?? 0));
      }
    }
  }
  return g;
}

/** Largest distance of each output, relative to the largest element of what the reference gives in float64. */
async function distances(graph: Graph, inputs: { readonly [name: string]: TypedArray }) {
  const read = async (device: typeof backend) => {
    const program = await device.compile(graph);
    const tensors = Object.entries(graph.inputs).map(([name, spec]) => [name, device.tensor(spec, inputs[name])]);
    const outputs = program.run(Object.fromEntries(tensors));
    const values = Object.entries(outputs).map(async ([name, tensor]) => [name, await tensor.read()] as const);
    return Object.fromEntries(await Promise.all(values));
  };
  const [expected, actual] = [await read(reference({ mode: "float64" })), await read(backend)];
  return Object.entries(expected).map(([name, values]) => {
    // What cancels altogether, as with one key, has no size of its own.
    const scale = Math.max(...values.map(Math.abs)) || 1;
    const found = actual[name] ?? allocate("float32", 0);
    const distance = Math.max(...values.map((value, index) => Math.abs(value - (found[index] ?? Number.NaN))));
    return { name, distance: distance / scale };
  });
}

const weighted = (value: Tensor, weight: Tensor) => sum(mul(value, weight));

describe("tiles", () => {
  test("begin with blocks, and are few where the length allows it", () => {
    expect([1, 64, 100, 256, 512, 640, 700, 1024, 2048].map(tileFor)).toEqual([64, 64, 64, 64, 64, 128, 64, 128, 256]);
  });

  test.for([1, 50, 128, 150])("attention over %i positions, and its gradients", async (T) => {
    const { B, H, D, E } = sizes;
    const specs = { q: f32(B, T, H, D), k: f32(B, T, H, D), v: f32(B, T, H, E), weight: f32(B, T, H, E) };
    const loss = trace(specs, ({ q, k, v, weight }) => weighted(attention({ q, k, v }, { scale: 2 }), weight));
    const inputs = Object.fromEntries(
      Object.keys(specs).map((name, index) => [name, noise(B * T * H * (index < 2 ? D : E), index)]),
    );
    const graph = valueAndGrad(loss, { wrt: ["q", "k", "v"] });
    for (const { name, distance } of await distances(graph, inputs)) expect(distance, name).toBeLessThan(3e-6);
  });

  const lengthsAndDecays = [
    [128, 0.02],
    [1, 0.5],
    [150, 1],
    [128, 20],
    // Tiles of two blocks.
    [640, 0.1],
  ] as const;

  test.for([
    ...lengthsAndDecays.map(([T, decay]) => ({ name: "decayAttention", attend: decayAttention, T, decay })),
    { name: "sigmoidDecayAttention", attend: sigmoidDecayAttention, T: 150, decay: 1 },
    { name: "sigmoidDecayAttention", attend: sigmoidDecayAttention, T: 1, decay: 1 },
  ])("$name over $T positions at $decay a token, and its gradients", async ({ attend, T, decay }) => {
    const { B, H, D, E, S } = sizes;
    const specs = {
      q: f32(B, T, H, D),
      k: f32(B, T, H, D),
      v: f32(B, T, H, E),
      cRotated: f32(B, T, H, S),
      bRotated: f32(B, T, H, S),
      gQuery: f32(B, T, H),
      gKey: f32(B, T, H),
      lambda: f32(H),
      weight: f32(B, T, H, E),
    };
    const loss = trace(specs, ({ weight, ...inputs }) => weighted(attend(inputs, { scale: 0.7 }), weight));
    const widths = { q: D, k: D, v: E, cRotated: S, bRotated: S, weight: E };
    const g = blockSums(T, decay);
    const inputs = {
      ...Object.fromEntries(
        Object.entries(widths).map(([name, width], index) => [name, noise(B * T * H * width, index)]),
      ),
      gQuery: g,
      gKey: g,
      lambda: Float32Array.of(0.4, 1.5),
    };
    const wrt = ["q", "k", "v", "cRotated", "bRotated", "gQuery", "gKey", "lambda"] as const;
    const graph = valueAndGrad(loss, { wrt });
    for (const { name, distance } of await distances(graph, inputs)) expect(distance, name).toBeLessThan(1e-5);
  });

  test.for([
    ...lengthsAndDecays.map(([T, decay]) => ({ T, decay, window: 0, sinks: 0 })),
    { T: 150, decay: 0.05, window: 20, sinks: 3 },
    { T: 150, decay: 0, window: 70, sinks: 0 },
  ])("forgettingAttention over $T positions at $decay a token, window $window, and its gradients", async (given) => {
    const { T, decay, ...rules } = given;
    const { B, H, D, E } = sizes;
    const gates: { readonly [name: string]: ReturnType<typeof f32> } =
      decay === 0 ? {} : { gQuery: f32(B, T, H), gKey: f32(B, T, H) };
    const specs = { q: f32(B, T, H, D), k: f32(B, T, H, D), v: f32(B, T, H, E), weight: f32(B, T, H, E), ...gates };
    const loss = trace(specs, ({ weight, ...inputs }) =>
      weighted(forgettingAttention(inputs, { scale: 0.7, ...rules }), weight),
    );
    const widths = { q: D, k: D, v: E, weight: E };
    const g = blockSums(T, decay);
    const inputs = {
      ...Object.fromEntries(
        Object.entries(widths).map(([name, width], index) => [name, noise(B * T * H * width, index)]),
      ),
      ...(decay === 0 ? {} : { gQuery: g, gKey: g }),
    };
    const wrt = ["q", "k", "v", ...(decay === 0 ? [] : ["gKey"])] as "q"[];
    for (const { name, distance } of await distances(valueAndGrad(loss, { wrt }), inputs)) {
      expect(distance, name).toBeLessThan(1e-5);
    }
  });

  test("the log-sum-exp is there for whoever asks", async () => {
    const { B, H, D } = sizes;
    const T = 128;
    const spec = f32(B, T, H, D);
    const graph = trace({ q: spec, k: spec, v: spec }, (inputs): { readonly [name: string]: AnyTensor } =>
      apply(attentionOp, inputs, { scale: 1, causal: true }),
    );
    const inputs = { q: noise(B * T * H * D, 1), k: noise(B * T * H * D, 2), v: noise(B * T * H * D, 3) };
    const found = await distances(graph, inputs);
    expect(found.map(({ name }) => name)).toEqual(["value", "logSumExp"]);
    for (const { name, distance } of found) expect(distance, name).toBeLessThan(2e-6);
  });

  test("later positions have no influence, not even as infinities", async () => {
    const { B, H, D } = sizes;
    const T = 192;
    const spec = f32(B, T, H, D);
    const program = await backend.compile(trace({ q: spec, k: spec, v: spec }, (inputs) => attention(inputs)));
    const run = async (change: number) => {
      const tensors = ["q", "k", "v"].map((name, seed) => {
        const data = noise(B * T * H * D, seed);
        const row = H * D;
        for (let batch = 0; batch < B; batch++) data.fill(change, (batch * T + 100) * row, (batch + 1) * T * row);
        return [name, backend.tensor(spec, data)] as const;
      });
      const values = await program.run(Object.fromEntries(tensors)).value.read();
      return [...values.subarray(0, 64 * H * D)];
    };
    // The first tile is computed apart from what comes later.
    expect(await run(Number.POSITIVE_INFINITY)).toEqual(await run(0.5));
  });
});

describe("caches that lie apart", () => {
  const { H, D, E, S } = sizes;
  const C = 192;
  const T = 2;
  const starts = [3, 150, 64];
  const rows = starts.length;
  const cacheWidths = { k: [H, D], v: [H, E], b: [H, S], g: [H] };
  const caches = Object.entries(cacheWidths).flatMap(([name, shape]) =>
    starts.map((_, row) => [`${name}${row}`, f32(1, C, ...shape)] as const),
  );
  const specs = {
    q: f32(rows, T, H, D),
    c: f32(rows, T, H, S),
    gQuery: f32(rows, T, H),
    lambda: f32(H),
    start: i32(rows),
    ...Object.fromEntries(caches),
  };
  const graph = trace(specs, (inputs) => {
    const given = inputs as unknown as { readonly [name: string]: Tensor };
    const all = (name: string) =>
      concat(
        starts.map((_, row) => given[`${name}${row}`] as Tensor),
        { axis: 0 },
      );
    return decayAttention({
      q: inputs.q,
      k: all("k"),
      v: all("v"),
      cRotated: inputs.c,
      bRotated: all("b"),
      gQuery: inputs.gQuery,
      gKey: all("g"),
      lambda: inputs.lambda,
      queryStart: inputs.start,
    });
  }) as unknown as Graph;

  test("are read where they lie, each up to its own last key", async () => {
    const decays = (length: number, seed: number) => noise(length, seed).map((value) => (value - 1) / 64);
    const inputs = Object.fromEntries(
      Object.entries(graph.inputs).map(([name, { shape }], seed) => {
        if (name === "start") return [name, Int32Array.from(starts)];
        const length = sizeOf(elementsOf(shape));
        if (name === "lambda") return [name, new Float32Array(length).fill(2)];
        return [name, name.startsWith("g") ? decays(length, seed) : noise(length, seed)];
      }),
    );
    for (const { distance } of await distances(graph, inputs)) expect(distance).toBeLessThan(2e-6);
  });

  test("are never put together", () => {
    const { node } = lower(graph, { dialect: "onnxruntime" }).builder.toProto("attention");
    const concats = node.filter(({ opType }) => opType === "Concat");
    const given = new Set<string>(caches.map(([name]) => name));
    expect(concats.length).toBeGreaterThan(0);
    for (const { input } of concats) expect(input.filter((name) => given.has(name))).toEqual([]);
    // Rows of each cache up to the last key, and weights as many: copies of what is needed, and of nothing else.
    expect(node.filter(({ opType }) => opType === "FusedMatMul")).toHaveLength(3 * rows);
    expect(node.filter(({ opType }) => opType === "If")).toEqual([]);
  });
});
