// The demonstration: two small models of equal size on the same text, in the same order, for about two minutes in all.
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import {
  type Backend,
  type Family,
  initialize,
  type LanguageModel,
  languageModel,
  parameterCount,
  preset,
} from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { onnxruntime } from "@sisa/onnx";
import {
  htmlReport,
  progressLine,
  resolveSettings,
  Trainer,
  type TrainingData,
  type TrainingRun,
  train,
  trainingBatch,
} from "@sisa/train";
import { metricsFile, textFiles } from "@sisa/train/node";
import { Command, CommanderError } from "commander";
import { numberWithin } from "./context.ts";
import { errorLine, exitCode, exitCodeOf, InterruptedError } from "./exit-codes.ts";
import { type Io, note, paint, printLine, type Signal } from "./io.ts";
import { printNextSteps, shellWord, shownPath } from "./next-steps.ts";
import { replaceFile, reportFile } from "./run-folder.ts";
import { clockText, countText, textTable } from "./table.ts";

interface Options {
  readonly text?: string;
  readonly to: string;
  readonly seconds: number;
}

const families = [
  { family: "sisa", name: "SISA" },
  { family: "transformer", name: "Transformer" },
] as const satisfies readonly { readonly family: Family; readonly name: string }[];

const sizes = { sequenceLength: 256, microBatchSize: 8 };
const learningRate = 3e-3;
/** Steps that a model is timed on, after as many to get warm. */
const timedSteps = 3;
/** What is left of the time for held-out losses, samples and set-up. */
const trainingShare = 0.85;
const promptTokens = 120;

/** @returns the exit code */
export async function runDemo(words: readonly string[], io: Io): Promise<number> {
  const program = new Command("npm run demo --")
    .description("Trains a small SISA and a Transformer of equal size on text, and compares them.")
    .option("--text <path>", "text file or folder (default: the declaration files of @types/node)")
    .option("--to <folder>", "where models and report go", "runs/demo")
    .option("--seconds <number>", "how long it may take in all", numberWithin({ minimum: 1 }), 120)
    .addHelpText("after", "\nExamples:\n  $ npm run demo\n  $ npm run demo -- --text book.txt --seconds 600")
    .exitOverride()
    .configureOutput({ writeOut: (text) => io.stdout.write(text), writeErr: (text) => io.stderr.write(text) });
  try {
    program.parse([...words], { from: "user" });
    await demonstrate(io, program.opts<Options>());
    return exitCode.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCode.ok : exitCode.usage;
    note(io, `${paint(io, io.stderr, "red", "error:")} ${errorLine(error)}`);
    return exitCodeOf(error);
  }
}

