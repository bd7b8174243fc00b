import { describe, expect, test } from "vitest";
import { ConfigError } from "../errors.ts";
import type { ModelConfig } from "./config.ts";
import { modelConfigFromJson, modelConfigToJson } from "./config-json.ts";
import { families } from "./families.ts";
import { languageModel } from "./language-model.ts";
import { type Family, ffnWidthFor, type PresetSize, parameterCountOf, preset } from "./presets.ts";

describe("presets", () => {
  // Widths and counts of arXiv:2606.02332, table of configurations.
  test.each([
    ["50m", 50_914_304, { 16: 1939, 32: 1832, 64: 1619, 128: 1192 }],
    ["152m", 151_878_144, { 16: 2908, 32: 2748, 64: 2428, 128: 1788 }],
    ["369m", 369_252_352, { 32: 2512, 64: 2085, 128: 1232 }],
  ] as const)("%s has the paper's counts and widths", (size: PresetSize, transformer, widths) => {
    expect(parameterCountOf(preset("transformer", size))).toBe(transformer);
    for (const [stateWidth, feedForwardWidth] of Object.entries(widths)) {
      const config = preset("sisa", size, { stateWidth: Number(stateWidth) });
      expect(config.feedForwardWidth).toBe(feedForwardWidth);
      expect(Math.abs(parameterCountOf(config) / transformer - 1)).toBeLessThan(0.00007);
    }
  });

  test.each([
    ["50m", 50_914_400],
    ["152m", 151_878_432],
    ["369m", 369_253_120],
  ] as const)("SISA %s with S = 32 has %d parameters", (size, count) => {
    expect(parameterCountOf(preset("sisa", size))).toBe(count);
  });

  // By how much the paper's own state space models differ from its Transformers: it gives their layers, all with N = 64.
  const paperDifferences: { readonly [family: string]: { readonly [size: string]: number } } = {
    mamba2: { "50m": -0.0396, "152m": 0.0026, "369m": -0.0021 },
    mamba3: { "50m": -0.0341, "152m": -0.0132, "369m": -0.0101 },
  };

  test.each(["1m", "5m", "50m", "152m", "369m"] as const)("every family of %s has as many parameters", (size) => {
    const target = parameterCountOf(preset("transformer", size));
    for (const family of Object.keys(families) as Family[]) {
      const difference = parameterCountOf(preset(family, size)) / target - 1;
      const papers = paperDifferences[family]?.[size];
      if (papers === undefined) expect(Math.abs(difference), family).toBeLessThan(0.001);
      else expect(difference, family).toBeCloseTo(papers, 4);
    }
  });

  test.each(["1m", "5m"] as const)("state space models of %s get widths of states, with any vocabulary", (size) => {
    for (const vocabularySize of [257, 50_277]) {
      const target = parameterCountOf(preset("transformer", size, { vocabularySize }));
      for (const family of ["mamba2", "mamba3"] as const) {
        const count = parameterCountOf(preset(family, size, { vocabularySize }));
        expect(Math.abs(count / target - 1), family).toBeLessThan(0.001);
      }
    }
  });

  // Counts of the paper's own depths, N = 64, without feed-forward.
  test.each([
    ["mamba2", "50m", 14],
    ["mamba2", "152m", 31],
    ["mamba2", "369m", 49],
    ["mamba3", "50m", 14],
    ["mamba3", "152m", 30],
    ["mamba3", "369m", 48],
  ] as const)("%s of %s has the paper's %d layers", (family, size, layers) => {
    const config = preset(family, size);
    expect(config).toMatchObject({ stateWidth: 64, feedForwardWidth: 0 });
    expect(config.mixers).toHaveLength(layers);
  });

  // 152.27 M and 149.88 M in arXiv:2606.02332 and its code.
  test.each([
    ["mamba2", 152_270_000],
    ["mamba3", 149_880_000],
  ] as const)("%s of 152m has the paper's count", (family, count) => {
    expect(Math.abs(parameterCountOf(preset(family, "152m")) - count)).toBeLessThan(10_000);
  });

  test.each(["50m", "152m", "369m"] as const)("wide keys of %s are as wide as SISA's score: 96 for 64", (size) => {
    const { parameters } = languageModel(preset("wide-key", size));
    const [sisa, plain] = [preset("sisa", size), preset("transformer", size)];
    const keys = 64 + sisa.stateWidth;
    expect(keys).toBe(96);
    expect(parameters["layers.0.W_K.weight"]?.shape).toEqual([plain.heads * keys, plain.width]);
    expect(parameters["layers.0.W_Q.weight"]?.shape).toEqual([plain.heads * keys, plain.width]);
    expect(parameters["layers.0.W_V.weight"]?.shape).toEqual([plain.width, plain.width]);
  });

  test("another vocabulary or depth keeps the families equal", () => {
    const changed = { vocabularySize: 257, layers: 3 };
    const [sisa, transformer] = [preset("sisa", "5m", changed), preset("transformer", "5m", changed)];
    expect(sisa.mixers).toEqual(["sisa", "sisa", "sisa"]);
    expect(Math.abs(parameterCountOf(sisa) - parameterCountOf(transformer))).toBeLessThan(3 * 3 * 256);
  });

  test("a width that is given is kept", () => {
    expect(preset("sisa", "5m", { feedForwardWidth: 640 }).feedForwardWidth).toBe(640);
  });

  test("unknown names are refused with what there is", () => {
    // A caller without types.
    const loose = preset as (family: string, size: string) => ModelConfig;
    expect(() => loose("sisa", "7b")).toThrow('expected a size of 1m, 5m, 50m, 152m, 369m, got "7b"');
    expect(() => loose("mamba", "5m")).toThrow(
      'expected a family of sisa, transformer, nope, alibi, wide-key, fox, fox-pro, mamba2, mamba3, jamba, falcon-h1, hymba, got "mamba"',
    );
  });

  test("a budget that cannot be met is refused", () => {
    expect(() => ffnWidthFor(preset("sisa", "5m"), 1000)).toThrow(ConfigError);
  });
});

