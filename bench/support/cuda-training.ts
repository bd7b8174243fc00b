// A model in training on the cuda backend, on tokens drawn at random before any clock runs.

import {
  type Family,
  initialize,
  type LanguageModel,
  languageModel,
  type PresetSize,
  preset,
  RandomStream,
} from "@sisa/core";
import type { CudaBackend } from "@sisa/kernels-cuda";
import { resolveSettings } from "../../packages/train/src/config/settings.ts";
import type { Batch } from "../../packages/train/src/data/batches.ts";
import { Trainer } from "../../packages/train/src/trainer.ts";

export const sequenceLength = 2048;
export const vocabularySize = 50_277;

/** @param stateWidth of SISA; default that of the preset */
export function configOf(family: Family, size: PresetSize, stateWidth?: number) {
  const own = stateWidth === undefined ? {} : { stateWidth };
  return preset(family, size, { vocabularySize, maximumLength: sequenceLength, ...own });
}

/** As a new model's, but normal numbers are drawn once for all parameters: drawing them takes longer than all steps. */
function firstParameters(model: LanguageModel): Record<string, Float32Array> {
  const noise = new RandomStream(1, "noise").normal(2 ** 20);
  return Object.fromEntries(
    Object.entries(model.parameters).map(([name, parameter]) => {
      const { initializer, shape } = parameter;
      const count = shape.reduce((a, b) => a * b, 1);
      if (initializer.kind !== "normal") {
        const alone = initialize({ ...model, parameters: { [name]: parameter } }, 1);
        return [name, alone[name] ?? new Float32Array(count)];
      }
      const values = new Float32Array(count);
      const own = noise.map((x) => x * initializer.deviation);
      for (let at = 0; at < count; at += own.length) values.set(own.subarray(0, count - at), at);
      return [name, values];
    }),
  );
}

/** @param steps how many there are tokens for */
export async function cudaTrainer(
  backend: CudaBackend,
  family: Family,
  size: PresetSize,
  options: { readonly microBatch: number; readonly steps: number; readonly stateWidth?: number | undefined },
): Promise<Trainer> {
  const { microBatch, steps, stateWidth } = options;
  const settings = resolveSettings(
    { steps: 1000, sequenceLength, microBatchSize: microBatch, precision: "bfloat16" },
    { parameterCount: 0 },
  );
  const batches = Array.from({ length: steps }, (_, step) => {
    const stream = new RandomStream(step, "tokens");
    const ids = Int32Array.from({ length: microBatch * sequenceLength }, (_, i) => stream.below(vocabularySize, i));
    return { ids, targets: ids.map((id) => (id + 1) % vocabularySize) };
  });
  const model = languageModel(configOf(family, size, stateWidth));
  const parameters = firstParameters(model);
  return await Trainer.create({ model, backend, settings, parameters, batches: (step) => batches[step] as Batch });
}
