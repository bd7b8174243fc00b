// Mixers against their definitions in float64: what is chunked, fused or scanned here is a sum over all tokens before there.
// Their gradients against finite differences.

import { describe, expect, test } from "vitest";
import { valueAndGrad } from "../autodiff/value-and-grad.ts";
import { trace } from "../graph/graph.ts";
import type { NdArray } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { mul } from "../ops/mul.ts";
import { sum } from "../ops/sum.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32 } from "../spec.ts";
import { AttentionMixer } from "./attention-mixer.ts";
import { Block } from "./block.ts";
import { initialize, type Layer, parameterSpecs } from "./layer.ts";
import { MambaMixer } from "./mamba-mixer.ts";
import { Mamba2Mixer } from "./mamba2-mixer.ts";
import { Mamba3Mixer } from "./mamba3-mixer.ts";
import type { MixerContext, MixerOutput } from "./mixer.ts";
import { SisaMixer } from "./sisa-mixer.ts";
import {
  attends,
  dot,
  get,
  mamba,
  mamba2,
  mamba3,
  noise,
  normEpsilon,
  type Row,
  range,
  rms,
  ropeBase,
  sisa,
  times,
  type Weights,
  weightsOf,
} from "./testing.ts";

/** Longer than a chunk of a scan and a block of decay sums. */
const T = 70;

type AnyMixer = Layer & { forward(p: never, x: Tensor, context: MixerContext): MixerOutput };

interface Around {
  readonly metaTokens?: number;
  readonly rotatedWidth?: number;
}

/** A mixer applied to [1,T,M], and what is asked of its result, with inputs in float64. */
function applied(
  layer: AnyMixer,
  width: number,
  { metaTokens = 0, rotatedWidth = 2 }: Around = {},
  outcome = (value: Tensor): Tensor => value,
) {
  const weights = weightsOf(layer);
  const tokens = range(T).map((t) => noise(`token ${t}`, width));
  // One width of heads is rotated; tables are inputs, so that they are in float64 too.
  const half = rotatedWidth / 2;
  const angles = range(T).flatMap((t) => range(half).map((i) => t * ropeBase ** (-i / half)));
  const specs = { x: f32(1, T, width), cos: f32(T, 1, half), sin: f32(T, 1, half), ...parameterSpecs(layer) };
  const graph = trace(specs, ({ x, cos, sin, ...p }) => {
    const context: MixerContext = { metaTokens, rope: () => ({ cos: cos as Tensor, sin: sin as Tensor }) };
    return { value: outcome(layer.forward(p as never, x as Tensor, context).value) };
  });
  const given = Object.entries(layer.parameters).map(([name, { shape }]) => [
    name,
    { shape, data: Float64Array.from(weights[name] ?? []) },
  ]);
  const table = (of: (angle: number) => number) => ({ shape: [T, 1, half], data: Float64Array.from(angles, of) });
  const inputs = {
    x: { shape: [1, T, width], data: Float64Array.from(tokens.flat()) },
    cos: table(Math.cos),
    sin: table(Math.sin),
    ...Object.fromEntries(given),
  };
  return { graph, inputs: inputs as { readonly [name: string]: NdArray }, weights, tokens };
}

/**
 * The slope of the sum of squares of what a mixer gives, along a direction in which x and all parameters change at once:
 * how far its gradients say another one than finite differences, as a share of it.
 */
function slopeDistance(layer: AnyMixer, width: number, around?: Around): number {
  const { graph, inputs } = applied(layer, width, around, (value) => sum(mul(value, value)));
  // Parameters are inputs too, though the type of the graph does not name them.
  const changed = ["x", ...Object.keys(layer.parameters)] as "x"[];
  const directions = Object.fromEntries(
    changed.map((name) => [name, noise(`along ${name}`, inputs[name]?.data.length ?? 0)]),
  );
  const lossAt = (step: number) => {
    const moved = changed.map((name) => {
      const { shape = [], data = [] } = inputs[name] ?? {};
      const direction = directions[name] ?? [];
      return [name, { shape, data: Float64Array.from(data, (value, i) => value + step * get(direction, i)) }] as const;
    });
    return evaluate(graph, { ...inputs, ...Object.fromEntries(moved) }, "float64").value?.data[0] ?? Number.NaN;
  };
  const step = 1e-5;
  const measured = (lossAt(step) - lossAt(-step)) / (2 * step);
  const gradients = evaluate(valueAndGrad(graph, { wrt: changed }), inputs, "float64");
  const told = changed.reduce((total, name) => {
    const gradient = [...(gradients[`grad.${name}`]?.data ?? [])];
    return total + dot(gradient, directions[name] ?? []);
  }, 0);
  return Math.abs(told - measured) / Math.abs(measured);
}

