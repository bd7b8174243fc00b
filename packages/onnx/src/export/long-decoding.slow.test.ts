// An exported decoder over 8192 positions, chunk by chunk and then token by token: what its caches carry, and the logits that
// come of it, against sums and scores in float64.

import { languageModel, preset, RandomStream } from "@sisa/core";
import * as ort from "onnxruntime-node";
import { expect, test } from "vitest";
import { exportOnnx } from "../index.ts";
import { emptyCaches, int64, pastName } from "./testing.ts";

const T = 8192;
const steps = 64;
const chunk = 508;
const [M, S, V] = [8, 4, 16];
const lambda = 0.7;

const model = languageModel({
  ...preset("sisa", "1m", { vocabularySize: V, width: M, heads: 1, layers: 1, stateWidth: S, maximumLength: T }),
  feedForwardWidth: 0,
  // Too small to count beside a mean square of 1.
  normEpsilon: 1e-30,
});

/** A matrix [rows.length, M] of zeros, and ones in the columns that each row lists. */
function selecting(...rows: readonly (readonly number[])[]): Float32Array {
  const matrix = new Float32Array(rows.length * M);
  rows.forEach((columns, row) => {
    for (const column of columns) matrix[row * M + column] = 1;
  });
  return matrix;
}

const identity = selecting(...Array.from({ length: M }, (_, column) => [column]));

/** Token `id` in channel `channel`: the first four follow the bits of the id, the others are always 1. */
const sign = (id: number, channel: number): number => (channel < 4 && ((id >> channel) & 1) === 0 ? -1 : 1);

/** What the norm makes of the channels. */
const weights = Float32Array.of(2, 0.5, 1.5, 0.8, 3, 0.6, 0.9, 1.1);

/**
 * Parameters with which phases and decays of a token are known exactly: its embedding has entries of 1 and -1, the norm
 * weighs them, and projections pick them.
 */
function parametersFor(rate: number): Record<string, Float32Array> {
  return {
    "embed.weight": Float32Array.from({ length: V * M }, (_, index) => sign(Math.floor(index / M), index % M)),
    "layers.0.attn_norm.weight": weights,
    "layers.0.W_Q.weight": new Float32Array(M * M),
    "layers.0.W_K.weight": new Float32Array(M * M),
    "layers.0.W_V.weight": identity,
    "layers.0.W_O.weight": identity,
    "layers.0.W_B.weight": selecting([0], [1], [2], [3]),
    "layers.0.W_C.weight": selecting([3], [6], [7], [0]),
    "layers.0.theta_proj.weight": selecting([4, 0], [4, 2]),
    "layers.0.alpha_proj.weight": selecting([1]),
    "layers.0.alpha_proj.bias": Float32Array.of(Math.log(Math.expm1(rate))),
    "layers.0.lambda_raw": Float32Array.of(Math.log(Math.expm1(lambda))),
    "final_norm.weight": new Float32Array(M).fill(1),
  };
}

const ids = Array.from({ length: T }, (_, index) => new RandomStream(5, "ids").below(V, index));
const channel = (id: number, index: number): number => sign(id, index) * (weights[index] ?? 0);

/** What the layer computes of every token, in float64. */
function sumsFor(rate: number) {
  const bias = Math.fround(Math.log(Math.expm1(rate)));
  const phase = [new Float64Array(T), new Float64Array(T)];
  const decay = new Float64Array(T);
  let [phi0, phi1, g] = [0, 0, 0];
  ids.forEach((id, t) => {
    phi0 += Math.fround(channel(id, 4) + channel(id, 0));
    phi1 += Math.fround(channel(id, 4) + channel(id, 2));
    g -= Math.log1p(Math.exp(Math.fround(channel(id, 1) + bias)));
    (phase[0] as Float64Array)[t] = phi0;
    (phase[1] as Float64Array)[t] = phi1;
    decay[t] = g;
  });
  return { phase, decay };
}

