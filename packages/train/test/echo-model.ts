// A model whose answers are known without running it: after each token it expects that very token again.
import { type Backend, initialize, type LanguageModel, languageModel, type ModelConfig } from "@sisa/core";
import { Scorer } from "../src/evaluation/scorer.ts";

/** Width and vocabulary; one more than bytes and end-of-text, since heads want an even width. */
const size = 258;
const strength = 3;

/**
 * Embeddings are multiples of the unit vectors, and the layer adds nothing: the logit of the token read is `strength`, that
 * of every other is 0.
 */
export function echoModel(change: Partial<ModelConfig> = {}): {
  readonly model: LanguageModel;
  readonly parameters: Readonly<Record<string, Float32Array>>;
} {
  const model = languageModel({
    mixers: ["attention"],
    vocabularySize: size,
    width: size,
    heads: 1,
    feedForwardWidth: 1,
    stateWidth: 2,
    form: "exact",
    maximumLength: 64,
    ropeBase: 1e4,
    normEpsilon: 1e-12,
    ...change,
  });
  const parameters = initialize(model, 0);
  for (const [name, values] of Object.entries(parameters)) if (!name.includes("norm")) values.fill(0);
  const embedding = parameters["embed.weight"];
  // The norm makes each row's hidden state sqrt(size) times a unit vector.
  for (let token = 0; token < size; token++) embedding?.set([strength / Math.sqrt(size)], token * size + token);
  return { model, parameters };
}

/** Log-probability of a token that repeats the one before it, and of any other. */
export const repeated = strength - Math.log(Math.exp(strength) + size - 1);
export const changed = -Math.log(Math.exp(strength) + size - 1);

export function echoScorer(backend: Backend, change: Partial<ModelConfig> = {}, tokensPerRun = 4096): Scorer {
  return new Scorer({ ...echoModel(change), backend, tokensPerRun });
}
