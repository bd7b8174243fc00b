// Training from the first step to the last: steps, held-out losses, samples, checkpoints, metrics, in their order.

import {
  type Backend,
  CheckpointError,
  ConfigError,
  type DecoderOptions,
  generate,
  type LanguageModel,
  parameterCount,
  type SamplingOptions,
  SisaError,
} from "@sisa/core";
import { checkTokenizer, type SaveOptions, type Storage, StorageError, saveModel, type Tokenizer } from "@sisa/hub";
import { folderAt, saveModelAt } from "#paths";
import { type CheckpointMetadata, requireSameRun } from "./checkpoint.ts";
import { CheckpointFolder, findCheckpoint } from "./checkpoint-folder.ts";
import { type ResolvedSettings, resolveSettings, type TrainingSettings } from "./config/settings.ts";
import { requireLength, trainingBatch } from "./data/batches.ts";
import type { TrainingData } from "./data/training-data.ts";
import { type HeldOutBatches, type HeldOutLoss, readHeldOut } from "./held-out.ts";
import type { MetricsRecord, MetricsSink } from "./metrics/metrics.ts";
import { NotFiniteError } from "./not-finite.ts";
import { type HeadTable, headTable } from "./report/heads.ts";
import { measureLogDecay } from "./report/measured-decay.ts";
import { Trainer } from "./trainer.ts";

/** What is trained on what, where, and what is kept of it; settings lie flat beside these. */
export interface TrainOptions extends TrainingSettings {
  /** What is trained. */
  readonly model: LanguageModel;
  /** Where it runs. It is not closed. */
  readonly backend: Backend;
  /** From `textFiles`, `textDocuments`, `tokenShards` or `syntheticData`. */
  readonly data: TrainingData | Promise<TrainingData>;
  /** Folder for checkpoints, a path where there is a file system. Default: none are written. */
  readonly checkpoints?: string | Storage | undefined;
  /**
   * What to go on from: `false` (default) nothing, and a folder that holds checkpoints is refused; `"auto"` the newest
   * checkpoint where there is one; `true` the newest, which must be there; a path or storage, that checkpoint.
   */
  readonly resume?: boolean | string | Storage | undefined;
  /**
   * Take every record as it comes: files, a progress line, a chart. One that fails is told of and does not end the run.
   * Default none.
   */
  readonly metrics?: MetricsSink | readonly MetricsSink[] | undefined;
  /** First values of the parameters, row major. Default: the model's initialisation with the seed of the settings. */
  readonly parameters?: Readonly<Record<string, Float32Array>> | undefined;
  /**
   * What else to measure wherever the held-out loss is, by name. Its results stand in the same record. Default nothing.
   * @param at.step       steps done
   * @param at.parameters gives a copy of the parameters
   */
  readonly measure?:
    | ((at: {
        readonly step: number;
        readonly parameters: () => Promise<Record<string, Float32Array>>;
      }) => Promise<Readonly<Record<string, number>>>)
    | undefined;
  /** Aborted, the run saves a checkpoint after the step it is in, and returns. Default none. */
  readonly signal?: AbortSignal | undefined;
}

/** How the text goes on. */
export interface SampleOptions extends SamplingOptions {
  /** How many tokens to add at most; default 100. */
  readonly maxTokens?: number;
  /** Same seed, same text. Default 0. */
  readonly seed?: number;
  /** Aborted, sampling ends and gives the empty text. Default none. */
  readonly signal?: AbortSignal;
}

