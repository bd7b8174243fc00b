// sisa prepare: text files to token shards.
import { readdir, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import { DataError } from "@sisa/core";
import { type PrepareOptions, type PrepareProgress, prepare } from "@sisa/hub/node";
import { type Command, Option } from "commander";
import { type Context, command, jsonOption, numberWithin } from "../context.ts";
import { InterruptedError } from "../exit-codes.ts";
import { forPeople, type Io, note, printJson, printLine } from "../io.ts";
import { openTokenizer } from "../model-source.ts";
import { printNextSteps, shellWord, shownPath } from "../next-steps.ts";
import { clockText, countOf, countText, shortNumber } from "../table.ts";

interface Options {
  readonly tokenizer: string;
  readonly to: string;
  readonly field?: string;
  readonly heldOut?: number;
  readonly seed?: number;
  readonly invalidText: "refuse" | "skip";
  readonly shardTokens?: number;
  readonly threads?: number;
  readonly json?: boolean;
}

/** Tokens of held-out text that a loss can be measured on: one that is read, and one that follows. */
const leastHeldOut = 2;

/** What of a folder is taken. */
const textFile = /\.(txt|md|jsonl|ndjson)(\.gz|\.zst)?$|\.parquet$/;

export function prepareCommand({ io }: Context): Command {
  const whole = (minimum: number) => numberWithin({ whole: true, minimum });
  return command("prepare", "turn text files into token shards, in parallel and in bounded memory", [
    "sisa prepare corpus/*.parquet --tokenizer tokenizer.json --to data/",
    "sisa prepare books/ wiki.jsonl.zst --tokenizer byte --to data/ --held-out 0.01",
  ])
    .argument("<paths...>", "files .txt, .md, .jsonl or .ndjson (plain, .gz or .zst), .parquet, or folders of them")
    .requiredOption("--to <folder>", "where the shards go: a folder that does not exist yet, or is empty")
    .option("--tokenizer <file>", '"byte", "gpt-neox" (fetched), a tokenizer.json, or the URL of its folder', "byte")
    .option("--field <name>", 'field of JSON lines or column of Parquet that holds the text (default: "text")')
    .option(
      "--held-out <part>",
      "part of the documents that is held out (default: 0.005); of a single document its end (default: 0.05)",
      numberWithin({ minimum: 0, maximum: 0.99 }),
    )
    .option("--seed <number>", "other seeds hold out other documents (default: 0)", whole(0))
    .addOption(
      new Option("--invalid-text <action>", "what to do with text that is not UTF-8")
        .choices(["refuse", "skip"])
        .default("refuse"),
    )
    .option("--shard-tokens <number>", "tokens of a full shard (default: 16,777,216)", whole(1))
    .option("--threads <number>", `threads; 0 works in the main one (default: ${availableParallelism()})`, whole(0))
    .addOption(jsonOption())
    .action(async (paths: readonly string[], options: Options) => {
      const shown = forPeople(io, options.json);
      const tokenizer = await openTokenizer(options.tokenizer, io.cwd);
      const files = (await Promise.all(paths.map((path) => filesOf(resolve(io.cwd, path))))).flat();
      const to = resolve(io.cwd, options.to);
      const stopping = new AbortController();
      const offSignal = io.onSignal((signal) => {
        stopping.abort(new InterruptedError(signal, "stopped; nothing was written"));
      });
      const request: PrepareOptions = {
        files,
        tokenizer,
        to,
        invalidText: options.invalidText,
        onProgress: progressBar(io),
        signal: stopping.signal,
        ...(options.field === undefined ? {} : { textField: options.field }),
        ...(options.heldOut === undefined ? {} : { heldOutFraction: options.heldOut }),
        ...(options.seed === undefined ? {} : { seed: options.seed }),
        ...(options.shardTokens === undefined ? {} : { shardTokens: options.shardTokens }),
        ...(options.threads === undefined ? {} : { threads: options.threads }),
      };
      try {
        const { index, split, skippedDocuments, emptyDocuments, elapsedSeconds } = await prepare(request);
        const { train, heldOut } = index.splits;
        for (const [name, part] of Object.entries({ train, "held out": heldOut })) {
          const perToken = part.tokens === 0 ? "" : `, ${shortNumber(part.bytes / part.tokens)} bytes a token`;
          const counts = `${countOf(part.tokens, "token")} of ${countOf(part.documents, "document")}`;
          printLine(shown, `${name.padEnd(9)} ${counts}${perToken}`);
        }
        if (split === "contiguous") printLine(shown, "          of a single document, whose end is held out");
        if (skippedDocuments > 0) printLine(shown, `skipped   ${countOf(skippedDocuments, "document")} not in UTF-8`);
        const folder = shellWord(shownPath(io, to));
        if (heldOut.tokens < leastHeldOut) {
          note(
            io,
            "Nothing is held out, and training measures its loss there: prepare with a larger --held-out to train.",
          );
        } else {
          printNextSteps(shown, [
            [`train --data.shards ${folder} --model.preset sisa --model.size 5m --steps 1000`, "train on the shards"],
          ]);
        }
        if (options.json) {
          const counts = ({ tokens, documents, bytes }: typeof train) => ({ tokens, documents, bytes });
          const result = { to, train: counts(train), heldOut: counts(heldOut) };
          printJson(io, { ...result, split, skippedDocuments, emptyDocuments, elapsedSeconds });
        }
      } finally {
        offSignal();
      }
    });
}

/** A file as it is, of a folder all files with text, in the order of their names. */
async function filesOf(path: string): Promise<string[]> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) return [path];
  const names = (await readdir(path, { recursive: true })).filter((name) => textFile.test(name)).sort();
  if (names.length === 0) {
    throw new DataError(`${path}: holds no .txt, .md, .jsonl or .ndjson (plain, .gz or .zst), and no .parquet`);
  }
  return names.map((name) => join(path, name));
}

/** One line that is written again and again on a terminal; elsewhere one every ten seconds. */
function progressBar(io: Io): (progress: PrepareProgress) => void {
  const isTerminal = io.stderr.isTTY === true;
  let shownAt = Number.NEGATIVE_INFINITY;
  return ({ bytesDone, bytesTotal, tokens, tokensPerSecond, elapsedSeconds, remainingSeconds }) => {
    const done = bytesDone >= bytesTotal;
    if (elapsedSeconds - shownAt < (isTerminal ? 0.1 : 10) && !done) return;
    shownAt = elapsedSeconds;
    const share = bytesTotal === 0 ? 1 : bytesDone / bytesTotal;
    const filled = Math.floor(20 * share);
    const bar = `${"#".repeat(filled)}${"-".repeat(20 - filled)}`;
    const left = remainingSeconds === undefined ? "" : `  left ${clockText(remainingSeconds)}`;
    const speed = `${countText(Math.round(tokensPerSecond))} tokens/s`;
    const line = `[${bar}] ${(100 * share).toFixed(0)} %  ${countText(tokens)} tokens  ${speed}${left}`;
    if (isTerminal) io.stderr.write(`\r${line}\x1b[K${done ? "\n" : ""}`);
    else note(io, line);
  };
}