/** Largest distance between what a layer computes of [1,T,M] and what its definition says, as a share of the largest. */
function distance(
  layer: AnyMixer,
  width: number,
  definition: (weights: Weights, tokens: readonly Row[]) => readonly Row[],
  around?: Around,
): number {
  const { graph, inputs, weights, tokens } = applied(layer, width, around);
  const found = evaluate(graph, inputs, "float64").value?.data ?? [];
  const expected = definition(weights, tokens).flat();
  expect(found).toHaveLength(expected.length);
  const largest = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, index) => Math.abs(value - Number(found[index] ?? Number.NaN)))) / largest;
}

describe("Mamba-3 is its recurrence", () => {
  const common = {
    stateWidth: 8,
    innerWidth: 16,
    headWidth: 4,
    groups: 1,
    rank: 1,
    decay: "softplus",
    outputNorm: false,
  } as const;
  test.each([
    ["as in the paper", {}],
    ["with a heavy tail", { decay: "heavy-tail" }],
    ["with a norm", { outputNorm: true }],
    ["of three ranks", { rank: 3 }],
    ["of two ranks with a heavy tail", { rank: 2, decay: "heavy-tail" }],
    [
      "of two ranks, two groups, a heavy tail and a norm",
      { rank: 2, groups: 2, decay: "heavy-tail", outputNorm: true },
    ],
  ] as const)("%s", (_name, change) => {
    const sizes = { ...common, ...change };
    const mixer = new Mamba3Mixer({ width: 6, ...sizes });
    expect(distance(mixer, 6, mamba3(sizes))).toBeLessThan(1e-11);
    expect(slopeDistance(mixer, 6)).toBeLessThan(1e-6);
  });
});

test("Mamba with Jamba's norms is its recurrence", () => {
  const mixer = new MambaMixer({ width: 6, stateWidth: 4, normalize: true, normEpsilon });
  expect(distance(mixer, 6, mamba(mixer.sizes))).toBeLessThan(1e-11);
  expect(slopeDistance(mixer, 6)).toBeLessThan(1e-6);
});

test.each([
  ["after-gate", 1],
  ["none", 1],
  ["after-gate", 3],
  ["before-gate", 3],
] as const)("Mamba-2 with its norm %s and %i groups is its recurrence", (outputNorm, groups) => {
  const mixer = new Mamba2Mixer({ width: 6, stateWidth: 4, headWidth: 2, groups, outputNorm });
  expect(distance(mixer, 6, mamba2(mixer.sizes))).toBeLessThan(1e-11);
  expect(slopeDistance(mixer, 6)).toBeLessThan(1e-6);
});

describe("attention is its sum over keys", () => {
  const common = { width: 8, heads: 2, normEpsilon } as const;
  test.each([
    ["FoX", { positions: "none", forget: true }],
    ["FoX Pro", { positions: "none", forget: true, queryKeyNorm: true, shift: true, outputGate: true }],
    ["ALiBi", { positions: "alibi" }],
    ["keys wider than values", { keyWidth: 6 }],
    ["a window with sinks", { window: 10, keyValueHeads: 1 }],
  ] as const)("%s", (_name, change) => {
    const mixer = new AttentionMixer({ ...common, ...change });
    const around = { metaTokens: 3, rotatedWidth: mixer.sizes.keyWidth };
    expect(distance(mixer, 8, attends(mixer.sizes, 3), around)).toBeLessThan(1e-11);
    expect(slopeDistance(mixer, 8, around)).toBeLessThan(1e-6);
  });
});