/** A run that has come to its end, or was stopped. */
export interface TrainingRun {
  /** As given. */
  readonly model: LanguageModel;
  /** By name, as the last step left them. */
  readonly parameters: Readonly<Record<string, Float32Array>>;
  /** With every default filled in. */
  readonly settings: ResolvedSettings;
  /** Steps done, by this process and before it. */
  readonly step: number;
  /** True where the signal ended the run before its last step. */
  readonly stopped: boolean;
  /** Steps that changed nothing because they were not finite. */
  readonly skipped: number;
  /** Of training, those before a resume included. */
  readonly elapsedSeconds: number;
  /** Last held-out loss, nats a token; NaN where the run was stopped before the first. */
  readonly heldOutLoss: number;
  /** The same in bits a byte, where the data has a tokenizer. */
  readonly bitsPerByte?: number;
  /** The last held-out loss by batch, nats a token; empty where there is none. Runs on the same data have the same batches. */
  readonly heldOutBatchLosses: readonly number[];
  /** What the run measured in this process, for a report. */
  readonly records: readonly MetricsRecord[];
  /**
   * A prompt continued, on the backend of the run.
   * @returns the continuation, without the prompt
   * @throws ConfigError where the data had no tokenizer
   */
  sample(prompt: string, options?: SampleOptions): Promise<string>;
  /** Lambda and half-life by layer and head, measured on held-out text too; undefined for a model without SISA layers. */
  heads(): Promise<HeadTable | undefined>;
  /**
   * Writes a model folder, in the form of Hugging Face, as `saveModel` does.
   * @throws StorageError where it cannot be written
   */
  save(to: string | Storage, options?: SaveOptions): Promise<void>;
}

/** Where a run aims to look at its losses at least this often, in seconds. */
const glanceSeconds = 1;

/**
 * Trains a model: steps, and between them held-out losses, samples and checkpoints. A checkpoint is a folder of its own
 * that appears whole or not at all; one that cannot be written on the way is a warning.
 *
 * @throws ConfigError settings that are wrong or do not fit the model or the data
 * @throws DataError data that are too short
 * @throws CheckpointError a checkpoint that cannot be resumed
 * @throws StorageError the last checkpoint could not be written; earlier ones are still there
 * @throws NotFiniteError too many steps in a row were not finite; the message names the first operation that was not
 */
export async function train(options: TrainOptions): Promise<TrainingRun> {
  const data = await options.data;
  const { model, backend } = options;
  const settings = resolveSettings(settingsFrom(options), { parameterCount: parameterCount(model) });
  checkData(data, model, settings);
  const heldOut = await readHeldOut(data, settings);
  await using trainer = await Trainer.create({
    model,
    backend,
    settings,
    heldOut,
    batches: (step, microBatch) => trainingBatch(data.training, settings, step, microBatch),
    ...(options.parameters === undefined ? {} : { parameters: options.parameters }),
  });
  const loop = new TrainingLoop(options, data, trainer);
  try {
    await loop.begin();
    await loop.run();
  } finally {
    await loop.end();
  }
  return await loop.result(heldOut);
}

const optionNames = ["model", "backend", "data", "checkpoints", "resume", "metrics", "parameters", "measure", "signal"];

/** The settings among the options. Whatever else is there is left for the settings' check to refuse. */
function settingsFrom(options: TrainOptions): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).filter(([name]) => !optionNames.includes(name)));
}

function checkData(data: TrainingData, model: LanguageModel, settings: ResolvedSettings): void {
  const { vocabularySize } = model.config;
  if (data.vocabularySize > vocabularySize) {
    throw new ConfigError(
      `the data has token ids up to ${data.vocabularySize - 1}, the model a vocabulary of ${vocabularySize}; ` +
        `give the model the vocabularySize of the tokenizer (${data.vocabularySize})`,
    );
  }
  if (data.tokenizer !== undefined) requireTokenizer(data.tokenizer, model);
  requireLength(data.training, settings.sequenceLength, `${data.description.name}, training part`);
  if (settings.samplePrompts.length > 0 && data.tokenizer === undefined) {
    throw new ConfigError("samplePrompts: expected data with a tokenizer, got data of ids only; leave the prompts out");
  }
}

/** Refuses before training what would be refused when it is saved. */
function requireTokenizer(tokenizer: Tokenizer, { config }: LanguageModel): void {
  try {
    checkTokenizer(tokenizer, config, "model");
  } catch (cause) {
    throw new ConfigError(
      `the data's tokenizer has ${tokenizer.size} tokens, the model a vocabulary of ${config.vocabularySize}, which could ` +
        `not be saved together; give the model the vocabularySize of the tokenizer (${tokenizer.size})`,
      { cause },
    );
  }
}

