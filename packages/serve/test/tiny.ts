// A model so small that a step takes a millisecond, with weights that make it sure of nothing and say every byte.
import { initialize, type LanguageModel, languageModel, type ModelConfig } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";

export interface TinyModel {
  readonly model: LanguageModel;
  readonly parameters: Record<string, Float32Array>;
  readonly tokenizer: ReturnType<typeof byteTokenizer>;
}

export function tinyModel(change: Partial<ModelConfig> = {}): TinyModel {
  const tokenizer = byteTokenizer();
  const model = languageModel({
    mixers: ["sisa", "attention", "sisa"],
    vocabularySize: 272,
    width: 16,
    heads: 2,
    feedForwardWidth: 24,
    stateWidth: 4,
    form: "exact",
    maximumLength: 256,
    ropeBase: 1e4,
    normEpsilon: 1e-6,
    ...change,
  });
  const parameters = initialize(model, 5);
  for (const [name, values] of Object.entries(parameters)) {
    if (name.endsWith("alpha_proj.bias")) values.fill(-3);
    else if (name.endsWith(".weight") && !name.includes("norm")) values.set(values.map((value) => value * 12));
  }
  return { model, parameters, tokenizer };
}
