// The terms that are shown are those of the model: by their formulas in plain loops, and by what the model makes of them.

import { describe, expect, test } from "vitest";
import { Graph } from "../graph/graph.ts";
import type { NdArray } from "../graph/op.ts";
import type { AnyTensor } from "../graph/tensor.ts";
import { initialize } from "../layers/layer.ts";
import { attentionOp } from "../ops/attention.ts";
import { forgettingAttentionOp } from "../ops/forgetting-attention.ts";
import { type SisaForm, sisaAttentionOp } from "../ops/sisa-attention.ts";
import { evaluate } from "../reference/evaluate.ts";
import { attentionTermsGraph } from "./attention-terms.ts";
import { type LanguageModel, languageModel } from "./language-model.ts";

const [B, T, H, D, S] = [2, 70, 2, 4, 2];
const ids = { shape: [B, T], data: Int32Array.from({ length: B * T }, (_, index) => (index * 7) % 11) };

function model(form: SisaForm): LanguageModel {
  return languageModel({
    mixers: ["sisa", "attention", "sisa"],
    vocabularySize: 11,
    width: H * D,
    heads: H,
    feedForwardWidth: 8,
    stateWidth: S,
    form,
    maximumLength: 128,
    ropeBase: 10_000,
    normEpsilon: 1e-6,
  });
}

/** Values of the model's parameters, large enough that every term matters. */
function parametersOf(source: LanguageModel): { [name: string]: NdArray } {
  const values = Object.entries(initialize(source, 3)).map(([name, data]) => {
    const factor = /weight$/.test(name) && !/norm/.test(name) ? 20 : 1;
    const { shape = [] } = source.parameters[name] ?? {};
    return [name, { shape, data: Float64Array.from(data, (value) => value * factor) }] as const;
  });
  return Object.fromEntries(values);
}

/** The terms, and inputs and values of the attention nodes that they are of, in float64. */
function evaluated(form: SisaForm) {
  const source = model(form);
  const inputs = { ids, ...parametersOf(source) };
  const graph = source.logitsGraph().bind({ B, T });
  const nodes = graph.nodes.filter(({ op }) => op === sisaAttentionOp || op === attentionOp);
  const inner: Record<string, AnyTensor> = {};
  for (const [layer, node] of nodes.entries()) {
    for (const [name, tensor] of Object.entries(node.inputs)) inner[`${layer}.${name}`] = tensor;
    if (node.outputs.value) inner[`${layer}.value`] = node.outputs.value;
  }
  return {
    terms: evaluate(attentionTermsGraph(source).bind({ B, T }), inputs, "float64"),
    inner: evaluate(new Graph(graph.inputTensors, inner) as Graph, inputs, "float64"),
  };
}

type Values = { readonly [name: string]: NdArray };

function at(values: Values, name: string, index: number): number {
  return Number(values[name]?.data[index] ?? Number.NaN);
}

/** Calls with every batch row, head, query and key, and the pair's index in [B,H,T,T]. */
function forEachPair(visit: (pair: { b: number; h: number; i: number; j: number; index: number }) => void): void {
  for (let index = 0; index < B * H * T * T; index++) {
    const [j, i] = [index % T, Math.floor(index / T) % T];
    visit({ b: Math.floor(index / (H * T * T)), h: Math.floor(index / (T * T)) % H, i, j, index });
  }
}