/** Logits after position `i`. */
function logitsAt(i: number, { phase, decay }: ReturnType<typeof sumsFor>): Float64Array {
  const read = [3, 6, 7, 0].map((index) => channel(ids[i] ?? 0, index));
  const scores = Float64Array.from({ length: i + 1 }, (_, j) => {
    const write = [0, 1, 2, 3].map((index) => channel(ids[j] ?? 0, index));
    const importance = phase.reduce((sum, angles, pair) => {
      const turn = (angles[i] ?? 0) - (angles[j] ?? 0);
      const [c0 = 0, c1 = 0] = read.slice(2 * pair);
      const [b0 = 0, b1 = 0] = write.slice(2 * pair);
      return sum + Math.cos(turn) * (c0 * b0 + c1 * b1) - Math.sin(turn) * (c1 * b0 - c0 * b1);
    }, 0);
    return lambda * Math.exp((decay[i] ?? 0) - (decay[j] ?? 0)) * importance;
  });
  const shares = scores.map(Math.exp);
  const total = shares.reduce((a, b) => a + b, 0);
  const hidden = Float64Array.from({ length: M }, (_, index) => {
    const mean = shares.reduce((sum, share, j) => sum + share * channel(ids[j] ?? 0, index), 0) / total;
    return sign(ids[i] ?? 0, index) + mean;
  });
  const size = Math.sqrt(hidden.reduce((sum, x) => sum + x * x, 0) / M);
  return Float64Array.from({ length: V }, (_, id) =>
    hidden.reduce((sum, x, index) => sum + (x / size) * sign(id, index), 0),
  );
}

test.each([0.001, 0.05, 1, 20])("caches stay exact at a decay of about %d a token", async (rate) => {
  const files = await exportOnnx({ model, parameters: parametersFor(rate) });
  const session = await ort.InferenceSession.create(files["onnx/model.onnx"] ?? new Uint8Array());
  const sums = sumsFor(rate);
  let caches = emptyCaches(ort, session, 1, 0);
  let worst = 0;
  for (let start = 0; start < T; ) {
    const count = start < T - steps ? chunk : 1;
    const positions = Array.from({ length: count }, (_, index) => start + index);
    const results = await session.run({
      input_ids: int64(ort, ids.slice(start, start + count), [1, count]),
      position_ids: int64(ort, positions, [1, count]),
      attention_mask: int64(ort, new Array<number>(start + count).fill(1), [1, start + count]),
      ...caches,
    });
    caches = Object.fromEntries(
      Object.entries(results).flatMap(([name, tensor]) => (name === "logits" ? [] : [[pastName(name), tensor]])),
    ) as typeof caches;
    start += count;
    const logits = results.logits?.data as Float32Array;
    logitsAt(start - 1, sums).forEach((expected, id) => {
      worst = Math.max(worst, Math.abs((logits.at(id - V) ?? Number.NaN) - expected));
    });
  }
  await session.release();
  // A score is off by lambda |c| |b| (about 5) times at most 2e-5 for the decay and 5e-4 for the phase.
  expect(worst).toBeLessThan(1e-3);

  const cached = (entry: string) => caches[`past_key_values.0.${entry}`]?.data as Float32Array;
  const [phases, decays, importances] = [cached("phase"), cached("decay"), cached("importance")];
  expect(decays).toHaveLength(T);
  const off = { angle: 0, factor: 0, importance: 0 };
  const at = (values: Float32Array, index: number) => values[index] ?? Number.NaN;
  for (let t = 0; t < T; t++) {
    const before = t - (t % 64) - 1;
    const g = (sums.decay[t] ?? 0) - (before < 0 ? 0 : (sums.decay[before] ?? 0));
    off.factor = Math.max(off.factor, Math.abs(Math.exp(at(decays, t)) - Math.exp(g)));
    for (const pair of [0, 1]) {
      const phi = sums.phase[pair]?.[t] ?? 0;
      const difference = at(phases, 2 * t + pair) - phi;
      off.angle = Math.max(off.angle, Math.abs(Math.atan2(Math.sin(difference), Math.cos(difference))));
      const [b0, b1] = [channel(ids[t] ?? 0, 2 * pair), channel(ids[t] ?? 0, 2 * pair + 1)];
      const turned = [Math.cos(phi) * b0 - Math.sin(phi) * b1, Math.sin(phi) * b0 + Math.cos(phi) * b1];
      turned.forEach((expected, index) => {
        const difference = Math.abs(at(importances, S * t + 2 * pair + index) - expected);
        off.importance = Math.max(off.importance, difference);
      });
    }
  }
  expect(off.factor).toBeLessThan(2e-5);
  expect(off.angle).toBeLessThan(5e-4);
  expect(off.importance).toBeLessThan(5e-4 * Math.hypot(2, 0.5));
});
