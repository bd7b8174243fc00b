// What a training run needs of memory, known before any of it is allocated.
import { type LanguageModel, parameterCount } from "@sisa/core";
import type { ResolvedSettings } from "./config/settings.ts";

/** Parameters, gradients and both moments. */
const valuesPerParameter = 4;

/** Of every token and layer the backward pass needs the input of the mixer, its queries, keys and values. */
const widthsPerToken = 4;

/**
 * Bytes that a training run needs at least, in float32. A lower bound, to refuse what cannot be: backends keep more.
 */
export function leastTrainingBytes(
  model: LanguageModel,
  settings: Pick<ResolvedSettings, "microBatchSize" | "sequenceLength">,
): number {
  const { mixers, width } = model.config;
  const state = valuesPerParameter * parameterCount(model);
  const kept = settings.microBatchSize * settings.sequenceLength * mixers.length * width * widthsPerToken;
  return Float32Array.BYTES_PER_ELEMENT * (state + kept);
}
