// What a checkpoint without a configuration says about its model: everything but the head count of a Transformer can
// be read off the shapes.

import { CheckpointError, checkModelConfig, type MixerKind, type ModelConfig } from "@sisa/core";
import type { TensorInfo } from "../tensors.ts";

/** What shapes do not tell. */
export type ConfigHints = Partial<Pick<ModelConfig, "heads" | "form" | "maximumLength" | "ropeBase" | "normEpsilon">>;

/**
 * The configuration of a model in the parameter names of the paper's code.
 *
 * @param hints `heads` is needed where no layer is SISA, and must agree with the shapes where one is. Others default to
 *              the paper's: form `sdpa`, 2048 positions, rotary base 10,000, epsilon 1e-6.
 * @param location for messages
 * @throws CheckpointError that says what is missing, or what does not look like such a model; ConfigError where the
 *   sizes make no model
 */
export function inferModelConfig(
  tensors: ReadonlyMap<string, TensorInfo>,
  location: string,
  hints: ConfigHints = {},
): ModelConfig {
  const sizes = (name: string, rank: number): readonly number[] => {
    const tensor = tensors.get(name);
    if (tensor === undefined) {
      throw new CheckpointError(`${location}: expected the weights of a SISA model or Transformer; ${name} is missing`);
    }
    if (tensor.shape.length !== rank) {
      throw new CheckpointError(`${location}: expected ${rank} sizes for ${name}, got [${tensor.shape}]`);
    }
    return tensor.shape;
  };
  const [vocabularySize = 0, width = 0] = sizes("embed.weight", 2);
  const [feedForwardWidth = 0] = sizes("layers.0.ffn.w_gate.weight", 2);
  const mixers: MixerKind[] = [];
  while (tensors.has(`layers.${mixers.length}.W_Q.weight`)) {
    mixers.push(tensors.has(`layers.${mixers.length}.lambda_raw`) ? "sisa" : "attention");
  }
  const firstSisa = mixers.indexOf("sisa");
  const foundHeads = firstSisa < 0 ? undefined : sizes(`layers.${firstSisa}.lambda_raw`, 1)[0];
  const heads = hints.heads ?? foundHeads;
  if (heads === undefined) {
    throw new CheckpointError(
      `${location}: the number of heads cannot be read off a Transformer's weights; ` +
        `pass heads (the paper's models have width / 64, which is ${width / 64} here)`,
    );
  }
  if (foundHeads !== undefined && foundHeads !== heads) {
    throw new CheckpointError(`${location}: heads ${heads} was given, but the weights have ${foundHeads}`);
  }
  const stateWidth = firstSisa < 0 ? 32 : (sizes(`layers.${firstSisa}.W_B.weight`, 2)[0] ?? 0) / heads;
  return checkModelConfig({
    mixers,
    vocabularySize,
    width,
    heads,
    feedForwardWidth,
    stateWidth,
    form: hints.form ?? "sdpa",
    maximumLength: hints.maximumLength ?? 2048,
    ropeBase: hints.ropeBase ?? 10_000,
    normEpsilon: hints.normEpsilon ?? 1e-6,
  });
}
