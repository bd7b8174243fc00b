// One checkpoint: a model folder, and beside it what training needs to go on. Reading verifies every byte.
//
//   config.json, model.safetensors, tokenizer.json, ...   the model, as any reader of model folders takes it
//   training.safetensors                                  moments of the optimizer; in its header the step, the settings
import { CheckpointError, type LanguageModel, type ModelConfig } from "@sisa/core";
import {
  openSafetensors,
  openTensors,
  type Storage,
  saveModel,
  type TensorSource,
  type Tokenizer,
  toFloat32,
  writeSafetensors,
} from "@sisa/hub";
import type { ResolvedSettings } from "./config/settings.ts";
import { isRecord, shown } from "./config/table.ts";
import type { Trainer, TrainerProgress } from "./trainer.ts";

const trainingFile = "training.safetensors";
const metadataKey = "sisa.training";
const format = 1;

/** What a checkpoint knows besides tensors. */
export interface CheckpointMetadata extends TrainerProgress {
  /** Those of the run, which must be the same where it goes on. */
  readonly settings: ResolvedSettings;
  /** Configuration of the model. */
  readonly model: ModelConfig;
  /** Fingerprint of the data. */
  readonly data: string;
  /** Held-out loss at this step, where it was measured. */
  readonly heldOutLoss?: number;
  /** The best checkpoint of the run so far, by its step. */
  readonly best?: {
    /** Steps done. */
    readonly step: number;
    /** Nats a token. */
    readonly heldOutLoss: number;
  };
}

/** A checkpoint that is sound, but of another run than the one that wants to go on from it. */
export class CheckpointMismatchError extends CheckpointError {
  static override readonly code = "CHECKPOINT_MISMATCH";
}

/** Writes a checkpoint into an empty folder, one tensor in memory at a time. */
export async function writeCheckpoint(
  folder: Storage,
  trainer: Trainer,
  metadata: CheckpointMetadata,
  tokenizer?: Tokenizer,
): Promise<void> {
  const parameters = Object.entries(trainer.parameterTensors()).map(([name, { read }]) => [name, read] as const);
  await saveModel(folder, {
    config: trainer.model.config,
    parameters: Object.fromEntries(parameters),
    ...(tokenizer === undefined ? {} : { tokenizer }),
  });
  const moments = Object.entries(trainer.momentTensors()).map(
    ([name, { shape, read }]) => [name, { dtype: "float32", shape, data: read }] as const,
  );
  const text = JSON.stringify({ format, ...metadata, weights: await weightsChecksum(folder) });
  await writeSafetensors(folder, trainingFile, Object.fromEntries(moments), { metadata: { [metadataKey]: text } });
}

/** Ties the two files of a checkpoint together. Weights in several files are tied by their own index only. */
async function weightsChecksum(folder: Storage): Promise<string | undefined> {
  if ((await folder.size("model.safetensors")) === undefined) return undefined;
  await using file = await openSafetensors(folder, "model.safetensors");
  return file.checksum;
}

/** A checkpoint opened for reading. */
export interface OpenCheckpoint extends AsyncDisposable {
  /** Where it is, for messages. */
  readonly location: string;
  /** What it knows besides tensors. */
  readonly metadata: CheckpointMetadata;
  /** Values of a parameter or moment. @throws CheckpointError where they are damaged or missing */
  read(name: string): Promise<Float32Array>;
}

/** True where a folder holds a checkpoint rather than only a model, or checkpoints. */
export async function isCheckpoint(folder: Storage): Promise<boolean> {
  return (await folder.size(trainingFile)) !== undefined;
}

/**
 * Opens a checkpoint. Every byte is compared with its checksum as it is read.
 * @throws CheckpointError where the folder holds none, or a damaged one; StorageError where a file cannot be read
 */