async function demonstrate(io: Io, options: Options): Promise<void> {
  const tokenizer = byteTokenizer();
  const text = options.text === undefined ? declarationFiles() : resolve(io.cwd, options.text);
  const data = await textFiles(text, tokenizer, { name: options.text ?? "the declaration files of @types/node" });
  const folder = resolve(io.cwd, options.to);
  const models = families.map(({ family, name }) => {
    const config = preset(family, "1m", { vocabularySize: tokenizer.size, maximumLength: 1024 });
    return { name, family, model: languageModel(config) };
  });
  const counts = models.map(({ name, model }) => `${name} ${countText(parameterCount(model))}`);
  note(
    io,
    `text    ${data.description.name}: ${countText(data.training.length)} bytes to learn, ${countText(data.heldOut.length)} held out`,
  );
  note(io, `models  parameters: ${counts.join(", ")}`);

  const stopping = new AbortController();
  let stoppedBy: Signal | undefined;
  const offSignal = io.onSignal((signal) => {
    stoppedBy = signal;
    stopping.abort();
  });
  try {
    await using backend = await onnxruntime();
    const seconds = await secondsPerStep(backend, models, data);
    const steps = Math.max(20, Math.floor((options.seconds * trainingShare) / seconds));
    note(
      io,
      `steps   ${countText(steps)} for each, about ${clockText((steps * seconds) / trainingShare)} on ${cpus().length} cores\n`,
    );

    const prompt = await heldOutPrompt(data);
    const runs: { readonly name: string; readonly family: Family; readonly run: TrainingRun }[] = [];
    for (const { name, family, model } of models) {
      const run = await train({
        model,
        backend,
        data,
        ...sizes,
        steps,
        optimizer: { learningRate },
        evaluateEvery: Math.max(1, Math.ceil(steps / 8)),
        heldOutBatches: 6,
        signal: stopping.signal,
        metrics: [
          metricsFile(join(folder, family, "metrics.jsonl")),
          progressLine(io.stderr, { totalSteps: steps, name: name.padEnd(11) }),
        ],
      });
      if (stoppedBy !== undefined)
        throw new InterruptedError(stoppedBy, "stopped; nothing was kept of this comparison");
      await run.save(join(folder, family));
      runs.push({ name, family, run });
    }
    printLosses(io, runs);
    for (const { name, run } of runs) {
      const sample = await run.sample(prompt, { maxTokens: 200, temperature: 0.7, signal: stopping.signal });
      printLine(io, `\n${paint(io, io.stdout, "bold", `${name} goes on from ${JSON.stringify(prompt.slice(-40))}`)}`);
      printLine(io, indented(sample));
    }
    const report = join(folder, reportFile);
    await replaceFile(report, await reportOf(runs, data));
    const place = shellWord(shownPath(io, join(folder, "sisa")));
    printLine(
      io,
      `\nreport  ${shownPath(io, report)} (loss curves, lambda and half-life by head; open it in a browser)`,
    );
    printLine(io, `models  ${shownPath(io, join(folder, "sisa"))} and ${shownPath(io, join(folder, "transformer"))}`);
    printNextSteps(io, [
      [`generate ${place} "export interface " --max-tokens 200`, "continue a text of yours"],
      [`inspect ${place}`, "parameters, lambda and half-life by head, bytes of cache"],
      ["train --model.preset sisa --model.size 5m --data.text FOLDER --steps 2000", "a larger model on your text"],
    ]);
  } finally {
    offSignal();
  }
}

/** The folder of @types/node, which the workspace has installed. */
function declarationFiles(): string {
  return dirname(createRequire(import.meta.url).resolve("@types/node/package.json"));
}

/** Seconds that one step of every model takes, together. */
async function secondsPerStep(
  backend: Backend,
  models: readonly { readonly model: LanguageModel }[],
  data: TrainingData,
): Promise<number> {
  let total = 0;
  for (const { model } of models) {
    const settings = resolveSettings({ ...sizes, steps: 2 * timedSteps }, { parameterCount: parameterCount(model) });
    const batches = (step: number, microBatch: number) => trainingBatch(data.training, settings, step, microBatch);
    await using trainer = await Trainer.create({ model, backend, settings, batches, parameters: initialize(model, 0) });
    await trainer.advance(timedSteps);
    const startMs = performance.now();
    await trainer.advance(timedSteps);
    total += (performance.now() - startMs) / 1000 / timedSteps;
  }
  return total;
}

/** The beginning of the held-out text. */
async function heldOutPrompt(data: TrainingData): Promise<string> {
  const ids = await data.heldOut.read(0, Math.min(promptTokens, data.heldOut.length));
  // A character may be cut at the end.
  return data.tokenizer?.decode(ids).replace(/\ufffd+$/, "") ?? "";
}

function printLosses(io: Io, runs: readonly { readonly name: string; readonly run: TrainingRun }[]): void {
  printLine(io, `\n${paint(io, io.stdout, "bold", "Held-out loss")}`);
  const rows = runs.map(({ name, run }) => [
    name,
    countText(parameterCount(run.model)),
    run.heldOutLoss.toFixed(4),
    run.bitsPerByte?.toFixed(3) ?? "-",
    clockText(run.elapsedSeconds),
  ]);
  for (const line of textTable([["", "parameters", "nats a token", "bits a byte", "time"], ...rows]))
    printLine(io, line);
}

async function reportOf(
  runs: readonly { readonly name: string; readonly run: TrainingRun }[],
  data: TrainingData,
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
  const subtitle = `${basename(name) === name ? name : `text of ${name}`}, ${countText(documents)} documents; bytes as tokens`;
  return htmlReport(shown, { title: "SISA beside a Transformer", subtitle });
}

function indented(text: string): string {
  return text
    .split("\n")
    .map((line) => `  ${line}`)
    .join("\n");
}
