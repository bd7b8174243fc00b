// A model so small that the reference trains it in moments, and texts for it.
import { type Backend, type LanguageModel, languageModel } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { type ResolvedSettings, resolveSettings } from "../src/config/settings.ts";
import { trainingBatch } from "../src/data/batches.ts";
import { textDocuments } from "../src/data/text-documents.ts";
import type { TrainingData } from "../src/data/training-data.ts";
import { readHeldOut } from "../src/held-out.ts";
import { Trainer, type TrainerOptions } from "../src/trainer.ts";

export function tinyModel(change: { readonly width?: number } = {}): LanguageModel {
  return languageModel({
    mixers: ["sisa", "attention"],
    vocabularySize: 257,
    width: change.width ?? 8,
    heads: 2,
    feedForwardWidth: 8,
    stateWidth: 2,
    form: "exact",
    maximumLength: 32,
    ropeBase: 10_000,
    normEpsilon: 1e-6,
  });
}

export function tinyData(): TrainingData {
  const lines = Array.from({ length: 40 }, (_, index) => `line ${index}: the sum of ${index} and 1 is ${index + 1}`);
  return textDocuments(lines, byteTokenizer(), { heldOutFraction: 0.1, name: "sums" });
}

/** Settings of runs that take a few steps of 2 x 8 tokens. */
export const tinySettings = {
  steps: 8,
  sequenceLength: 8,
  microBatchSize: 2,
  heldOutBatches: 2,
  // A signal is looked at between glances at the loss.
  logEvery: 2,
  optimizer: { learningRate: 1e-2, warmupSteps: 1 },
} as const;

export function resolvedTiny(change: Readonly<Record<string, unknown>> = {}): ResolvedSettings {
  return resolveSettings({ ...tinySettings, ...change }, { parameterCount: 0 });
}

/** A trainer of the tiny model on the tiny data. */
export async function tinyTrainer(
  backend: Backend,
  change: Readonly<Record<string, unknown>> = {},
  options: Partial<TrainerOptions> = {},
): Promise<Trainer> {
  const settings = resolvedTiny(change);
  const data = tinyData();
  return await Trainer.create({
    model: tinyModel(),
    backend,
    settings,
    batches: (step, micro) => trainingBatch(data.training, settings, step, micro),
    heldOut: await readHeldOut(data, settings),
    ...options,
  });
}

/** Everything that decides how a run goes on, as plain data that can be compared bit for bit. */
export async function stateOf(trainer: Trainer): Promise<Record<string, Float32Array>> {
  const tensors = Object.entries({ ...trainer.parameterTensors(), ...trainer.momentTensors() });
  return Object.fromEntries(await Promise.all(tensors.map(async ([name, tensor]) => [name, await tensor.read()])));
}