describe("config.json", () => {
  const config = preset("sisa", "5m", { vocabularySize: 300, form: "sdpa", mixers: ["sisa", "attention"] });

  test("comes back as it was", () => {
    expect(modelConfigFromJson(JSON.parse(JSON.stringify(modelConfigToJson(config))))).toEqual(config);
  });

  test.each(Object.keys(families) as Family[])("of %s comes back as it was", (family) => {
    const own = preset(family, "50m");
    expect(modelConfigFromJson(JSON.parse(JSON.stringify(modelConfigToJson(own))))).toEqual(own);
  });

  test("carries the names that Hugging Face tools read, and leaves theirs alone", () => {
    const json = modelConfigToJson(config);
    expect(json).toMatchObject({ model_type: "sisa", vocab_size: 300, hidden_size: 256, num_hidden_layers: 2 });
    expect(modelConfigFromJson({ ...json, transformers_version: "5.0.0" })).toEqual(config);
  });

  test.each([
    [{ model_type: "llama" }, 'expected model_type "sisa", got "llama"'],
    [{ hidden_size: "256" }, 'hidden_size must be a number, got "256"'],
    [{ layer_types: ["sisa"] }, "layer_types must list 2 layers"],
    [
      { layer_types: ["sisa", "mamba9"] },
      'a mixer must be one of attention, sisa, mamba, mamba2, mamba3, got "mamba9"',
    ],
    [{ num_attention_heads: 3 }, "heads must divide width, got heads 3 and width 256"],
    [{ state_size: 7 }, "stateWidth must be even"],
    [{ sisa_form: "fast" }, 'form must be "exact" or "sdpa", got "fast"'],
    [{ rms_norm_eps: 0 }, "normEpsilon must be > 0, got 0"],
    [{ hidden_size: 260, num_attention_heads: 4 }, "width / heads must be even"],
    [{ tie_word_embeddings: 1 }, "tie_word_embeddings must be true or false, got 1"],
  ])("refuses %j", (change, message) => {
    expect(() => modelConfigFromJson({ ...modelConfigToJson(config), ...change })).toThrow(message);
    expect(() => modelConfigFromJson({ ...modelConfigToJson(config), ...change })).toThrow(ConfigError);
  });
});

test("parameters have the names and order of the paper's code", () => {
  const names = Object.keys(languageModel(preset("sisa", "1m", { layers: 1, vocabularySize: 10 })).parameters);
  expect(names).toEqual([
    "embed.weight",
    "layers.0.attn_norm.weight",
    "layers.0.W_Q.weight",
    "layers.0.W_K.weight",
    "layers.0.W_V.weight",
    "layers.0.W_B.weight",
    "layers.0.W_C.weight",
    "layers.0.theta_proj.weight",
    "layers.0.alpha_proj.weight",
    "layers.0.alpha_proj.bias",
    "layers.0.lambda_raw",
    "layers.0.W_O.weight",
    "layers.0.ffn_norm.weight",
    "layers.0.ffn.w_gate.weight",
    "layers.0.ffn.w_up.weight",
    "layers.0.ffn.w_down.weight",
    "final_norm.weight",
  ]);
});
