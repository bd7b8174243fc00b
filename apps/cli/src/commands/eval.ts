// sisa eval: what a model knows, by tasks.
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { CheckpointError, ConfigError, DataError } from "@sisa/core";
import { arraySource, parseTrainingConfig, type TokenSource } from "@sisa/train";
import { textFiles } from "@sisa/train/node";
import type { Command } from "commander";
import { openBackend } from "../backends.ts";
import { backendOption, type Context, command, jsonOption, numberWithin, wordList } from "../context.ts";
import { openTrainingData } from "../data-source.ts";
import { lastWordItems, scoreLastWords } from "../eval/lambada.ts";
import { needleItems, scoreNeedles } from "../eval/niah.ts";
import { measurePerplexity } from "../eval/perplexity.ts";
import { Scorer } from "../eval/scorer.ts";
import { InterruptedError } from "../exit-codes.ts";
import { type Io, note, printLine } from "../io.ts";
import { addModelOptions, loadSource, type ModelOptions, type ModelSource } from "../model-source.ts";
import { runFile } from "../run-folder.ts";
import { countText } from "../table.ts";

interface Options extends ModelOptions {
  readonly tasks: readonly string[];
  readonly text?: string;
  readonly lambada?: string;
  readonly sequenceLength?: number;
  readonly limit?: number;
  readonly backend: string;
  readonly json?: boolean;
}

type Result = Readonly<Record<string, number>>;

interface TaskContext {
  readonly io: Io;
  readonly source: ModelSource;
  readonly scorer: Scorer;
  readonly options: Options;
  /** Shows how far a task is; throws where the user wants to leave. */
  readonly progress: (done: number, all: number) => void;
}

const tasks: Readonly<Record<string, (context: TaskContext) => Promise<Result>>> = { perplexity, lambada, niah };

export function evalCommand({ io }: Context): Command {
  const names = Object.keys(tasks);
  const created = command("eval", `measure a model: ${names.join(", ")}`, [
    "sisa eval runs/latest --tasks perplexity",
    "sisa eval my-model --tasks perplexity --text book.txt --sequence-length 512",
    "sisa eval my-model --tasks lambada,niah --lambada lambada_test.jsonl",
  ])
    .argument("<model>", "model folder, run, checkpoint, .pt file or URL")
    .option("--tasks <names>", `separated by commas: ${names.join(", ")}`, wordList, ["perplexity"])
    .option("--text <path>", "perplexity: file or folder (default: the held-out text of the model's run)")
    .option("--lambada <file>", 'lambada: the passages, a JSON object {"text": ...} a line')
    .option(
      "--sequence-length <tokens>",
      "perplexity: tokens of a window (default: as in the model's run, else 512)",
      numberWithin({ whole: true, minimum: 1 }),
    )
    .option("--limit <number>", "at most so many items, or tokens of text", numberWithin({ whole: true, minimum: 1 }));
  return addModelOptions(created)
    .addOption(backendOption())
    .addOption(jsonOption())
    .action(async (place: string, options: Options) => {
      const chosen = options.tasks.map((name) => {
        const run = Object.hasOwn(tasks, name) ? tasks[name] : undefined;
        if (run === undefined) throw new ConfigError(`--tasks: expected ${names.join(", ")}, got "${name}"`);
        return [name, run] as const;
      });
      if (chosen.length === 0) throw new ConfigError(`--tasks: expected ${names.join(", ")}, got nothing`);
      if (options.tasks.includes("lambada") && options.lambada === undefined) {
        throw new ConfigError("--tasks lambada needs the passages; give the file: --lambada lambada_test.jsonl");
      }
      const source = await loadSource(place, io.cwd, options);
      await using backend = await openBackend(options.backend);
      await using scorer = new Scorer({ model: source.model, parameters: source.parameters, backend });
      let interruption: InterruptedError | undefined;
      const offSignal = io.onSignal((signal) => {
        interruption = new InterruptedError(signal, "stopped before the last task was done");
      });
      const results: Record<string, Result> = {};
      try {
        for (const [name, run] of chosen) {
          const progress = progressOf(io, name, () => interruption);
          results[name] = await run({ io, source, scorer, options, progress });
          printLine(io, `${name.padEnd(11)} ${resultText(results[name])}`);
        }
      } finally {
        offSignal();
      }
      if (options.json) printLine(io, JSON.stringify({ model: source.path, ...results }));
    });
}