describe.each(["exact", "sdpa"] as const)("form %s", (form) => {
  const { terms, inner } = evaluated(form);

  test("content and importance are their formulas", () => {
    let worst = 0;
    forEachPair(({ b, h, i, j, index }) => {
      const row = (name: string, t: number, width: number, at_: number) =>
        at(inner, name, ((b * T + t) * H + h) * width + at_);
      let content = 0;
      for (let d = 0; d < D; d++) content += row("0.q", i, D, d) * row("0.k", j, D, d);
      // Between j and i lie the decays and the turns of j + 1 to i.
      let [decay, angle] = [0, 0];
      for (let t = j + 1; t <= i; t++) {
        decay += row("0.logDecay", t, 1, 0);
        angle += row("0.phase", t, S / 2, 0);
      }
      const [c0, c1, b0, b1] = [row("0.c", i, S, 0), row("0.c", i, S, 1), row("0.b", j, S, 0), row("0.b", j, S, 1)];
      const turned = Math.cos(angle) * (c0 * b0 + c1 * b1) + Math.sin(angle) * (c0 * b1 - c1 * b0);
      const importance = at(inner, "0.lambda", h) * Math.exp(decay) * turned;
      const seen = j <= i ? 1 : 0;
      worst = Math.max(
        worst,
        Math.abs(at(terms, "layers.0.content", index) - (seen * content) / Math.sqrt(D)),
        Math.abs(at(terms, "layers.0.importance", index) - seen * importance),
      );
    });
    expect(worst).toBeLessThan(1e-9);
  });

  test.each([0, 1, 2])("in layer %i they add up to the score whose softmax weighs the values", (layer) => {
    const name = (term: string) => `layers.${layer}.${term}`;
    const score = (index: number) =>
      at(terms, name("content"), index) + (layer === 1 ? 0 : at(terms, name("importance"), index));
    const totals = new Float64Array(B * H * T);
    forEachPair(({ i, j, index }) => {
      if (j <= i) totals[Math.floor(index / T)] = (totals[Math.floor(index / T)] ?? 0) + Math.exp(score(index));
    });
    const value = new Float64Array(B * T * H * D);
    let worst = 0;
    forEachPair(({ b, h, i, j, index }) => {
      const weight = j <= i ? Math.exp(score(index)) / (totals[Math.floor(index / T)] ?? 0) : 0;
      worst = Math.max(worst, Math.abs(at(terms, name("attention"), index) - weight));
      for (let d = 0; d < D; d++) {
        const to = ((b * T + i) * H + h) * D + d;
        value[to] = (value[to] ?? 0) + weight * at(inner, `${layer}.v`, ((b * T + j) * H + h) * D + d);
      }
    });
    expect(worst).toBeLessThan(1e-12);
    value.forEach((sum, index) => {
      worst = Math.max(worst, Math.abs(sum - at(inner, `${layer}.value`, index)));
    });
    expect(worst).toBeLessThan(1e-12);
  });

  test("a layer has importance and decay where it is SISA", () => {
    expect(Object.keys(terms)).toEqual([
      ...["content", "importance", "attention", "logDecay"].map((term) => `layers.0.${term}`),
      ...["content", "attention"].map((term) => `layers.1.${term}`),
      ...["content", "importance", "attention", "logDecay"].map((term) => `layers.2.${term}`),
    ]);
    expect(terms["layers.2.logDecay"]?.shape).toEqual([B, T, H]);
  });
});

