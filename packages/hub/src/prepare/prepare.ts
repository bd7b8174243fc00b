// Text files to token shards: `sisa prepare`. Files are read and cut here, tokenized by worker threads, and written here
// in their order, so that the result does not depend on the number of threads.

import { randomBytes } from "node:crypto";
import { readdir, rmdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { ConfigError, DataError } from "@sisa/core";
import type { ShardIndex } from "../shards/index-file.ts";
import { tokenShardWriter } from "../shards/write-shards.ts";
import { directory } from "../storage/directory-storage.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { inOrder } from "./in-order.ts";
import { checkFiles, type InputFile, listTasks, type PlacedTask } from "./list-tasks.ts";
import type { TaskSettings } from "./task.ts";
import { builtWorker, runInThisThread, runInThreads, type TaskRunner } from "./workers.ts";

/** Which files become which shards, and how. */
export interface PrepareOptions {
  /** Paths of .txt, .md, .jsonl or .ndjson (plain, .gz or .zst) and .parquet files, in the order they shall have. */
  readonly files: readonly string[];
  /** Must come with its files, as those of `byteTokenizer` and `loadTokenizer` do, and have an end-of-text token. */
  readonly tokenizer: Tokenizer;
  /** Folder for the shards; it must not exist yet, or be empty. */
  readonly to: string;
  /** Field of JSON lines or column of Parquet with the text; default "text". */
  readonly textField?: string;
  /**
   * Part of the documents that is held out, chosen by a hash of their text; default 0.005, 0 for none. Of a single
   * document it is the end, and this part of its bytes; default 0.05 then.
   */
  readonly heldOutFraction?: number;
  /** Other seeds hold out other documents; default 0. */
  readonly seed?: number;
  /** What to do with text that is not UTF-8: `refuse` (default) ends with file and byte, `skip` leaves it out. */
  readonly invalidText?: "refuse" | "skip";
  /** Tokens of a full shard; default 2^24. */
  readonly shardTokens?: number;
  /** Worker threads; 0 works in this thread. Default: one for each core, 0 where the package runs from its sources. */
  readonly threads?: number;
  /** Called after each piece of work, many times a second. Default: nobody is told. */
  readonly onProgress?: (progress: PrepareProgress) => void;
  /** Aborted, the preparation ends with the signal's reason, and nothing is left behind. Default none. */
  readonly signal?: AbortSignal;
}

/** How far it has come. */
export interface PrepareProgress {
  /** Of the files as they are on disk. */
  readonly bytesDone: number;
  /** Of all files as they are on disk. */
  readonly bytesTotal: number;
  /** Documents so far, those left out not counted. */
  readonly documents: number;
  /** Tokens so far, end-of-text ids included. */
  readonly tokens: number;
  /** Since the beginning. */
  readonly elapsedSeconds: number;
  /** Average so far. */
  readonly tokensPerSecond: number;
  /** At the average speed so far; undefined before there is one. */
  readonly remainingSeconds: number | undefined;
}

/** What was written and what was left out. */
export interface PrepareResult {
  /** As in index.json of the folder. */
  readonly index: ShardIndex;
  /** Whether whole documents are held out, or the end of a single one. */
  readonly split: "documents" | "contiguous";
  /** Documents left out because they are not UTF-8. */
  readonly skippedDocuments: number;
  /** Documents left out because they have no text. */
  readonly emptyDocuments: number;
  /** From the beginning to the last byte. */
  readonly elapsedSeconds: number;
}

const defaultHeldOutFraction = 0.005;
/** Of a single document: what would be little of many is nothing to measure on of one. */
const defaultHeldOutTail = 0.05;

/**
 * Tokenizes text files into shards. The folder appears when all of it is written; the same files, tokenizer and options
 * give the same bytes, with any number of threads.
 * Where no document's hash falls into the held-out part, the one with the smallest hash is held out. Where whole
 * documents leave one side empty, as a single one does, the end of each is cut off and held out.
 *
 * @throws ConfigError for an option that cannot be
 * @throws DataError for a tokenizer without files or end of text, where files are missing, damaged, not UTF-8 or empty,
 *   where the folder exists, or where there is but one character to train on and to hold out; nothing is left behind
 *   then
 * @throws StorageError where the disk is full
 */
export async function prepare(options: PrepareOptions): Promise<PrepareResult> {
  return await prepareWith(options, builtWorker);
}

/** `prepare` with the program of the worker threads, or undefined where there is none. */
export async function prepareWith(options: PrepareOptions, workerProgram: URL | undefined): Promise<PrepareResult> {
  const {
    tokenizer,
    seed = 0,
    heldOutFraction = defaultHeldOutFraction,
    threads = defaultThreads(workerProgram),
  } = options;
  if (!(heldOutFraction >= 0 && heldOutFraction < 1)) {
    throw new ConfigError(`heldOutFraction: expected a number >= 0 and < 1, got ${heldOutFraction}`);
  }
  if (!Number.isSafeInteger(seed)) throw new ConfigError(`seed: expected a whole number, got ${seed}`);
  if (!Number.isSafeInteger(threads) || threads < 0 || (threads > 0 && workerProgram === undefined)) {
    throw new ConfigError(`threads: expected a whole number >= 0, and 0 where the package runs from its sources`);
  }
  if (tokenizer.files === undefined) {
    throw new DataError(
      "prepare: expected a tokenizer with its files, such as byteTokenizer() or one from loadTokenizer",
    );
  }
  const { endOfText } = tokenizer;
  if (endOfText === undefined) {
    throw new DataError(
      "prepare: the tokenizer has no end-of-text token; name one as eos_token in tokenizer_config.json",
    );
  }
  const settings = {
    tokenizerFiles: tokenizer.files,
    endOfText,
    textField: options.textField ?? "text",
    seed,
    invalidText: options.invalidText ?? "refuse",
  };
  const files = await checkFiles(options.files);
  const target = resolve(options.to);
  await checkTarget(target);

  const parent = directory(dirname(target));
  const draft = `.${basename(target)}.${randomBytes(6).toString("hex")}.draft`;
  const attempt = async (heldOutBelow: number, heldOutTail = 0): Promise<Written> => {
    const taskSettings: TaskSettings = { ...settings, heldOutBelow, heldOutTail };
    const runner =
      threads === 0 || workerProgram === undefined
        ? runInThisThread(taskSettings)
        : runInThreads(taskSettings, threads, workerProgram);
    try {
      return await writeShards(options, taskSettings, files, join(parent.location, draft), runner, 2 * (threads || 1));
    } finally {
      await runner.close();
    }
  };
  try {
    let written = await attempt(heldOutFraction * 2 ** 32);
    const { train, heldOut } = written.index.splits;
    if (heldOutFraction > 0 && heldOut.documents === 0 && train.documents > 1) {
      // Chance left all of a few documents in training. Once more, with the first in line held out.
      await parent.remove(draft);
      written = await attempt(written.smallestHash + 1);
    }
    if (heldOutFraction > 0 && isOneSided(written.index)) {
      // One document, or copies of one.
      await parent.remove(draft);
      written = await attempt(0, options.heldOutFraction ?? defaultHeldOutTail);
    }
    if (heldOutFraction > 0 && isOneSided(written.index)) {
      throw new DataError(
        "prepare: expected text to train on and to hold out, got one character; " +
          "add text, or hold none out: heldOutFraction 0, which is --held-out 0 of the command",
      );
    }
    // Not every system renames onto an empty folder.
    await rmdir(target).catch(() => {});
    await parent.rename(draft, basename(target));
    return written;
  } finally {
    await parent.remove(draft);
  }
}

interface Written extends PrepareResult {
  readonly smallestHash: number;
}

async function writeShards(
  options: PrepareOptions,
  settings: TaskSettings,
  files: readonly InputFile[],
  folder: string,
  runner: TaskRunner,
  ahead: number,
): Promise<Written> {
  const { tokenizer, onProgress, signal, shardTokens } = options;
  const { textField, seed } = settings;
  const writer = tokenShardWriter(directory(folder), {
    tokenizer,
    ...(shardTokens === undefined ? {} : { shardTokens }),
  });
  const progress = new Progress(files);
  let smallestHash = 2 ** 32;
  let skippedDocuments = 0;
  let emptyDocuments = 0;
  const results = inOrder(listTasks(files, textField), ahead, ({ task }) => runner.run(task));
  for await (const [placed, result] of results) {
    signal?.throwIfAborted();
    const { train, heldOut } = result.splits;
    await writer.append("train", train.ids, train);
    await writer.append("heldOut", heldOut.ids, heldOut);
    smallestHash = Math.min(smallestHash, result.smallestHash);
    skippedDocuments += result.skipped;
    emptyDocuments += result.empty;
    onProgress?.(progress.advance(placed, train.documents + heldOut.documents, writer.tokens));
  }
  const split = settings.heldOutTail > 0 ? "contiguous" : "documents";
  const index = await writer.finish({
    files: files.map(({ path, bytes }) => ({ name: basename(path), bytes })),
    textField,
    heldOutFraction: settings.heldOutTail || (options.heldOutFraction ?? defaultHeldOutFraction),
    split,
    seed,
    skippedDocuments,
    emptyDocuments,
  });
  return { index, split, smallestHash, skippedDocuments, emptyDocuments, elapsedSeconds: progress.elapsedSeconds };
}

function defaultThreads(program: URL | undefined): number {
  return program === undefined ? 0 : availableParallelism();
}

async function checkTarget(path: string): Promise<void> {
  const found = await readdir(path).catch((error: unknown) => {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    return isMissing ? [] : undefined;
  });
  if (found === undefined) throw new DataError(`${path}: expected a new or empty folder, got a file`);
  if (found.length > 0) {
    throw new DataError(`${path}: expected a new or empty folder, it has ${found.length} entries; name another`);
  }
}

function isOneSided({ splits: { train, heldOut } }: ShardIndex): boolean {
  return train.tokens === 0 || heldOut.tokens === 0;
}

class Progress {
  readonly #startMs = performance.now();
  readonly #bytesTotal: number;
  #bytesInEarlierFiles = 0;
  #file: InputFile | undefined;
  #documents = 0;

  constructor(files: readonly InputFile[]) {
    this.#bytesTotal = files.reduce((sum, file) => sum + file.bytes, 0);
  }

  get elapsedSeconds(): number {
    return (performance.now() - this.#startMs) / 1000;
  }

  advance({ file, positionInFile }: PlacedTask, documents: number, tokens: number): PrepareProgress {
    if (file !== this.#file) {
      this.#bytesInEarlierFiles += this.#file?.bytes ?? 0;
      this.#file = file;
    }
    this.#documents += documents;
    const { elapsedSeconds } = this;
    const bytesDone = this.#bytesInEarlierFiles + positionInFile;
    const remaining = (elapsedSeconds * (this.#bytesTotal - bytesDone)) / bytesDone;
    return {
      bytesDone,
      bytesTotal: this.#bytesTotal,
      documents: this.#documents,
      tokens,
      elapsedSeconds,
      tokensPerSecond: elapsedSeconds > 0 ? tokens / elapsedSeconds : 0,
      remainingSeconds: bytesDone > 0 ? remaining : undefined,
    };
  }
}
