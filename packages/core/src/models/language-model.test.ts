// Whole models whose layers differ, against their definition in plain loops and float64; gradients against finite
// differences; parameters against a count by hand.

import { describe, expect, test } from "vitest";
import { valueAndGrad } from "../autodiff/value-and-grad.ts";
import type { NdArray } from "../graph/op.ts";
import {
  dot,
  get,
  mamba3,
  noise,
  normEpsilon,
  part,
  type Row,
  range,
  rms,
  ropeBase,
  silu,
  sisa,
  times,
  type Weights,
  weightsOf,
} from "../layers/testing.ts";
import { evaluate } from "../reference/evaluate.ts";
import type { ModelConfig } from "./config.ts";
import { modelConfigFromJson, modelConfigToJson } from "./config-json.ts";
import { type LanguageModel, languageModel } from "./language-model.ts";

const [V, M, H, F] = [11, 8, 2, 6];
const ids = range(70).map((t) => (t * t + 3) % V);

const common = {
  vocabularySize: V,
  width: M,
  heads: H,
  stateWidth: 4,
  form: "exact",
  maximumLength: 80,
  ropeBase,
  normEpsilon,
} as const;

/** SISA with S = 2, 4 and 6. */
const statesByLayer: ModelConfig = {
  ...common,
  mixers: ["narrow", "sisa", "wide"],
  feedForwardWidth: F,
  mixerSettings: { narrow: { kind: "sisa", stateWidth: 2 }, wide: { kind: "sisa", stateWidth: 6 } },
};

const mamba3Sizes = { stateWidth: 8, innerWidth: 16, headWidth: 4, groups: 2, rank: 2, outputNorm: false } as const;
const mimo: ModelConfig = {
  ...common,
  mixers: ["softplus", "heavyTail"],
  feedForwardWidth: 0,
  mixerSettings: {
    softplus: { kind: "mamba3", ...mamba3Sizes, decay: "softplus" },
    heavyTail: { kind: "mamba3", ...mamba3Sizes, decay: "heavy-tail" },
  },
};

const under = (w: Weights, prefix: string): Weights =>
  Object.fromEntries(
    Object.entries(w).flatMap(([name, values]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), values]] : [],
    ),
  );
const plus = (a: Row, b: Row) => a.map((value, i) => value + get(b, i));

/** Logits of all tokens: residual blocks of a mixer and, where there are weights of one, a feed-forward. */
function definition(w: Weights, mixers: readonly ((w: Weights, tokens: readonly Row[]) => readonly Row[])[]) {
  let x: readonly Row[] = ids.map((id) => part(w["embed.weight"] ?? [], id * M, M));
  for (const [layer, mix] of mixers.entries()) {
    const own = under(w, `layers.${layer}.`);
    const norm = own["attn_norm.weight"] ?? own["norm.weight"];
    const mixed = mix(
      own,
      x.map((row) => rms(row, norm)),
    );
    const output = own["W_O.weight"] ?? own["mamba.out_proj.weight"];
    x = x.map((row, t) => {
      const read = plus(row, times(output, mixed[t] ?? []));
      if (!own["ffn.w_up.weight"]) return read;
      const y = rms(read, own["ffn_norm.weight"]);
      const gate = times(own["ffn.w_gate.weight"], y).map(silu);
      const hidden = times(own["ffn.w_up.weight"], y).map((value, i) => value * get(gate, i));
      return plus(read, times(own["ffn.w_down.weight"], hidden));
    });
  }
  return x.map((row) => times(w["embed.weight"], rms(row, w["final_norm.weight"])));
}

function inputsOf(model: LanguageModel, weights: Weights): { readonly [name: string]: NdArray } {
  const given = Object.entries(model.parameters).map(([name, { shape }]) => [
    name,
    { shape, data: Float64Array.from(weights[name] ?? []) },
  ]);
  const tokens = (from: readonly number[]) => ({ shape: [1, ids.length], data: Int32Array.from(from) });
  return { ids: tokens(ids), targets: tokens([...ids.slice(1), 0]), ...Object.fromEntries(given) };
}

