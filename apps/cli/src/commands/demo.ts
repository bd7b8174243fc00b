// sisa demo: two small models of equal size on the same text, in the same order, for about two minutes in all.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import {
  type Backend,
  DataError,
  type Family,
  ffnWidthFor,
  type LanguageModel,
  languageModel,
  type ModelConfig,
  parameterCount,
  parameterCountOf,
  preset,
} from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import {
  htmlReport,
  meanOf,
  progressLine,
  resolveSettings,
  Trainer,
  type TrainingData,
  type TrainingRun,
  train,
  trainingBatch,
} from "@sisa/train";
import { metricsFile, textFiles } from "@sisa/train/node";
import { type Command, Option } from "commander";
import { type BackendOptions, defaultBackend, openBackend } from "../backends.ts";
import { backendOption, type Context, command, jsonOption, numberWithin, threadsOption } from "../context.ts";
import { InterruptedError } from "../exit-codes.ts";
import { forPeople, type Io, note, paint, printJson, printLine, type Signal } from "../io.ts";
import { callOf, printNextSteps, shellWord, shownPath } from "../next-steps.ts";
import { replaceFile, reportFile } from "../run-folder.ts";
import { secondsPerRound } from "../step-fit.ts";
import { clockText, countOf, countText, textTable } from "../table.ts";

interface Options extends BackendOptions {
  readonly text?: string;
  readonly to: string;
  readonly seconds: number;
  readonly steps?: number;
  readonly json?: boolean;
}

const defaultFolder = "runs/demo";

/** Small enough to learn something in a minute; both have the parameters of this Transformer. */
const sizes = { layers: 2, width: 128, heads: 4, feedForwardWidth: 448, stateWidth: 16, maximumLength: 1024 };
const settings = {
  sequenceLength: 128,
  microBatchSize: 4,
  heldOutBatches: 32,
  optimizer: { learningRate: 4e-3 },
};
const fewestSteps = 20;
/** Held-out losses on the way. */
const evaluations = 6;
/** Part of the time that steps may take; the rest is for held-out losses, samples and set-up. */
const trainingShare = 0.85;
/** The models are timed together for this part of the time, and not for longer than so many seconds. */
const timing = { share: 0.07, mostSeconds: 15, warmUpSteps: 3, fewestRounds: 4, mostRounds: 1000 };

interface Contestant {
  readonly family: Family;
  readonly name: string;
  readonly model: LanguageModel;
}

interface Corpus {
  readonly path: string;
  readonly data: TrainingData;
  /** What the samples go on from. */
  readonly prompt: string;
}

export function demoCommand({ io }: Context): Command {
  return command("demo", "train a small SISA and a Transformer of equal size on text, and compare them", [
    "sisa demo",
    "sisa demo --text book.txt --seconds 600",
    "sisa demo --steps 500",
  ])
    .option("--text <path>", "text file or folder (default: the declaration files of @types/node)")
    .option("--to <folder>", "where models and report go; those of an earlier demo are replaced", defaultFolder)
    .option("--seconds <number>", "how long it may take in all", numberWithin({ minimum: 1 }), 120)
    .addOption(
      new Option("--steps <number>", "steps of each model in place of a time; the same number gives the same models")
        .argParser(numberWithin({ whole: true, minimum: 1 }))
        .conflicts("seconds"),
    )
    .addOption(backendOption())
    .addOption(threadsOption())
    .addOption(jsonOption())
    .action(async (options: Options) => {
      const startMs = performance.now();
      let stoppedBy: Signal | undefined;
      const stopping = new AbortController();
      const offSignal = io.onSignal((signal) => {
        stoppedBy = signal;
        stopping.abort();
      });
      try {
        await compare(io, options, startMs, stopping.signal);
      } catch (error) {
        if (stoppedBy === undefined) throw error;
        throw new InterruptedError(stoppedBy, "stopped before the comparison was done");
      } finally {
        offSignal();
      }
    });
}

