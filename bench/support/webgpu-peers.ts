// What the webgpu backend is measured beside: jax-js and ONNX Runtime's WebGPU provider, on the same adapter. Neither is told
// anything about it; each runs as its own documentation says.

import * as jax from "@jax-js/jax";
import { constant, f32, initialize, languageModel, matmul, mul, preset, sum, type Tensor, trace } from "@sisa/core";
import { exportOnnx, graphToOnnx } from "@sisa/onnx";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";

/** One call of what is measured, and how to wait for all calls so far. */
export interface Workload {
  readonly call: () => void;
  readonly wait: () => Promise<unknown>;
  readonly close?: () => Promise<void> | void;
}

/** Gives jax-js, which is made for browsers, what it looks for there. */
export async function openJax(gpu: unknown, globals: object): Promise<void> {
  Object.assign(globalThis, globals);
  Object.defineProperty(globalThis, "navigator", { value: { gpu, userAgent: "node" }, configurable: true });
  const found = await jax.init("webgpu");
  if (!found.includes("webgpu")) throw new Error("jax-js found no WebGPU");
  jax.defaultDevice("webgpu");
}

const { numpy: np, nn } = jax;
type JaxArray = jax.Array;

function random(shape: readonly number[], scale: number, seed: number): JaxArray {
  const count = shape.reduce((a, b) => a * b, 1);
  const data = Float32Array.from({ length: count }, (_, i) => scale * Math.sin(i * 12.9898 + seed));
  return np.array(data).reshape([...shape]);
}

export function jaxMatmul(n: number): Workload {
  const [a, b] = [random([n, n], 1, 1), random([n, n], 1, 2)];
  const multiply = jax.jit((x: JaxArray, y: JaxArray) => np.matmul(x, y));
  // Kept until all are waited for: what is disposed of before it has begun is never computed.
  const results: JaxArray[] = [];
  return {
    call: () => void results.push(multiply(a.ref, b.ref)),
    wait: async () => {
      await jax.blockUntilReady(results);
      for (const array of results.splice(0)) array.dispose();
    },
    close: () => {
      for (const array of [a, b]) array.dispose();
    },
  };
}

interface Sizes {
  readonly width: number;
  readonly heads: number;
  readonly feedForwardWidth: number;
  readonly layers: number;
  readonly vocabularySize: number;
}

const transposed = (x: JaxArray, axes: number[]) => np.transpose(x, axes);

function normed(x: JaxArray, weight: JaxArray): JaxArray {
  const square = np.mean(np.square(x.ref), -1, { keepdims: true });
  return x.div(np.sqrt(square.add(1e-6))).mul(weight);
}

/**
 * A step of stochastic gradient descent of a Transformer without positions: less work than our AdamW with rotations. The
 * whole step is one compiled function.
 */
export function jaxTraining(sizes: Sizes, batch: number, length: number): Workload {
  const { width: M, heads, feedForwardWidth: F, layers, vocabularySize: V } = sizes;
  const rows = batch * length;
  const layer = (seed: number) => ({
    ...{ norm1: np.ones([M]), norm2: np.ones([M]) },
    ...{ q: random([M, M], 0.02, seed), k: random([M, M], 0.02, seed + 1), v: random([M, M], 0.02, seed + 2) },
    ...{ out: random([M, M], 0.02, seed + 3), gate: random([M, F], 0.02, seed + 4) },
    ...{ up: random([M, F], 0.02, seed + 5), down: random([F, M], 0.02, seed + 6) },
  });
  let parameters = {
    embedding: random([V, M], 0.02, 3),
    norm: np.ones([M]),
    layers: Array.from({ length: layers }, (_, index) => layer(10 * index)),
  };
  const hidden = Float32Array.from({ length: length * length }, (_, i) =>
    i % length > Math.floor(i / length) ? -1e9 : 0,
  );
  const mask = np.array(hidden).reshape([length, length]);
  const ids = (shift: number) => np.array(Int32Array.from({ length: rows }, (_, i) => (i * 7919 + shift) % V));
  const [inputs, targets] = [ids(0), ids(1)];

  const loss = (p: typeof parameters, tokens: JaxArray, wanted: JaxArray): JaxArray => {
    let x: JaxArray = p.embedding.ref.slice(tokens);
    for (const one of p.layers) {
      const h = normed(x.ref, one.norm1);
      const [q, k, v] = [one.q, one.k, one.v].map((weight) =>
        np.matmul(h.ref, weight).reshape([batch, length, heads, M / heads]),
      ) as [JaxArray, JaxArray, JaxArray];
      h.dispose();
      const scores = np.matmul(transposed(q, [0, 2, 1, 3]), transposed(k, [0, 2, 3, 1])).mul((M / heads) ** -0.5);
      const shares = nn.softmax(scores.add(mask.ref), -1);
      const mixed = transposed(np.matmul(shares, transposed(v, [0, 2, 1, 3])), [0, 2, 1, 3]).reshape([rows, M]);
      x = x.add(np.matmul(mixed, one.out));
      const g = normed(x.ref, one.norm2);
      const gated = nn.silu(np.matmul(g.ref, one.gate)).mul(np.matmul(g, one.up));
      x = x.add(np.matmul(gated, one.down));
    }
    const logits = np.matmul(normed(x, p.norm), np.transpose(p.embedding));
    return np.negative(np.mean(np.sum(nn.logSoftmax(logits).mul(nn.oneHot(wanted, V)), -1)));
  };
  const step = jax.jit((p: typeof parameters, tokens: JaxArray, wanted: JaxArray) => {
    const [value, slopes] = jax.valueAndGrad(loss)(jax.tree.ref(p), tokens, wanted);
    const next = jax.tree.map((weight: JaxArray, slope: JaxArray) => weight.sub(slope.mul(0.01)), p, slopes);
    return [value, next] as const;
  });
  let value: JaxArray | undefined;
  return {
    call: () => {
      value?.dispose();
      const [loss, next] = step(parameters, inputs.ref, targets.ref) as unknown as [JaxArray, typeof parameters];
      value = loss;
      parameters = next;
    },
    wait: async () => {
      const number = await value?.ref.jsAsync();
      if (!Number.isFinite(number)) throw new Error(`jax-js: the loss is ${number}`);
    },
    close: () => {
      for (const array of [value, inputs, targets, mask]) array?.dispose();
      jax.tree.dispose(parameters);
    },
  };
}

