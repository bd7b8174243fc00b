// One run of an experiment: training, tasks on the way and at the end, and what it cost. Each step of it can be repeated,
// so an end at any moment loses at most what came after the last checkpoint or the last batch of a task.
import { mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import {
  type Backend,
  ConfigError,
  Decoder,
  type DeviceTensor,
  type LanguageModel,
  languageModel,
  parameterCount,
  parameterSpecs,
} from "@sisa/core";
import { byteTokenizer, type Tokenizer } from "@sisa/hub";
import {
  evaluate,
  findTask,
  isRecord,
  type MetricsRecord,
  modelConfigOf,
  parameterFingerprint,
  progressLine,
  type RunValues,
  Scorer,
  type StepRecord,
  settingsOf,
  type Task,
  type TaskResult,
  type TrainingData,
  train,
} from "@sisa/train";
import { evaluationLog, metricsFile, readMetrics } from "@sisa/train/node";
import { openBackend } from "../backends.ts";
import { openTrainingData, withAbsolutePaths } from "../data-source.ts";
import { fileNameOf, itemFile } from "../evaluation-source.ts";
import type { Io } from "../io.ts";
import { checkpointsFolder, metricsFileName, replaceFile, runFile } from "../run-folder.ts";
import type { Experiment, PlannedRun } from "./plan.ts";

/** What a run leaves when it is done. */
export const resultFile = "result.json";

export interface RunResult {
  readonly id: string;
  readonly values: RunValues;
  /** Everything that the tasks after the last step measured. */
  readonly tasks: readonly TaskResult[];
}

/** Where the results of an experiment lie. */
export function experimentFolder({ output, name }: Experiment, cwd: string): string {
  return resolve(cwd, output, name);
}

/** The result of a run that is done, or undefined. */
export async function readResult(folder: string, run: PlannedRun): Promise<RunResult | undefined> {
  const text = await readFile(join(folder, run.id, resultFile), "utf8").catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as RunResult);
}

/** What describes a run, to tell whether a folder holds it; paths are absolute. */
export function describeRun(run: PlannedRun, cwd: string): string {
  const { tasks, finalTasks, taskOptions } = run;
  return `${JSON.stringify({ config: withAbsolutePaths(run.config, cwd), tasks, finalTasks, taskOptions }, undefined, 2)}\n`;
}

/** Trains and measures. Goes on from what an earlier process left in the folder. */
export async function executeRun(
  experiment: Experiment,
  run: PlannedRun,
  io: Io,
  signal: AbortSignal,
  threads?: number,
): Promise<RunResult> {
  const folder = join(experimentFolder(experiment, io.cwd), run.id);
  await mkdir(folder, { recursive: true });
  await replaceFile(join(folder, runFile), describeRun(run, io.cwd));
  const data = await openTrainingData(run.config.data, io.cwd);
  if (run.config.model === undefined) throw new Error("a planned run has a model");
  const model = languageModel(modelConfigOf(run.config.model, data.vocabularySize));
  const createTasks = (names: readonly string[]) => createAll(names, experiment, run, model, data, io);
  await using backend = await openBackend({ backend: run.config.backend, threads });
  const usage = await PeakMemory.open(join(folder, "memory.json"), backend);
  await using measuring = new TasksInTraining(model, backend, await createTasks(run.tasks));

  const trained = await train({
    model,
    backend,
    data,
    ...settingsOf(run.config),
    checkpoints: join(folder, checkpointsFolder),
    resume: "auto",
    signal,
    metrics: [
      metricsFile(join(folder, metricsFileName)),
      progressLine(io.stderr, { totalSteps: run.config.steps ?? 0, name: run.id }),
    ],
    async measure({ parameters }) {
      await usage.note();
      return run.tasks.length === 0 ? {} : await measuring.measure(await parameters());
    },
  });
  signal.throwIfAborted();

  const tasks: TaskResult[] = [];
  await using scorer = new Scorer({ model, parameters: trained.parameters, backend });
  const modelFingerprint = await parameterFingerprint(trained.parameters);
  for (const task of await createTasks(run.finalTasks)) {
    const path = join(folder, "evaluation", fileNameOf(task.name));
    const log = evaluationLog(`${path}.scores.jsonl`);
    try {
      const result = await evaluate(task, scorer, { log, modelFingerprint, signal });
      await replaceFile(`${path}.json`, `${JSON.stringify(result, undefined, 2)}\n`);
      tasks.push(result);
    } finally {
      log.close();
    }
  }

  const records = readMetrics(join(folder, metricsFileName));
  const last = records.filter((record) => record.type === "evaluation").at(-1);
  const result: RunResult = {
    id: run.id,
    tasks,
    values: {
      parameters: parameterCount(model),
      heldOutLoss: trained.heldOutLoss,
      bitsPerByte: trained.bitsPerByte,
      measures: Object.assign({ ...last?.measures }, ...tasks.map(measuresOf)),
      tokensPerSecond: medianSpeed(records),
      peakMemoryBytes: await usage.note(),
      decodeMs: await decodeLatency(model, trained.parameters, backend),
    },
  };
  await replaceFile(join(folder, resultFile), `${JSON.stringify(result, undefined, 2)}\n`);
  return result;
}