describe.each([
  ["SISA with states of another width in every layer", statesByLayer, [2, 4, 6].map((S) => sisaOf(S))],
  [
    "Mamba-3 of two ranks, by softplus and then with a heavy tail",
    mimo,
    (["softplus", "heavy-tail"] as const).map((decay) => mamba3({ ...mamba3Sizes, decay })),
  ],
])("%s", (_name, config, mixers) => {
  const model = languageModel(config);
  const weights = weightsOf(model);
  const inputs = inputsOf(model, weights);

  test("computes its definition", () => {
    const { ids: tokens, targets: _, ...others } = inputs;
    const graph = model.logitsGraph().bind({ B: 1, T: ids.length });
    const found = evaluate(graph, { ids: tokens as NdArray, ...others }, "float64").logits?.data ?? [];
    const expected = definition(weights, mixers).flat();
    expect(found).toHaveLength(expected.length);
    const largest = Math.max(...expected.map(Math.abs));
    const furthest = Math.max(...expected.map((value, i) => Math.abs(value - Number(found[i]))));
    // Tables of positions are float32.
    expect(furthest / largest).toBeLessThan(1e-5);
  });

  test("has gradients that are slopes", () => {
    const graph = model.lossGraph().bind({ B: 1, T: ids.length });
    const changed = Object.keys(model.parameters);
    const directions: Weights = Object.fromEntries(
      changed.map((name) => [name, noise(`along ${name}`, weights[name]?.length ?? 0)]),
    );
    const lossAt = (step: number) => {
      const moved = Object.fromEntries(
        changed.map((name) => [name, (weights[name] ?? []).map((x, i) => x + step * get(directions[name] ?? [], i))]),
      );
      return evaluate(graph, inputsOf(model, moved), "float64").value?.data[0] ?? Number.NaN;
    };
    const step = 1e-6;
    const measured = (lossAt(step) - lossAt(-step)) / (2 * step);
    const gradients = evaluate(valueAndGrad(graph, { wrt: changed }), inputs, "float64");
    const told = changed.reduce(
      (total, name) => total + dot([...(gradients[`grad.${name}`]?.data ?? [])], directions[name] ?? []),
      0,
    );
    expect(Math.abs(told / measured - 1)).toBeLessThan(1e-6);
  });

  test("comes back from its config.json as it was", () => {
    expect(modelConfigFromJson(JSON.parse(JSON.stringify(modelConfigToJson(config))))).toEqual(config);
  });
});

function sisaOf(stateWidth: number) {
  return sisa({ width: M, heads: H, stateWidth });
}

test("each layer has the parameters of its own state", () => {
  const count = (config: ModelConfig, layer: number) =>
    Object.entries(languageModel(config).parameters)
      .filter(([name]) => name.startsWith(`layers.${layer}.`))
      .reduce((total, [, { shape }]) => total + shape.reduce((a, b) => a * b, 1), 0);
  // Norms; q, k, v, o; B and C; half as many angles; alpha with a bias; lambda; the feed-forward.
  for (const [layer, S] of [2, 4, 6].entries()) {
    expect(count(statesByLayer, layer)).toBe(
      2 * M + 4 * M * M + 2 * H * S * M + (H * S * M) / 2 + H * M + H + H + 3 * M * F,
    );
  }
  const { stateWidth: N, innerWidth: I, headWidth: P, groups: G, rank: R } = mamba3Sizes;
  const heads = I / P;
  // The projection of z, x, B, C, dt, A, the trapezoid and angles; dt's bias and D; norms and biases of B and C; x, z and o
  // of every rank; the norm before and the projection after.
  const ofMamba3 =
    M * (2 * I + 2 * N * G * R + 3 * heads + N / 4) +
    2 * heads +
    2 * N +
    2 * heads * R * N +
    3 * heads * R * P +
    M +
    I * M;
  for (const layer of [0, 1]) expect(count(mimo, layer)).toBe(ofMamba3);
});