/** Products one after another in one graph, so that neither arrays nor results go through the host's memory. */
export const chained = 8;

/** One call computes `chained` products of n x n. */
export async function ortMatmul(n: number): Promise<Workload & { run(): Promise<void> }> {
  const data = (seed: number) => Float32Array.from({ length: n * n }, (_, i) => Math.sin(i * 12.9898 + seed) / n);
  const graph = trace({ scale: f32(1) }, ({ scale }) => {
    const matrix = constant(data(1), "float32", [n, n]) as Tensor;
    let x = mul(matrix, scale);
    for (let i = 0; i < chained; i++) x = matmul(x, matrix);
    return sum(x);
  });
  const session = await InferenceSession.create(graphToOnnx(graph), {
    executionProviders: ["webgpu"],
    logSeverityLevel: 4,
  });
  const scale = new OrtTensor("float32", Float32Array.of(1), [1]);
  const run = async () => void (await session.run({ scale }));
  return { call: () => undefined, wait: async () => undefined, run, close: () => session.release() };
}

export interface OrtDecoder {
  /** Reads a prompt of so many tokens. */
  prefill(tokens: number): Promise<void>;
  /** One token behind what is cached. */
  decode(): Promise<void>;
  close(): Promise<void>;
}

/** The exported decoder with growing caches. Its caches come and go through the host's memory: the package keeps none. */
export async function ortDecoder(
  family: "sisa" | "transformer",
  size: "5m" | "50m",
  vocabularySize: number,
): Promise<OrtDecoder> {
  const model = languageModel(preset(family, size, { vocabularySize }));
  const files = await exportOnnx({ model, parameters: initialize(model, 1) }, { dtypes: ["float32"] });
  const bytes = files["onnx/model.onnx"];
  if (!bytes) throw new Error(`the export has no onnx/model.onnx, only ${Object.keys(files).join(", ")}`);
  const session = await InferenceSession.create(bytes, { executionProviders: ["webgpu"], logSeverityLevel: 4 });
  const int64 = (values: readonly number[], dims: readonly number[]) =>
    new OrtTensor("int64", BigInt64Array.from(values, BigInt), dims);
  let caches: Record<string, OrtTensor> = {};
  let held = 0;
  const run = async (count: number) => {
    const results = await session.run({
      input_ids: int64(new Array<number>(count).fill(3), [1, count]),
      attention_mask: int64(new Array<number>(held + count).fill(1), [1, held + count]),
      position_ids: int64(
        Array.from({ length: count }, (_, i) => held + i),
        [1, count],
      ),
      ...caches,
    });
    const present = Object.entries(results).filter(([name]) => name.startsWith("present."));
    caches = Object.fromEntries(present.map(([name, tensor]) => [name.replace("present", "past_key_values"), tensor]));
    held += count;
  };
  return {
    prefill: async (tokens) => {
      held = 0;
      caches = {};
      for (const input of session.inputMetadata) {
        if (!input.isTensor || !input.name.startsWith("past_key_values.")) continue;
        const dims = input.shape.map((axis) => (typeof axis === "number" ? axis : axis === "batch_size" ? 1 : 0));
        caches[input.name] = new OrtTensor("float32", new Float32Array(0), dims);
      }
      await run(tokens);
    },
    decode: () => run(1),
    close: () => session.release(),
  };
}
