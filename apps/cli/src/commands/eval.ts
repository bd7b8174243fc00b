// sisa eval: what a model knows, by tasks.
import { basename, join, resolve } from "node:path";
import { ConfigError, DataError, type Precision, parameterCount } from "@sisa/core";
import {
  arraySource,
  evaluate,
  evaluationReport,
  findTask,
  metricText,
  parameterFingerprint,
  parseTrainingConfig,
  Scorer,
  type TaskResult,
  type TaskSource,
  type TokenSource,
  taskNames,
  tasks,
} from "@sisa/train";
import { evaluationLog, readDocuments, textFiles } from "@sisa/train/node";
import type { Command } from "commander";
import { type BackendOptions, openBackend } from "../backends.ts";
import {
  backendOption,
  type Context,
  command,
  jsonOption,
  numberWithin,
  precisionOption,
  threadsOption,
  wholeNumbers,
  wordList,
} from "../context.ts";
import { openTrainingData } from "../data-source.ts";
import { fileNameOf, itemFile } from "../evaluation-source.ts";
import { InterruptedError } from "../exit-codes.ts";
import { forPeople, type Io, note, printJson, printLine } from "../io.ts";
import { addModelOptions, loadSource, type ModelOptions, type ModelSource } from "../model-source.ts";
import { shownPath } from "../next-steps.ts";
import { configOfRun, replaceFile, reportFile, requireFolder } from "../run-folder.ts";
import { countText } from "../table.ts";

interface Options extends ModelOptions, BackendOptions {
  readonly precision: Precision;
  readonly tasks: readonly string[];
  readonly data: readonly string[];
  readonly text?: string;
  readonly sequenceLength?: number;
  readonly lengths?: readonly number[];
  readonly depths?: number;
  readonly needles?: number;
  readonly limit?: number;
  readonly to?: string;
  readonly json?: boolean;
}

