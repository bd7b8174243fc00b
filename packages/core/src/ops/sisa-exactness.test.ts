// How exact the exact form is at long context, and what the paper's clamped form gets wrong there.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { trace } from "../graph/graph.ts";
import type { NdArray } from "../graph/op.ts";
import { RandomStream } from "../random.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32, i32 } from "../spec.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { decayFactors } from "./decay-attention.ts";
import { type SisaForm, sdpaClamp, sisaAttention } from "./sisa-attention.ts";
import { ssmPrepare } from "./ssm-prepare.ts";

const length = 8192;
const rows = 64;
const rates = [0.001, 0.05, 1, 20];

/** Float32 inputs of one head with a mean decay of `rate` and a mean phase of 3 a token. */
function longInputs(rate: number) {
  const random = new RandomStream(7, `rate ${rate}`);
  const logDecay = random.uniforms(length, { low: -1.8 * rate, high: -0.2 * rate });
  const phase = new RandomStream(7, "phase").uniforms(length * 2, { low: 0, high: 6 });
  const sampled = Array.from({ length: rows }, (_, index) => new RandomStream(7, "rows").below(length, index));
  return { logDecay, phase, sampled: [...sampled.slice(2), 0, length - 1] };
}

function array(data: ArrayLike<number>, shape: readonly number[]): NdArray {
  return { shape, data: Float64Array.from(data) };
}

/** Running sums in float64, which is exact to 1e-11 here. */
function runningSum(values: ArrayLike<number>, stride = 1, offset = 0): Float64Array {
  let total = 0;
  return Float64Array.from({ length: values.length / stride }, (_, t) => {
    total += values[t * stride + offset] ?? 0;
    return total;
  });
}

const prepare = trace(
  { c: f32(1, length, 1, 4), b: f32(1, length, 1, 4), logDecay: f32(1, length, 1), phase: f32(1, length, 1, 2) },
  (inputs) => ssmPrepare(inputs),
);

const factors = trace({ query: f32(rows, 1, 1), key: f32(1, length, 1), start: i32(rows) }, ({ query, key, start }) =>
  decayFactors(query, broadcastTo(key, [rows, length, 1]), start),
);

function prepared(rate: number) {
  const { logDecay, phase, sampled } = longInputs(rate);
  const state = array(new RandomStream(7, "c").normal(length * 4), [1, length, 1, 4]);
  const inputs = {
    c: state,
    b: state,
    logDecay: array(logDecay, [1, length, 1]),
    phase: array(phase, [1, length, 1, 2]),
  };
  return { logDecay, phase, sampled, outputs: evaluate(prepare, inputs, "rounded") };
}

/** The largest errors on the sampled rows: of both forms' decay factors, and of the phase. */
function worstErrors(rate: number) {
  const { logDecay, phase, sampled, outputs } = prepared(rate);
  const g = outputs.g?.data ?? [];
  const query = array(
    sampled.map((row) => g[row] ?? Number.NaN),
    [rows, 1, 1],
  );
  const start = { shape: [rows], data: Int32Array.from(sampled) };
  const { value } = evaluate(factors, { query, key: array(g, [1, length, 1]), start }, "rounded");
  const exact = runningSum(logDecay);
  const offset = ((exact[0] ?? 0) + (exact[length - 1] ?? 0)) / 2;
  const clamped = exact.map((sum) => Math.min(Math.max(sum - offset, -sdpaClamp), sdpaClamp));
  const worst = { decay: 0, clampedDecay: 0, phase: 0 };
  sampled.forEach((row, index) => {
    for (let j = 0; j <= row; j++) {
      const factor = Math.exp((exact[row] ?? 0) - (exact[j] ?? 0));
      const ours = value?.data[index * length + j] ?? Number.NaN;
      const theirs = Math.exp((clamped[row] ?? 0) - (clamped[j] ?? 0));
      worst.decay = Math.max(worst.decay, Math.abs(ours - factor));
      worst.clampedDecay = Math.max(worst.clampedDecay, Math.abs(theirs - factor));
    }
  });
  for (const channel of [0, 1]) {
    const phi = runningSum(phase, 2, channel);
    for (const row of sampled) {
      const difference = (outputs.phi?.data[row * 2 + channel] ?? Number.NaN) - (phi[row] ?? 0);
      const turns = Math.round(difference / (2 * Math.PI));
      worst.phase = Math.max(worst.phase, Math.abs(difference - 2 * Math.PI * turns));
    }
  }
  const saturated = clamped.reduce((count, sum) => count + (Math.abs(sum) === sdpaClamp ? 1 : 0), 0) / length;
  return { ...worst, saturated };
}