/** One run in progress. */
class TrainingLoop {
  readonly #options: TrainOptions;
  readonly #data: TrainingData;
  readonly #trainer: Trainer;
  readonly #settings: ResolvedSettings;
  readonly #folder: CheckpointFolder | undefined;
  readonly #sinks: readonly MetricsSink[];
  readonly #brokenSinks = new Set<MetricsSink>();
  readonly #records: MetricsRecord[] = [];
  #secondsPerStep = Number.POSITIVE_INFINITY;
  #skippedInARow = 0;
  #lastLoss: (HeldOutLoss & { readonly step: number }) | undefined;
  #best: CheckpointMetadata["best"];
  #savedStep: number | undefined;
  /** True where the run goes on from a checkpoint without a held-out loss. */
  #isUnmeasured = false;

  constructor(options: TrainOptions, data: TrainingData, trainer: Trainer) {
    this.#options = options;
    this.#data = data;
    this.#trainer = trainer;
    this.#settings = trainer.settings;
    this.#sinks = [options.metrics ?? []].flat();
    this.#folder = checkpointFolder(options.checkpoints, this.#settings.keepCheckpoints);
  }

  /** Takes up a checkpoint where one is asked for, and opens the metrics. */
  async begin(): Promise<void> {
    const warnings: string[] = [];
    await this.#resume(warnings);
    for (const sink of this.#sinks) await sink.start?.(this.#trainer.progress.step);
    for (const message of warnings) await this.#warn(message);
  }

  async #resume(warnings: string[]): Promise<void> {
    const { resume = false } = this.#options;
    const folder = this.#folder;
    const newestStep = (await folder?.steps())?.at(-1);
    if (resume === false) {
      if (newestStep !== undefined) {
        throw new CheckpointError(
          `${folder?.storage.location}: already holds checkpoints, up to step ${newestStep}; resume ("auto"), or choose ` +
            "another folder",
        );
      }
      return;
    }
    if (typeof resume === "object" || (typeof resume === "string" && resume !== "auto")) {
      await using checkpoint = await findCheckpoint(typeof resume === "string" ? folderAt(resume).storage : resume);
      await this.#take(checkpoint);
      if (newestStep !== undefined && newestStep > this.#trainer.progress.step) {
        throw new CheckpointError(
          `${folder?.storage.location}: holds later checkpoints than the one to resume, up to step ${newestStep}; resume ` +
            "the newest, or choose another folder",
        );
      }
      return;
    }
    if (folder === undefined) throw new ConfigError("resume needs a folder of checkpoints; give checkpoints too");
    const resumed = await folder.newest(
      async (checkpoint) => {
        await this.#take(checkpoint);
        return true;
      },
      (message) => warnings.push(`a damaged checkpoint is passed over: ${message}`),
    );
    if (resumed === undefined && resume === true) {
      throw new CheckpointError(`${folder.storage.location}: expected a checkpoint to resume, found none`);
    }
  }