function progressOf(
  io: Io,
  name: string,
  interruption: () => InterruptedError | undefined,
): (done: number, all: number) => void {
  let shownMs = performance.now();
  return (done, all) => {
    const stop = interruption();
    if (stop !== undefined) throw stop;
    const nowMs = performance.now();
    if (io.stderr.isTTY !== true || (nowMs - shownMs < 200 && done < all)) return;
    shownMs = nowMs;
    io.stderr.write(done < all ? `\r${name}  ${countText(done)} of ${countText(all)}\x1b[K` : "\r\x1b[K");
  };
}

function resultText(result: Result): string {
  const { accuracy, correct, items, loss, perplexity: value, bitsPerByte, tokens } = result;
  if (accuracy !== undefined) return `${(100 * accuracy).toFixed(2)} % (${correct} of ${items})`;
  const bits = bitsPerByte === undefined ? "" : `, ${bitsPerByte.toFixed(4)} bits a byte`;
  return `${loss?.toFixed(4)} nats a token${bits}, perplexity ${value?.toFixed(3)}, over ${countText(tokens ?? 0)} tokens`;
}

async function perplexity({ io, source, scorer, options, progress }: TaskContext): Promise<Result> {
  const { tokenizer, model } = source;
  const text = await textOf(source, options, io);
  const sequenceLength = options.sequenceLength ?? text.sequenceLength ?? Math.min(512, model.config.maximumLength);
  if (sequenceLength > model.config.maximumLength) {
    throw new ConfigError(
      `--sequence-length: expected at most ${model.config.maximumLength}, the positions of the model, got ${sequenceLength}`,
    );
  }
  const measured = await measurePerplexity(scorer, text.tokens, tokenizer, {
    sequenceLength,
    onTokens: progress,
    ...(options.limit === undefined ? {} : { mostTokens: options.limit }),
  });
  return { ...measured, sequenceLength };
}

/** The text to measure on: a given one, all of it, or what the model's run held out. */
async function textOf(
  { run, path, tokenizer, model }: ModelSource,
  options: Options,
  io: Io,
): Promise<{ tokens: TokenSource; sequenceLength?: number }> {
  if (options.text !== undefined) {
    const { training, heldOut } = await textFiles(resolve(io.cwd, options.text), tokenizer);
    const parts = await Promise.all([training, heldOut].map((part) => part.read(0, part.length)));
    return { tokens: arraySource(parts.flatMap((part) => [...part])) };
  }
  if (run === undefined) {
    throw new ConfigError(`${path}: is not part of a run, so nothing was held out; give a text: --text FILE_OR_FOLDER`);
  }
  const { data } = parseTrainingConfig(await configOfRun(run));
  const { heldOut, vocabularySize } = await openTrainingData(data, io.cwd);
  if (vocabularySize > model.config.vocabularySize) {
    throw new DataError(`${run}: its data has ${vocabularySize} token ids, the model ${model.config.vocabularySize}`);
  }
  note(io, `held-out part of ${data.text ?? data.shards}`);
  return { tokens: heldOut, sequenceLength: Math.min(data.sequenceLength, model.config.maximumLength) };
}

async function configOfRun(run: string): Promise<unknown> {
  const path = join(run, runFile);
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    if (typeof value === "object" && value !== null && "config" in value) return value.config;
  } catch (cause) {
    throw new CheckpointError(`${path}: cannot be read: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  throw new CheckpointError(`${path}: expected the configuration of a run`);
}

async function lambada({ io, source, scorer, options, progress }: TaskContext): Promise<Result> {
  const path = resolve(io.cwd, options.lambada ?? "");
  const jsonl = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new DataError(`${path}: cannot be read: ${cause instanceof Error ? cause.message : cause}`, { cause });
  });
  const { maximumLength } = source.model.config;
  const items = lastWordItems(jsonl, source.tokenizer, maximumLength, path).slice(0, options.limit);
  if (items.length === 0) throw new DataError(`${path}: holds no passages`);
  const correct = await scoreLastWords(scorer, items, (done) => progress(done, items.length));
  return { items: items.length, correct, accuracy: correct / items.length };
}

async function niah({ source, scorer, options, progress }: TaskContext): Promise<Result> {
  const items = needleItems(source.tokenizer).slice(0, options.limit);
  const longest = Math.max(...items.map(({ ids }) => ids.length));
  const { maximumLength } = source.model.config;
  if (longest > maximumLength) {
    throw new ConfigError(`niah: needs ${longest} positions, the model has ${maximumLength}`);
  }
  const correct = await scoreNeedles(scorer, items, (done) => progress(done, items.length));
  return { items: items.length, correct, accuracy: correct / items.length };
}