async function createAll(
  names: readonly string[],
  { sets }: Experiment,
  { config, taskOptions }: PlannedRun,
  model: LanguageModel,
  data: TrainingData,
  io: Io,
): Promise<Task[]> {
  const { maximumLength, vocabularySize } = model.config;
  // Sequences made by rule have no tokenizer, and the tasks on them need none.
  const tokenizer: Tokenizer = data.tokenizer ?? byteTokenizer();
  return await Promise.all(
    names.map((name) =>
      findTask(name).create({
        tokenizer,
        maximumLength,
        vocabularySize,
        ...taskOptions,
        items: (set) => itemFile(set, sets, io.cwd),
        text: async () => ({ tokens: data.heldOut, sequenceLength: config.data.sequenceLength }),
        async documents() {
          throw new ConfigError(`${name}: an experiment holds no whole documents out; use perplexity`);
        },
      }),
    ),
  );
}

function measuresOf({ task, metrics }: TaskResult): Record<string, number> {
  return Object.fromEntries(Object.entries(metrics).map(([name, { value }]) => [`${task} ${name}`, value]));
}

/** Tasks on parameters that change: they lie on the backend, so that nothing is compiled twice. */
class TasksInTraining implements AsyncDisposable {
  readonly #backend: Backend;
  readonly #tasks: readonly Task[];
  readonly #tensors: Readonly<Record<string, DeviceTensor>>;
  readonly #scorer: Scorer;

  constructor(model: LanguageModel, backend: Backend, tasks: readonly Task[]) {
    this.#backend = backend;
    this.#tasks = tasks;
    const specs = tasks.length === 0 ? [] : Object.entries(parameterSpecs(model));
    this.#tensors = Object.fromEntries(specs.map(([name, spec]) => [name, backend.tensor(spec)]));
    this.#scorer = new Scorer({ model, parameters: this.#tensors, backend });
  }

  async measure(parameters: Readonly<Record<string, Float32Array>>): Promise<Record<string, number>> {
    for (const [name, tensor] of Object.entries(this.#tensors)) {
      const values = parameters[name];
      if (values !== undefined) this.#backend.write(tensor, values);
    }
    const measures: Record<string, number> = {};
    for (const task of this.#tasks) {
      const { metrics, headline } = await evaluate(task, this.#scorer);
      measures[`${task.name} ${headline}`] = metrics[headline]?.value ?? Number.NaN;
    }
    return measures;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scorer.close();
    for (const tensor of Object.values(this.#tensors)) tensor.dispose();
  }
}

/**
 * The most memory that a run took in any process that worked on it, kept in a file: what a device holds, or where there is
 * none but the host, the resident memory of the process.
 */
class PeakMemory {
  readonly #path: string;
  readonly #backend: Backend;
  #bytes: number;

  private constructor(path: string, backend: Backend, bytes: number) {
    this.#path = path;
    this.#backend = backend;
    this.#bytes = bytes;
  }

  static async open(path: string, backend: Backend): Promise<PeakMemory> {
    const text = await readFile(path, "utf8").catch(() => "{}");
    const value: unknown = JSON.parse(text);
    return new PeakMemory(path, backend, isRecord(value) && typeof value.bytes === "number" ? value.bytes : 0);
  }

  async note(): Promise<number> {
    const { limits } = this.#backend;
    // Resident memory comes in kilobytes on every system.
    const bytes = limits.hostMemory ? process.resourceUsage().maxRSS * 1024 : this.#backend.memory().deviceBytes;
    this.#bytes = Math.max(this.#bytes, bytes);
    await replaceFile(this.#path, `${JSON.stringify({ bytes: this.#bytes })}\n`);
    return this.#bytes;
  }
}

/** Tokens a second of the steps, without the first tenth, in which a process gets warm. */
function medianSpeed(records: readonly MetricsRecord[]): number {
  const steps = records.filter((record): record is StepRecord => record.type === "step");
  return median(steps.slice(Math.floor(steps.length / 10)).map((record) => record.tokensPerSecond));
}

const decoding = { prompt: 64, tokens: 32 };

/** Milliseconds that a token takes after a prompt, with caches, in a batch of one. */
async function decodeLatency(
  model: LanguageModel,
  parameters: Readonly<Record<string, Float32Array>>,
  backend: Backend,
): Promise<number> {
  const capacity = Math.min(model.config.maximumLength, decoding.prompt + decoding.tokens);
  const prompt = Math.min(decoding.prompt, Math.floor(capacity / 2));
  await using decoder = await Decoder.create({ model, parameters, backend, capacity, allowClamp: true });
  await decoder.append([new Array<number>(prompt).fill(0)], [0]);
  const times: number[] = [];
  for (let position = prompt; position < capacity; position++) {
    const startMs = performance.now();
    await decoder.append([[1]], [position]);
    times.push(performance.now() - startMs);
  }
  return median(times);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
