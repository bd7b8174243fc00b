// What a training run needs of memory, known before any of it is allocated.
import { type LanguageModel, parameterCount } from "@sisa/core";
import type { ResolvedSettings } from "./config/settings.ts";

/** Parameters, gradients and both moments. */
const valuesPerParameter = 4;

/** Of every token the backward pass of a layer needs the input of the mixer, its queries, keys and values. */
const widthsPerLayer = 4;

/**
 * Bytes that a training run needs at least, in float32. A lower bound, to refuse what cannot be: backends keep more.
 */
export function leastTrainingBytes(
  model: LanguageModel,
  settings: Pick<ResolvedSettings, "microBatchSize" | "sequenceLength" | "rematerialize">,
): number {
  const { mixers, width } = model.config;
  const state = valuesPerParameter * parameterCount(model);
  // Where layers are computed again, one at a time is whole, and of the others what goes in is kept.
  const widths =
    settings.rematerialize === "layers" ? mixers.length - 1 + widthsPerLayer : mixers.length * widthsPerLayer;
  const kept = settings.microBatchSize * settings.sequenceLength * width * widths;
  return Float32Array.BYTES_PER_ELEMENT * (state + kept);
}