export async function openCheckpoint(folder: Storage): Promise<OpenCheckpoint> {
  if (!(await isCheckpoint(folder))) {
    throw new CheckpointError(
      `${folder.location}: expected a checkpoint, found no ${trainingFile}; a model folder alone cannot be resumed`,
    );
  }
  const moments = await openSafetensors(folder, trainingFile);
  let weights: TensorSource | undefined;
  try {
    const { metadata, checksum } = parseMetadata(moments.metadata[metadataKey], moments.location);
    if (checksum !== undefined && checksum !== (await weightsChecksum(folder))) {
      throw new CheckpointError(`${folder.location}: weights and optimizer state are of two different saves`);
    }
    const parameters = await openTensors(folder);
    weights = parameters;
    return {
      location: folder.location,
      metadata,
      async read(name) {
        const source = parameters.tensors.has(name) ? parameters : moments;
        return toFloat32(await source.read(name), `${source.location}: ${name}`);
      },
      async [Symbol.asyncDispose]() {
        await parameters.close();
        await moments.close();
      },
    };
  } catch (error) {
    await weights?.close();
    await moments.close();
    throw error;
  }
}

function parseMetadata(
  text: string | undefined,
  location: string,
): { readonly metadata: CheckpointMetadata; readonly checksum: string | undefined } {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "");
  } catch (cause) {
    throw new CheckpointError(`${location}: its header says nothing about a training run`, { cause });
  }
  if (!isRecord(value) || value.format !== format) {
    const found = isRecord(value) ? shown(value.format) : shown(value);
    throw new CheckpointError(`${location}: expected format ${format}, got ${found}; another version wrote it`);
  }
  const { format: _, weights, ...metadata } = value;
  const isSound =
    typeof metadata.step === "number" &&
    typeof metadata.skipped === "number" &&
    typeof metadata.elapsedSeconds === "number" &&
    isRecord(metadata.settings) &&
    isRecord(metadata.model) &&
    typeof metadata.data === "string";
  if (!isSound) throw new CheckpointError(`${location}: its header lacks a part of what a training run needs`);
  return {
    metadata: metadata as unknown as CheckpointMetadata,
    checksum: typeof weights === "string" ? weights : undefined,
  };
}

/** Settings that may change between two parts of a run: they do not touch what it computes. */
const freeSettings: ReadonlySet<string> = new Set([
  "logEvery",
  "evaluateEvery",
  "heldOutBatches",
  "sampleEvery",
  "samplePrompts",
  "sampleTokens",
  "sampleTemperature",
  "saveEvery",
  "keepCheckpoints",
  "keepBest",
  "maximumSkippedSteps",
  // The same values, computed at other times.
  "rematerialize",
]);

/**
 * Refuses a checkpoint that a run cannot go on from.
 * @throws CheckpointMismatchError that names what differs
 */
export function requireSameRun(
  { location, metadata }: OpenCheckpoint,
  run: { readonly model: LanguageModel; readonly settings: ResolvedSettings; readonly data: string },
): void {
  const settings = differences(metadata.settings, run.settings).filter(([name]) => !freeSettings.has(name));
  const model = differences(metadata.model, run.model.config).map(([name, ...values]) => [`model.${name}`, ...values]);
  const texts = [...model, ...settings].map(
    ([name, there, here]) => `${name} is ${shown(there)} there and ${shown(here)} here`,
  );
  if (metadata.data !== run.data) texts.push("the data are other tokens");
  if (texts.length === 0) return;
  const listed = texts.length > 4 ? [...texts.slice(0, 4), `and ${texts.length - 4} more`] : texts;
  throw new CheckpointMismatchError(
    `${location}: the checkpoint is of another run: ${listed.join("; ")}; give the same values, or begin in another folder`,
  );
}

/** Fields that differ between two plain objects, by their addresses. */
function differences(there: unknown, here: unknown, prefix = ""): [name: string, there: unknown, here: unknown][] {
  if (isRecord(there) && isRecord(here)) {
    const names = new Set([...Object.keys(there), ...Object.keys(here)]);
    return [...names].flatMap((name) =>
      differences(there[name], here[name], prefix === "" ? name : `${prefix}.${name}`),
    );
  }
  return JSON.stringify(there) === JSON.stringify(here) ? [] : [[prefix, there, here]];
}
