// The exact form over 8192 tokens as it trains, tile by tile, against the formula in float64 on 64 sampled rows.

import { type Backend, f32, RandomStream, sisaAttention, trace } from "@sisa/core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { onnxruntime } from "./index.ts";

const T = 8192;
const D = 8;
const S = 4;
const lambda = 0.7;

let backend: Backend;
beforeAll(async () => {
  backend = await onnxruntime();
});
afterAll(() => backend.close());

const specs = {
  q: f32(1, T, 1, D),
  k: f32(1, T, 1, D),
  v: f32(1, T, 1, D),
  c: f32(1, T, 1, S),
  b: f32(1, T, 1, S),
  logDecay: f32(1, T, 1),
  phase: f32(1, T, 1, S / 2),
  lambda: f32(1),
};

type Inputs = { readonly [N in keyof typeof specs]: Float32Array };

function inputsFor(rate: number, phaseMean: number): Inputs {
  const normal = (name: string, width: number) => new RandomStream(11, name).normal(T * width);
  const uniform = (name: string, count: number, low: number, high: number) =>
    new RandomStream(11, name).uniforms(count, { low, high });
  return {
    q: normal("q", D),
    k: normal("k", D),
    v: normal("v", D),
    c: normal("c", S),
    b: normal("b", S),
    logDecay: uniform("decay", T, -1.8 * rate, -0.2 * rate),
    phase: uniform("phase", (T * S) / 2, 0, 2 * phaseMean),
    lambda: Float32Array.of(lambda),
  };
}

/** Row `i` of the formula. */
function exactRow(i: number, x: Inputs, g: Float64Array, phi: readonly Float64Array[]): Float64Array {
  const at = (values: Float32Array, row: number, width: number, index: number) => values[row * width + index] ?? 0;
  const scores = Float64Array.from({ length: i + 1 }, (_, j) => {
    let content = 0;
    for (let d = 0; d < D; d++) content += at(x.q, i, D, d) * at(x.k, j, D, d);
    let importance = 0;
    phi.forEach((angles, pair) => {
      const turn = (angles[i] ?? 0) - (angles[j] ?? 0);
      const [c0, c1] = [at(x.c, i, S, 2 * pair), at(x.c, i, S, 2 * pair + 1)];
      const [b0, b1] = [at(x.b, j, S, 2 * pair), at(x.b, j, S, 2 * pair + 1)];
      importance += Math.cos(turn) * (c0 * b0 + c1 * b1) - Math.sin(turn) * (c1 * b0 - c0 * b1);
    });
    return content * D ** -0.5 + lambda * Math.exp((g[i] ?? 0) - (g[j] ?? 0)) * importance;
  });
  const peak = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weights = scores.map((score) => Math.exp(score - peak));
  const total = weights.reduce((a, b) => a + b, 0);
  return Float64Array.from({ length: D }, (_, d) =>
    weights.reduce((sum, weight, j) => sum + (weight / total) * at(x.v, j, D, d), 0),
  );
}

function runningSum(values: Float32Array, stride: number, offset: number): Float64Array {
  let sum = 0;
  return Float64Array.from({ length: T }, (_, t) => {
    sum += values[t * stride + offset] ?? 0;
    return sum;
  });
}

test.each([
  [0.001, 3],
  [0.05, 3],
  [1, 3],
  [20, 3],
])("at a decay of %d and a phase of %d a token", async (rate, phaseMean) => {
  const x = inputsFor(rate, phaseMean);
  const executable = await backend.compile(trace(specs, (tensors) => sisaAttention(tensors)));
  const tensors = Object.entries(specs).map(([name, spec]) => [name, backend.tensor(spec, x[name as keyof Inputs])]);
  const value = await executable.run(Object.fromEntries(tensors)).value.read();
  executable.close();
  expect(value.every(Number.isFinite)).toBe(true);

  const g = runningSum(x.logDecay, 1, 0);
  const phi = [0, 1].map((pair) => runningSum(x.phase, S / 2, pair));
  const rows = Array.from({ length: 62 }, (_, index) => new RandomStream(11, "rows").below(T, index));
  let worst = 0;
  for (const row of [0, T - 1, ...rows]) {
    exactRow(row, x, g, phi).forEach((expected, d) => {
      worst = Math.max(worst, Math.abs((value[row * D + d] ?? Number.NaN) - expected));
    });
  }
  // Values have size 1. A score is off by at most lambda |c| |b| (about 4) times 2e-5 for the decay, and as much for float32.
  expect(worst).toBeLessThan(1e-4);
});