  async #take(checkpoint: Awaited<ReturnType<typeof findCheckpoint>>): Promise<void> {
    const { metadata } = checkpoint;
    const data = this.#data.fingerprint;
    requireSameRun(checkpoint, { model: this.#trainer.model, settings: this.#settings, data });
    await this.#trainer.restore(metadata, (name) => checkpoint.read(name));
    this.#best = metadata.best;
    this.#savedStep = this.#folder === undefined ? undefined : metadata.step;
    this.#isUnmeasured = metadata.step > 0 && metadata.heldOutLoss === undefined;
  }

  /** Steps until the last one, or until the signal. */
  async run(): Promise<void> {
    const { steps, evaluateEvery, sampleEvery, saveEvery } = this.#settings;
    const due = (every: number): boolean => {
      const { step } = this.#trainer.progress;
      return step === steps || (every !== -1 && step % every === 0);
    };
    // The signal may have come between the step and its held-out loss.
    if (this.#isUnmeasured && due(evaluateEvery) && !this.#stopped) await this.#evaluate();
    while (this.#trainer.progress.step < steps && !this.#stopped) {
      await this.#advance();
      if (this.#stopped) break;
      if (due(evaluateEvery)) await this.#evaluate();
      if (due(sampleEvery)) await this.#sample();
      if (due(saveEvery)) await this.#save();
    }
    // A run that was resumed at its end has nothing left but to be measured.
    if (!this.#stopped && this.#lastLoss?.step !== this.#trainer.progress.step) await this.#evaluate();
    if (this.#folder !== undefined && this.#savedStep !== this.#trainer.progress.step) await this.#writeCheckpoint();
  }

  get #stopped(): boolean {
    return this.#options.signal?.aborted === true;
  }

  /** Steps up to the next event, but not so many that the progress stands still for long. */
  async #advance(): Promise<void> {
    const { steps, evaluateEvery, sampleEvery, saveEvery, logEvery, maximumSkippedSteps } = this.#settings;
    const { step } = this.#trainer.progress;
    const events = [evaluateEvery, sampleEvery, saveEvery].filter((every) => every !== -1);
    const next = Math.min(steps, ...events.map((every) => (Math.floor(step / every) + 1) * every));
    const glance = Math.max(1, Math.floor(glanceSeconds / this.#secondsPerStep));
    const { records, skippedBecause } = await this.#trainer.advance(Math.min(next - step, logEvery, glance));
    for (const record of records) await this.#emit(record);
    const last = records.at(-1);
    if (last !== undefined) this.#secondsPerStep = this.#settings.batchTokens / last.tokensPerSecond;
    if (skippedBecause === undefined) {
      this.#skippedInARow = 0;
      return;
    }
    this.#skippedInARow = records.length > 1 ? 1 : this.#skippedInARow + 1;
    if (this.#skippedInARow >= maximumSkippedSteps) {
      throw new NotFiniteError(
        `${this.#skippedInARow} steps in a row were not finite, up to step ${last?.step}: ${skippedBecause}; lower the ` +
          "learning rate, or look at the data there",
      );
    }
    await this.#warn(`the step was not finite and changed nothing: ${skippedBecause}`);
  }

  async #evaluate(): Promise<void> {
    const { step, elapsedSeconds } = this.#trainer.progress;
    const { batchLosses, ...loss } = await this.#trainer.evaluate();
    this.#lastLoss = { ...loss, batchLosses, step };
    const tokens = step * this.#settings.batchTokens;
    const measures = await this.#options.measure?.({ step, parameters: () => this.#trainer.parameters() });
    const measured = measures === undefined ? {} : { measures };
    await this.#emit({ type: "evaluation", step, tokens, elapsedSeconds, ...loss, ...measured });
    if (this.#settings.keepBest && loss.heldOutLoss < (this.#best?.heldOutLoss ?? Number.POSITIVE_INFINITY)) {
      const before = this.#best;
      this.#best = { step, heldOutLoss: loss.heldOutLoss };
      // A checkpoint that was saved before its loss was measured does not know that it is the best.
      this.#savedStep = undefined;
      await this.#save();
      // What could not be saved is not the best one that there is.
      if (this.#folder !== undefined && this.#savedStep !== step) this.#best = before;
    }
  }

  async #sample(): Promise<void> {
    const { samplePrompts, sampleTokens, sampleTemperature, seed } = this.#settings;
    if (samplePrompts.length === 0) return;
    const parameters = await this.#trainer.parameters();
    for (const prompt of samplePrompts) {
      const text = await sampleText(this.#source(parameters), prompt, {
        maxTokens: sampleTokens,
        temperature: sampleTemperature,
        seed,
        ...(this.#options.signal === undefined ? {} : { signal: this.#options.signal }),
      });
      if (text !== undefined) await this.#emit({ type: "sample", step: this.#trainer.progress.step, prompt, text });
    }
  }

  #source(parameters: Readonly<Record<string, Float32Array>>): SampleSource {
    const { model, backend } = this.#options;
    return { model, backend, parameters, tokenizer: this.#data.tokenizer };
  }

  /** Saves where there is a folder. A failure is told and does not end the run, unless this is its last chance. */
  async #save(): Promise<void> {
    const { step } = this.#trainer.progress;
    if (this.#folder === undefined || this.#savedStep === step) return;
    try {
      await this.#writeCheckpoint();
    } catch (error) {
      if (!StorageError.isInstance(error) || step === this.#settings.steps) throw error;
      await this.#warn(`no checkpoint was written, earlier ones are still there: ${error.message}`);
    }
  }

  async #writeCheckpoint(): Promise<void> {
    for (const sink of this.#sinks) await this.#guard(sink, () => sink.flush?.());
    const { progress, settings, model } = this.#trainer;
    const measured = this.#lastLoss?.step === progress.step ? { heldOutLoss: this.#lastLoss.heldOutLoss } : {};
    const best = this.#best === undefined ? {} : { best: this.#best };
    const metadata = { ...progress, settings, model: model.config, data: this.#data.fingerprint, ...measured, ...best };
    await this.#folder?.save(this.#trainer, metadata, this.#data.tokenizer);
    this.#savedStep = progress.step;
  }

  async #warn(message: string): Promise<void> {
    await this.#emit({ type: "warning", step: this.#trainer.progress.step, message });
  }

  async #emit(record: MetricsRecord): Promise<void> {
    this.#records.push(record);
    for (const sink of this.#sinks) await this.#guard(sink, () => sink.write(record));
  }

  /** Metrics that cannot be written, on a full disk for instance, must not end a run. The others hear of it once. */
  async #guard(sink: MetricsSink, action: () => void | Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (this.#brokenSinks.has(sink)) return;
      this.#brokenSinks.add(sink);
      const reason = error instanceof Error ? error.message : String(error);
      await this.#warn(`metrics could not be written: ${reason}`);
    }
  }

  async end(): Promise<void> {
    for (const sink of this.#sinks) await this.#guard(sink, () => sink.close?.());
  }

  async result(heldOut: HeldOutBatches): Promise<TrainingRun> {
    const { model, backend } = this.#options;
    const parameters = await this.#trainer.parameters();
    const { progress, settings } = this.#trainer;
    const { tokenizer } = this.#data;
    const source = this.#source(parameters);
    return {
      model,
      parameters,
      settings,
      ...progress,
      stopped: progress.step < settings.steps,
      heldOutLoss: this.#lastLoss?.heldOutLoss ?? Number.NaN,
      ...(this.#lastLoss?.bitsPerByte === undefined ? {} : { bitsPerByte: this.#lastLoss.bitsPerByte }),
      heldOutBatchLosses: this.#lastLoss?.batchLosses ?? [],
      records: this.#records,
      async sample(prompt, sampleOptions = {}) {
        return (await sampleText(source, prompt, sampleOptions)) ?? "";
      },
      async heads() {
        const ids = heldOut.batches[0]?.ids ?? new Int32Array();
        const decay = await measureLogDecay(model, parameters, backend, { ids, rows: heldOut.rows });
        return headTable(parameters, decay);
      },
      async save(to, saveOptions) {
        const saved = { config: model.config, parameters, ...(tokenizer === undefined ? {} : { tokenizer }) };
        if (typeof to === "string") await saveModelAt(to, saved, saveOptions);
        else await saveModel(to, saved, saveOptions);
      },
    };
  }
}

function checkpointFolder(place: string | Storage | undefined, keep: number): CheckpointFolder | undefined {
  if (place === undefined) return undefined;
  const { storage, pointTo } = typeof place === "string" ? folderAt(place) : { storage: place };
  return new CheckpointFolder(storage, { keep, pointTo });
}

interface SampleSource extends Pick<DecoderOptions, "model" | "backend" | "parameters"> {
  readonly tokenizer: Tokenizer | undefined;
}

/** A continuation of a prompt, or undefined where the signal came first. */
async function sampleText(source: SampleSource, prompt: string, options: SampleOptions): Promise<string | undefined> {
  const { tokenizer, model } = source;
  if (tokenizer === undefined) throw new ConfigError("sample: expected data with a tokenizer, got data of ids only");
  const { endOfText } = tokenizer;
  const encoded = tokenizer.encode(prompt);
  if (encoded.length === 0 && endOfText !== undefined) encoded.push(endOfText);
  const { maxTokens = 100, ...sampling } = options;
  // What does not fit is cut off at the front: the newest tokens matter most.
  const room = Math.max(1, model.config.maximumLength - maxTokens);
  const added: number[] = [];
  try {
    const tokens = generate({
      ...sampling,
      ...source,
      tokens: encoded.slice(-room),
      maxTokens,
      stopTokens: endOfText === undefined ? [] : [endOfText],
      // A sample of a model that is still learning is not the place to insist on it.
      allowClamp: true,
    });
    for await (const id of tokens) added.push(id);
  } catch (error) {
    if (options.signal?.aborted === true && !SisaError.isInstance(error)) return undefined;
    throw error;
  }
  return tokenizer.decode(added);
}