describe("SISA is its sum over keys", () => {
  const common = { width: 8, heads: 2, stateWidth: 4 } as const;
  test.each([
    ["as in the paper", {}],
    ["decay only", { rotation: false }],
    ["rotation only", { decay: "none" }],
    ["constant decay", { decay: "constant" }],
    ["read and write vectors normed", { normalize: true }],
    ["no positions", { positions: "none" }],
    ["sigmoids", { weights: "sigmoid" }],
    ["a wider state and all at once", { stateWidth: 6, positions: "none", normalize: true, weights: "sigmoid" }],
  ] as const)("%s", (_name, change) => {
    const sizes = { ...common, ...change };
    const mixer = new SisaMixer({ ...sizes, form: "exact", normEpsilon });
    expect(distance(mixer, 8, sisa(sizes), { rotatedWidth: 4 })).toBeLessThan(1e-11);
    expect(slopeDistance(mixer, 8, { rotatedWidth: 4 })).toBeLessThan(1e-6);
  });

  test("half-lives begin evenly spread in their logarithm", () => {
    const mixer = new SisaMixer({
      width: 8,
      heads: 4,
      stateWidth: 4,
      longestHalfLife: 1000,
      form: "exact",
      normEpsilon,
    });
    const biases = [...(initialize(mixer, 0)["alpha_proj.bias"] ?? [])];
    const found = biases.map((bias) => Math.LN2 / Math.log1p(Math.exp(bias)));
    for (const [head, expected] of [1, 10, 100, 1000].entries()) expect(get(found, head) / expected).toBeCloseTo(1, 5);
  });
});

test("reused keys and values are those of the layer before", () => {
  const sizes = { width: 8, heads: 2, keyValueHeads: 1, window: 10, normEpsilon } as const;
  const own = new AttentionMixer(sizes);
  const reusing = new AttentionMixer({ ...sizes, reuseKeys: true });
  expect(Object.keys(reusing.parameters)).toEqual(["W_Q.weight"]);
  expect(reusing.cacheSpecs("B", "C")).toEqual({});
  const both = {
    parameters: { ...own.parameters, "other.weight": reusing.parameters["W_Q.weight"] },
    forward(p: Readonly<Record<"W_Q.weight" | "other.weight", Tensor>>, x: Tensor, context: MixerContext) {
      const { keyValues } = own.forward(p, x, context);
      return reusing.forward({ "W_Q.weight": p["other.weight"] }, x, { ...context, keyValues });
    },
  };
  const definition = (w: Weights, tokens: readonly Row[]) =>
    attends(sizes, 0)({ ...w, "W_Q.weight": w["other.weight"] ?? [] }, tokens);
  expect(distance(both, 8, definition, { rotatedWidth: 4 })).toBeLessThan(1e-11);
});

test("Hymba's block is the projected mean of both branches, each normed", () => {
  const [width, metaTokens] = [8, 3];
  const attention = { width, heads: 2, keyValueHeads: 1, headWidth: 8, window: 20, normEpsilon } as const;
  const mamba = new Mamba2Mixer({ width, stateWidth: 4, headWidth: 8, convWidth: 3 });
  const block = new Block({ width, normEpsilon, mixers: [new AttentionMixer(attention), mamba], combination: "mean" });
  const definition = (w: Weights, tokens: readonly Row[]) => {
    const normed = tokens.map((token) => rms(token, w["attn_norm.weight"]));
    const [one, two] = [attends(attention, metaTokens)(w, normed), mamba2(mamba.sizes)(w, normed)];
    return tokens.map((token, t) => {
      const [a, b] = [rms(one[t] ?? [], w["branch_norms.0.weight"]), rms(two[t] ?? [], w["branch_norms.1.weight"])];
      const projected = times(
        w["W_O.weight"],
        a.map((value, i) => (value + get(b, i)) / 2),
      );
      return token.map((value, i) => value + get(projected, i));
    });
  };
  expect(distance(block, width, definition, { metaTokens, rotatedWidth: 8 })).toBeLessThan(1e-11);
});
