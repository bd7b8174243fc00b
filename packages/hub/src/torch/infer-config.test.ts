import { languageModel, type ModelConfig, preset } from "@sisa/core";
import { describe, expect, it } from "vitest";
import type { TensorInfo } from "../tensors.ts";
import { inferModelConfig } from "./infer-config.ts";

const tensorsOf = (config: ModelConfig): Map<string, TensorInfo> =>
  new Map(
    Object.entries(languageModel(config).parameters).map(([name, { shape }]) => [name, { dtype: "bfloat16", shape }]),
  );

describe("inferModelConfig", () => {
  it.each(["50m", "152m", "369m"] as const)("finds the paper's SISA of %s, form included", (size) => {
    const config = preset("sisa", size);
    expect(inferModelConfig(tensorsOf(config), "x.pt")).toEqual({ ...config, form: "sdpa" });
  });

  it("finds a mix of layers, and takes what shapes do not tell", () => {
    const config = preset("sisa", "1m", {
      mixers: ["attention", "sisa", "attention"],
      stateWidth: 6,
      vocabularySize: 99,
      form: "exact",
      maximumLength: 64,
      ropeBase: 500,
      normEpsilon: 1e-5,
    });
    const { form, maximumLength, ropeBase, normEpsilon } = config;
    expect(inferModelConfig(tensorsOf(config), "x.pt", { form, maximumLength, ropeBase, normEpsilon })).toEqual(config);
  });

  it("asks for the heads of a Transformer", () => {
    const config = preset("transformer", "50m", { form: "sdpa" });
    expect(() => inferModelConfig(tensorsOf(config), "x.pt")).toThrow(
      "x.pt: the number of heads cannot be read off a Transformer's weights; pass heads (the paper's models have width / 64, which is 8 here)",
    );
    expect(inferModelConfig(tensorsOf(config), "x.pt", { heads: 8 })).toEqual(config);
  });

  it("refuses heads that contradict the weights", () => {
    expect(() => inferModelConfig(tensorsOf(preset("sisa", "1m")), "x.pt", { heads: 8 })).toThrow(
      "heads 8 was given, but the weights have 4",
    );
  });

  it("refuses weights of something else", () => {
    const other = new Map<string, TensorInfo>([["encoder.weight", { dtype: "float32", shape: [2, 2] }]]);
    expect(() => inferModelConfig(other, "x.pt")).toThrow(/SISA model or Transformer; embed.weight is missing/);
    const flat = tensorsOf(preset("sisa", "1m")).set("embed.weight", { dtype: "float32", shape: [4] });
    expect(() => inferModelConfig(flat, "x.pt")).toThrow("expected 2 sizes for embed.weight, got [4]");
    const odd = tensorsOf(preset("sisa", "1m")).set("layers.0.W_B.weight", { dtype: "float32", shape: [99, 128] });
    expect(() => inferModelConfig(odd, "x.pt")).toThrow(/stateWidth/);
  });
});