describe("layers that forget", () => {
  const [window, sinks] = [20, 3];
  const source = languageModel({
    ...model("exact").config,
    mixers: ["fox", "alibi", "local"],
    metaTokens: sinks,
    mixerSettings: {
      fox: { kind: "attention", positions: "none", forget: true },
      alibi: { kind: "attention", positions: "alibi" },
      local: { kind: "attention", window },
    },
  });
  const length = T + sinks;
  const inputs = { ids, ...parametersOf(source) };
  const terms = evaluate(attentionTermsGraph(source).bind({ B, T }), inputs, "float64");
  const graph = source.logitsGraph().bind({ B, T });
  const nodes = graph.nodes.filter(({ op }) => op === forgettingAttentionOp);
  const values = Object.fromEntries(nodes.map(({ outputs, inputs }, layer) => [`${layer}`, { ...outputs, ...inputs }]));
  const inner = evaluate(
    new Graph(
      graph.inputTensors,
      Object.fromEntries(
        Object.entries(values).flatMap(([layer, { value, v }]) => [
          [`${layer}.value`, value as AnyTensor],
          [`${layer}.v`, v as AnyTensor],
        ]),
      ),
    ) as Graph,
    inputs,
    "float64",
  );
  const place = (b: number, h: number, i: number, j: number) => ((b * H + h) * length + i) * length + j;

  test("show by how much, where there are gates", () => {
    expect(Object.keys(terms)).toEqual([
      ...["content", "forgetting", "attention"].map((term) => `layers.0.${term}`),
      ...["content", "forgetting", "attention"].map((term) => `layers.1.${term}`),
      ...["content", "attention"].map((term) => `layers.2.${term}`),
    ]);
    // ALiBi: so much less for every token between, by head 2^-4 and 2^-8 of two.
    for (const [h, slope] of [2 ** -4, 2 ** -8].entries()) {
      expect(at(terms, "layers.1.forgetting", place(1, h, 70, 2))).toBeCloseTo(-68 * slope, 10);
      expect(at(terms, "layers.1.forgetting", place(1, h, 2, 70))).toBe(0);
    }
  });

  test("weigh the values as the model does, and none that are not seen", () => {
    let worst = 0;
    for (let index = 0; index < 3 * B * H * length; index++) {
      const [i, h] = [index % length, Math.floor(index / length) % H];
      const [b, layer] = [Math.floor(index / (length * H)) % B, Math.floor(index / (length * H * B))];
      const seen = (j: number) => j <= i && (layer < 2 || j > i - window || j < sinks);
      const value = new Float64Array(D);
      for (let j = 0; j < length; j++) {
        const weight = at(terms, `layers.${layer}.attention`, place(b, h, i, j));
        if (!seen(j)) worst = Math.max(worst, Math.abs(weight));
        for (let d = 0; d < D; d++) {
          value[d] = (value[d] ?? 0) + weight * at(inner, `${layer}.v`, ((b * length + j) * H + h) * D + d);
        }
      }
      value.forEach((sum, d) => {
        worst = Math.max(worst, Math.abs(sum - at(inner, `${layer}.value`, ((b * length + i) * H + h) * D + d)));
      });
    }
    expect(worst).toBeLessThan(1e-12);
  });
});

test("sigmoids of scores weigh what sigmoids weigh in the model", () => {
  const source = languageModel({
    ...model("exact").config,
    mixers: ["sigmoid"],
    mixerSettings: { sigmoid: { kind: "sisa", weights: "sigmoid" } },
  });
  const terms = evaluate(attentionTermsGraph(source).bind({ B, T }), { ids, ...parametersOf(source) }, "float64");
  let worst = 0;
  forEachPair(({ i, j, index }) => {
    const score = at(terms, "layers.0.content", index) + at(terms, "layers.0.importance", index);
    const weight = j <= i ? 1 / (1 + (i + 1) * Math.exp(-score)) : 0;
    worst = Math.max(worst, Math.abs(at(terms, "layers.0.attention", index) - weight));
  });
  expect(worst).toBeLessThan(1e-12);
});

test("a layer of another kind shows nothing, and a model of nothing else is refused", () => {
  const config = { ...model("exact").config, width: 32 };
  const mixed = languageModel({ ...config, mixers: ["mamba2", "sisa"] });
  expect(Object.keys(attentionTermsGraph(mixed).outputs)).toEqual(
    ["content", "importance", "attention", "logDecay"].map((term) => `layers.1.${term}`),
  );
  const recurrent = languageModel({ ...config, mixers: ["mamba2"] });
  expect(() => attentionTermsGraph(recurrent)).toThrow(/expected a model with attention or SISA layers/);
});

test("meta tokens are seen in front", () => {
  const withMeta = languageModel({ ...model("exact").config, metaTokens: 3 });
  const { "layers.1.attention": attention } = attentionTermsGraph(withMeta).bind({ B: 1, T: 5 }).outputs;
  expect(attention?.shape.map(({ value }) => value)).toEqual([1, H, 8, 8]);
});