/** The rows of the table in docs/exactness.md, by decay a token. */
function documented(rate: number): readonly string[] {
  const page = readFileSync(new URL("../../../../docs/exactness.md", import.meta.url), "utf8");
  const row = page.split("\n").find((line) => line.startsWith(`| ${rate} |`));
  return row?.split("|").map((cell) => cell.trim()) ?? [];
}

test.each(rates)("at T = 8192 and a decay of %d a token, float32 keeps its bounds", (rate) => {
  const worst = worstErrors(rate);
  expect(worst.decay).toBeLessThan(2e-5);
  expect(worst.phase).toBeLessThan(5e-4);
  const errors = [worst.decay, worst.phase, worst.clampedDecay].map((error) => error.toExponential(1));
  expect(documented(rate).slice(2, 6)).toEqual([...errors, (100 * worst.saturated).toFixed(1)]);
});

/** Outputs [T] of one head with D = S = 2, for the first `count` tokens of a fixed sequence, in float64. */
function outputs(form: SisaForm, rate: number, count: number, future = 0): Float64Array {
  const take = (name: string, width: number, scale = 1) => {
    const values = new RandomStream(3, name).normal(256 * width, { deviation: scale }).slice(0, count * width);
    return array(values, width === 1 ? [1, count, 1] : [1, count, 1, width]);
  };
  const logDecay = take("decay", 1);
  logDecay.data.forEach((value, t) => {
    logDecay.data[t] = -rate * (0.5 + Math.abs(Math.tanh(value))) * (t >= 96 ? 1 + future : 1);
  });
  const vector = f32(1, count, 1, 2);
  const specs = {
    q: vector,
    k: vector,
    v: vector,
    c: vector,
    b: vector,
    logDecay: f32(1, count, 1),
    phase: f32(1, count, 1, 1),
    lambda: f32(1),
  };
  const graph = trace(specs, (inputs) => sisaAttention(inputs, { form }));
  const phase = { shape: [1, count, 1, 1], data: take("phase", 1, 0.5).data };
  const inputs = {
    q: take("q", 2),
    k: take("k", 2),
    v: take("v", 2),
    c: take("c", 2),
    b: take("b", 2),
    logDecay,
    phase,
    lambda: array([1], [1]),
  };
  return Float64Array.from(evaluate(graph, inputs).value?.data ?? []);
}

function largestDifference(a: Float64Array, b: Float64Array, count: number): number {
  let worst = 0;
  for (let i = 0; i < count; i++) worst = Math.max(worst, Math.abs((a[i] ?? Number.NaN) - (b[i] ?? Number.NaN)));
  return worst;
}

describe("forms", () => {
  test("agree to rounding while no clamp is active", () => {
    const rate = (0.9 * 2 * sdpaClamp) / (1.5 * 128);
    expect(largestDifference(outputs("exact", rate, 128), outputs("sdpa", rate, 128), 256)).toBeLessThan(1e-12);
  });

  test("exact: what comes later changes nothing, bit for bit", () => {
    const before = outputs("exact", 1, 128);
    expect(largestDifference(before, outputs("exact", 1, 128, 5), 96 * 2)).toBe(0);
    expect(largestDifference(before, outputs("exact", 1, 96), 96 * 2)).toBe(0);
    expect(largestDifference(before, outputs("exact", 1, 128, 5), 256)).toBeGreaterThan(0.01);
  });

  test("sdpa: once the clamp is active, the future leaks into the past", () => {
    expect(largestDifference(outputs("sdpa", 1, 128), outputs("sdpa", 1, 96), 96 * 2)).toBeGreaterThan(0.1);
  });

  test("sdpa: inside the clamped ends nothing is forgotten", () => {
    // g of the first and last tokens is clamped to one value each, so the factor between any two of them is 1.
    const decay = 1;
    const factor = (i: number, j: number) => {
      const offset = -decay * (length / 2);
      const clamp = (t: number) => Math.min(Math.max(-decay * t - offset, -sdpaClamp), sdpaClamp);
      return Math.exp(clamp(i) - clamp(j));
    };
    expect(factor(4000, 0)).toBe(1);
    expect(Math.exp(-decay * 4000)).toBeLessThan(1e-300);
  });

  test.each([0.001, 1, 20, 1e4])("exact stays finite at a decay of %d a token", (rate) => {
    expect(outputs("exact", rate, 128).every(Number.isFinite)).toBe(true);
  });
});