async function compare(io: Io, options: Options, startMs: number, signal: AbortSignal): Promise<void> {
  const corpus = options.text === undefined ? await declarationFiles(io) : await textOf(resolve(io.cwd, options.text));
  const { data } = corpus;
  // The models are timed before `train` looks at the data.
  if (data.training.length <= settings.sequenceLength) {
    throw new DataError(
      `${corpus.path}: expected more than ${settings.sequenceLength} bytes to learn from, got ${data.training.length}; give more text`,
    );
  }
  const contestants = contestantsFor(data.vocabularySize);
  const [training, heldOut] = [data.training, data.heldOut].map(({ length }) => countText(length));
  note(io, `text    ${shownPath(io, corpus.path)}: ${training} bytes to learn from, ${heldOut} held out`);
  const counts = contestants.map(({ name, model }) => `${name} ${countText(parameterCount(model))}`);
  note(io, `models  ${counts.join(" and ")} parameters`);

  await using backend = await openBackend(options);
  let { steps } = options;
  if (steps === undefined) {
    const perStep = await timeSteps(io, backend, contestants, data, options.seconds, signal);
    const left = options.seconds - (performance.now() - startMs) / 1000;
    steps = Math.max(fewestSteps, Math.floor((trainingShare * left) / perStep));
    const expected = clockText((steps * perStep) / trainingShare);
    note(io, `steps   ${countText(steps)} for each, about ${expected} on ${availableParallelism()} cores\n`);
  } else {
    note(io, `steps   ${countText(steps)} for each\n`);
  }

  const folder = resolve(io.cwd, options.to);
  const runs: (Contestant & { readonly run: TrainingRun; readonly sample: string })[] = [];
  for (const contestant of contestants) {
    const { name, family, model } = contestant;
    const run = await train({
      model,
      backend,
      data,
      ...settings,
      steps,
      evaluateEvery: Math.ceil(steps / evaluations),
      signal,
      metrics: [
        metricsFile(join(folder, family, "metrics.jsonl")),
        progressLine(io.stderr, { totalSteps: steps, name: name.padEnd(11) }),
      ],
    });
    signal.throwIfAborted();
    await run.save(join(folder, family));
    const sample = await run.sample(corpus.prompt, { maxTokens: 240, temperature: 0.6, signal });
    signal.throwIfAborted();
    runs.push({ ...contestant, run, sample });
  }
  const report = join(folder, reportFile);
  await replaceFile(report, await reportOf(runs, corpus));

  const shown = forPeople(io, options.json);
  printComparison(shown, runs);
  printLine(shown, `\n  ${verdict(runs).replace(". ", ".\n  ")}`);
  printLine(shown, `  The same again: ${callOf(io)} ${commandOf(options, steps)}`);
  for (const { name, sample } of runs) {
    printLine(shown, `\n${paint(shown, shown.stdout, "bold", `${name} goes on:`)}`);
    printLine(shown, indented(corpus.prompt + sample));
  }
  const [sisa, transformer] = contestants.map(({ family }) => shownPath(io, join(folder, family)));
  printLine(shown, `\nmodels  ${sisa} and ${transformer}`);
  printLine(
    shown,
    `report  ${shownPath(io, report)}, to be opened in a browser: loss curves, lambda and half-life by head`,
  );
  const place = shellWord(sisa ?? "");
  const text = shellWord(shownPath(io, corpus.path));
  printNextSteps(shown, [
    [`generate ${place} ${shellWord(corpus.prompt.trim().split("\n").at(-1) ?? "")}`, "continue a text of yours"],
    [`inspect ${place} --text ${text}`, "parameters, lambda and half-life by head, bytes of cache"],
    [`eval ${place} --text README.md`, "how well it predicts another text"],
    [`train --data.text ${text} --model.preset sisa --model.size 5m --steps 2000`, "a larger model"],
  ]);
  if (options.json) {
    const results = runs.map(({ family, run: { heldOutLoss, bitsPerByte, elapsedSeconds }, model }) => [
      family,
      { parameters: parameterCount(model), heldOutLoss, bitsPerByte, elapsedSeconds },
    ]);
    printJson(io, { folder, steps, ...Object.fromEntries(results) });
  }
}

/** The models, SISA first, with as many parameters as each other can have. */
function contestantsFor(vocabularySize: number): readonly [Contestant, Contestant] {
  const transformer = preset("transformer", "1m", { ...sizes, vocabularySize });
  const sisa: ModelConfig = { ...transformer, mixers: transformer.mixers.map(() => "sisa") };
  const feedForwardWidth = ffnWidthFor(sisa, parameterCountOf(transformer));
  return [
    { family: "sisa", name: "SISA", model: languageModel({ ...sisa, feedForwardWidth }) },
    { family: "transformer", name: "Transformer", model: languageModel(transformer) },
  ];
}

/** English and TypeScript that are on the machine: the workspace has @types/node installed. */
async function declarationFiles(io: Io): Promise<Corpus> {
  const near = join(io.cwd, "node_modules/@types/node");
  const path = existsSync(near) ? near : installedTypes();
  const include = (file: string): boolean => file.endsWith(".d.ts");
  const data = await textFiles(path, byteTokenizer(), { include, name: "the declaration files of @types/node" });
  return { path, data, prompt: "    /**\n     * Returns " };
}

function installedTypes(): string {
  try {
    return dirname(createRequire(import.meta.url).resolve("@types/node/package.json"));
  } catch (cause) {
    throw new DataError("demo: @types/node is not installed here; give a text: --text FILE_OR_FOLDER", { cause });
  }
}