export function evalCommand({ io }: Context): Command {
  const positive = numberWithin({ whole: true, minimum: 1 });
  const created = command("eval", "measure a model by tasks", [
    "sisa eval runs/latest --tasks perplexity",
    "sisa eval my-model --tasks perplexity --text book.txt --sequence-length 512",
    "sisa eval my-model --tasks lambada,hellaswag,hellaswag:harness,piqa --data sets/",
    "sisa eval my-model --tasks niah,niah:grid --lengths 512,1024,2048",
  ])
    .argument("<model>", "model folder, run, checkpoint, .pt file or URL")
    .option("--tasks <names>", "separated by commas; listed below", wordList, ["perplexity"])
    .option("--data <places>", "files of the sets that tasks ask for, or folders with them", wordList, [])
    .option("--text <path>", "perplexity: file or folder (default: the held-out text of the model's run)")
    .option(
      "--sequence-length <tokens>",
      "perplexity: tokens of a window (default: as in the model's run, else 512)",
      positive,
    )
    .option("--lengths <tokens>", "niah:grid: lengths; niah:several, mqar, parity: the length", wholeNumbers)
    .option("--depths <number>", "niah:grid: how many depths", positive)
    .option("--needles <number>", "niah:several: needles in a haystack", positive)
    .option("--limit <number>", "at most so many items, needles in a cell, or tokens of text", positive)
    .option("--to <folder>", "where results go (default: beside the run, else evaluation/MODEL)");
  return addModelOptions(created)
    .addOption(backendOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addOption(jsonOption())
    .addHelpText("after", taskHelp())
    .action(async (place: string, options: Options) => {
      if (options.tasks.length === 0) throw new ConfigError(`--tasks: expected ${taskNames.join(", ")}, got nothing`);
      for (const name of options.tasks) findTask(name);
      const shown = forPeople(io, options.json);
      const source = await loadSource(place, io.cwd, options);
      const folder = resolve(io.cwd, options.to ?? resultFolder(source));
      await requireFolder(folder, "--to");
      await using backend = await openBackend(options);
      const { precision } = options;
      await using scorer = new Scorer({ model: source.model, parameters: source.parameters, backend, precision });
      const stopping = new AbortController();
      const offSignal = io.onSignal((signal) => {
        const howToGoOn = "stopped before the last task was done; the same command goes on from there";
        stopping.abort(new InterruptedError(signal, howToGoOn));
      });
      const model = {
        path: source.path,
        parameters: parameterCount(source.model),
        fingerprint: await parameterFingerprint(source.parameters),
      };
      const results: Record<string, TaskResult> = {};
      try {
        for (const name of options.tasks) {
          const task = await findTask(name).create(taskSource(io, source, options));
          const file = join(folder, fileNameOf(task.name));
          const log = evaluationLog(`${file}.scores.jsonl`);
          try {
            const result = await evaluate(task, scorer, {
              log,
              modelFingerprint: `${model.fingerprint} ${JSON.stringify(source.model.config)}${narrowName(precision)}`,
              onProgress: progressOf(io, task.name),
              signal: stopping.signal,
            });
            results[task.name] = result;
            await replaceFile(`${file}.json`, `${JSON.stringify({ ...result, model }, undefined, 2)}\n`);
          } finally {
            log.close();
          }
          printLine(shown, `${task.name.padEnd(18)} ${resultText(results[task.name])}`);
        }
      } finally {
        offSignal();
      }
      const title = `Evaluation of ${basename(source.run ?? source.path)}`;
      const subtitle = `${source.path}, ${countText(model.parameters)} parameters`;
      await replaceFile(join(folder, reportFile), evaluationReport(Object.values(results), { title, subtitle }));
      printLine(shown, `results ${shownPath(io, folder)}, report ${shownPath(io, join(folder, reportFile))}`);
      if (options.json) printJson(io, { model, folder, results });
    });
}

/** Scores of other widths are other scores. */
const narrowName = (precision: Precision) => (precision === "float32" ? "" : ` ${precision}`);

function taskHelp(): string {
  const lines = Object.entries(tasks).map(([name, { description }]) => `  ${name.padEnd(20)} ${description}`);
  return `\nTasks (a bare name: the paper's protocol, or the project's own; NAME:harness: lm-evaluation-harness's):\n${lines.join("\n")}`;
}

function resultFolder({ run, path }: ModelSource): string {
  return run === undefined ? join("evaluation", basename(path)) : join(run, "evaluation", basename(path));
}

function taskSource(io: Io, source: ModelSource, options: Options): TaskSource {
  const { maximumLength, vocabularySize } = source.model.config;
  const { lengths, depths, needles, limit } = options;
  return {
    tokenizer: source.tokenizer,
    maximumLength,
    vocabularySize,
    items: (set) => itemFile(set, options.data, io.cwd),
    text: () => windowsOf(source, options, io),
    documents: async () => {
      if (options.text === undefined)
        throw new ConfigError("perplexity:harness: expected documents; give --text FILE_OR_FOLDER");
      return await readDocuments(resolve(io.cwd, options.text));
    },
    lengths,
    depths,
    needles,
    limit,
  };
}

function progressOf(io: Io, name: string): (done: number, all: number) => void {
  let shownMs: number | undefined;
  return (done, all) => {
    if (shownMs === undefined && done > 0 && done < all) {
      note(io, `${name}: ${countText(done)} of ${countText(all)} rows were scored before`);
    }
    const nowMs = performance.now();
    const isSoon = shownMs !== undefined && nowMs - shownMs < 200 && done < all;
    shownMs = isSoon ? shownMs : nowMs;
    if (io.stderr.isTTY !== true || isSoon) return;
    io.stderr.write(done < all ? `\r${name}  ${countText(done)} of ${countText(all)}\x1b[K` : "\r\x1b[K");
  };
}

function resultText(result: TaskResult | undefined): string {
  if (result === undefined) return "";
  const metrics = Object.entries(result.metrics).map(([name, metric]) => `${name} ${metricText(name, metric)}`);
  return `${metrics.join(", ")} (${countText(result.items)} items)`;
}

/** The text to measure on: a given one, all of it, or what the model's run held out. */
export async function windowsOf(
  { run, path, tokenizer, model }: ModelSource,
  options: Pick<Options, "text" | "sequenceLength">,
  io: Io,
): Promise<{ tokens: TokenSource; sequenceLength: number }> {
  const { maximumLength, vocabularySize } = model.config;
  const { text, sequenceLength = Math.min(512, maximumLength) } = options;
  if (sequenceLength > maximumLength) {
    throw new ConfigError(
      `--sequence-length: expected at most ${maximumLength}, the positions of the model, got ${sequenceLength}`,
    );
  }
  if (text !== undefined) {
    const { training, heldOut } = await textFiles(resolve(io.cwd, text), tokenizer);
    const parts = await Promise.all([training, heldOut].map((part) => part.read(0, part.length)));
    return { tokens: arraySource(parts.flatMap((part) => [...part])), sequenceLength };
  }
  if (run === undefined) {
    throw new ConfigError(`${path}: is not part of a run, so nothing was held out; give a text: --text FILE_OR_FOLDER`);
  }
  const { data } = parseTrainingConfig(await configOfRun(run));
  const { heldOut, vocabularySize: needed } = await openTrainingData(data, io.cwd);
  if (needed > vocabularySize) {
    throw new DataError(`${run}: its data has ${needed} token ids, the model ${vocabularySize}`);
  }
  note(io, `held-out part of ${data.text ?? data.shards ?? data.synthetic}`);
  return { tokens: heldOut, sequenceLength: options.sequenceLength ?? Math.min(data.sequenceLength, maximumLength) };
}