async function textOf(path: string): Promise<Corpus> {
  const tokenizer = byteTokenizer();
  const data = await textFiles(path, tokenizer);
  const beginning = tokenizer.decode(await data.heldOut.read(0, Math.min(80, data.heldOut.length)));
  // Up to the last whole word; a character may be cut at the end as well.
  return { path, data, prompt: beginning.replace(/\s*\S*$/, "") || beginning.replace(/\ufffd+$/, "") };
}

/** Seconds that a step of both models takes, of trainings that are thrown away. */
async function timeSteps(
  io: Io,
  backend: Backend,
  contestants: readonly Contestant[],
  data: TrainingData,
  demoSeconds: number,
  signal: AbortSignal,
): Promise<number> {
  const seconds = Math.min(timing.mostSeconds, timing.share * demoSeconds);
  note(io, `timing  steps of both models, for ${Math.ceil(seconds)} s`);
  const steps = timing.warmUpSteps + timing.mostRounds;
  const trainers: Trainer[] = [];
  try {
    for (const { model } of contestants) {
      const resolved = resolveSettings({ ...settings, steps }, { parameterCount: parameterCount(model) });
      const batches = (step: number, microBatch: number) => trainingBatch(data.training, resolved, step, microBatch);
      const trainer = await Trainer.create({ model, backend, settings: resolved, batches });
      trainers.push(trainer);
      await trainer.advance(timing.warmUpSteps);
    }
    const takeSteps = trainers.map((trainer) => async () => {
      signal.throwIfAborted();
      await trainer.advance(1);
    });
    return await secondsPerRound(takeSteps, { ...timing, seconds });
  } finally {
    for (const trainer of trainers) await trainer.close();
  }
}

/** What the two held-out losses say about each other, and what they do not. */
function verdict([a, b]: readonly (Contestant & { readonly run: TrainingRun })[]): string {
  if (a === undefined || b === undefined) return "";
  const losses = b.run.heldOutBatchLosses;
  const { value, standardError } = meanOf(a.run.heldOutBatchLosses.map((loss, index) => loss - (losses[index] ?? 0)));
  const sign = value < 0 ? "-" : "+";
  const known = Number.isFinite(standardError);
  const error = known ? ` ± ${standardError.toFixed(4)}` : "";
  const measured = known
    ? `standard error over ${losses.length} held-out batches`
    : "one held-out batch, no error known";
  return (
    `${a.name} minus ${b.name}: ${sign}${Math.abs(value).toFixed(4)}${error} nats a byte (${measured}). This does not ` +
    "decide which is better: each was trained once, and another seed or number of steps moves the losses too."
  );
}

function printComparison(io: Io, runs: readonly (Contestant & { readonly run: TrainingRun })[]): void {
  const row = (title: string, cell: (entry: (typeof runs)[number]) => string): string[] => [title, ...runs.map(cell)];
  const table = textTable([
    row("", ({ name }) => name),
    row("parameters", ({ model }) => countText(parameterCount(model))),
    row("held-out loss, nats a byte", ({ run }) => run.heldOutLoss.toFixed(4)),
    row("held-out loss, bits a byte", ({ run }) => run.bitsPerByte?.toFixed(4) ?? "-"),
    row("steps", ({ run }) => countText(run.step)),
    row("time", ({ run }) => clockText(run.elapsedSeconds)),
  ]);
  printLine(io, "");
  for (const line of table) printLine(io, line);
}

async function reportOf(
  runs: readonly (Contestant & { readonly run: TrainingRun })[],
  { data }: Corpus,
): Promise<string> {
  const shown = await Promise.all(
    runs.map(async ({ name, run }) => {
      const heads = await run.heads();
      return {
        name,
        records: run.records,
        parameterCount: parameterCount(run.model),
        configuration: { model: run.model.config, training: run.settings },
        ...(heads === undefined ? {} : { heads }),
      };
    }),
  );
  const { name, documents } = data.description;
  const subtitle = `${name}: ${countOf(documents, "document")}, ${countText(data.training.length)} bytes to learn from`;
  return htmlReport(shown, { title: "SISA beside a Transformer", subtitle, note: verdict(runs) });
}

function indented(text: string): string {
  return text.replaceAll(/^/gm, "  ");
}

/** What trains the same models once more. */
function commandOf({ text, to, backend, threads }: Options, steps: number): string {
  const words = Object.entries({
    text,
    ...(to === defaultFolder ? {} : { to }),
    ...(backend === defaultBackend ? {} : { backend }),
    threads: threads?.toString(),
    steps: String(steps),
  }).flatMap(([name, value]) => (value === undefined ? [] : [`--${name} ${shellWord(value)}`]));
  return `demo ${words.join(" ")}`;
}
