// Reading token shards at any position, without holding more than what was asked for.

import { CheckpointError, DataError } from "@sisa/core";
import { crc32, hex32 } from "../crc32.ts";
import { jsonBytes } from "../json.ts";
import { readBytes, type Storage } from "../storage/storage.ts";
import { loadTokenizer } from "../tokenizers/json-tokenizer.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { indexName, parseIndex, type ShardFile, type ShardIndex, type SplitIndex, splitNames } from "./index-file.ts";

/** One part of the data: its documents as one long row of ids, each document followed by the end of text. */
export interface TokenSplit {
  /** Number of tokens. */
  readonly length: number;
  /** How many documents the tokens are of. */
  readonly documents: number;
  /** Bytes of the documents' text in UTF-8. */
  readonly bytes: number;
  /**
   * `count` ids from position `start` on.
   * @throws DataError where they do not lie in the split, or the shard is damaged; StorageError where it cannot be read
   */
  read(start: number, count: number): Promise<Int32Array>;
}

/** A folder of token shards. Files are opened for as long as a read takes: there may be more than a process may open. */
export interface TokenShards {
  /** Where the folder is, for messages. */
  readonly location: string;
  /** As in its index.json. */
  readonly index: ShardIndex;
  /** Tokens to train on. */
  readonly train: TokenSplit;
  /** Tokens held out. */
  readonly heldOut: TokenSplit;
  /** Differs where the tokens differ. */
  readonly fingerprint: string;
  /** The tokenizer that made the ids. @throws CheckpointError where it is not kept beside them */
  tokenizer(): Promise<Tokenizer>;
  /** Compares every shard with its checksum. @throws DataError naming the first that differs */
  verify(): Promise<void>;
}

const verifiedBytes = 4 * 1024 * 1024;

/**
 * Opens a folder of token shards. Files and their sizes are checked here, a shard's checksum before its first ids are
 * given out: one pass over it, in pieces of 4 MiB, then never again.
 * @throws DataError where there are none, or where files are missing or cut short; StorageError where one cannot be
 *   read
 */
export async function openTokenShards(storage: Storage): Promise<TokenShards> {
  const location = storage.location;
  if ((await storage.size(indexName)) === undefined) {
    throw new DataError(
      `${location}: expected token shards, as \`sisa prepare\` writes them; there is no ${indexName}`,
    );
  }
  const index = await readIndex(storage);
  const width = index.dtype === "uint16" ? 2 : 4;
  for (const name of splitNames) {
    for (const { file, tokens } of index.splits[name].shards) {
      const size = await storage.size(file);
      if (size !== tokens * width) {
        const found = size === undefined ? "is missing" : `has ${size} bytes`;
        throw new DataError(
          `${location}: expected ${file} of ${tokens * width} bytes, it ${found}; prepare the data again`,
        );
      }
    }
  }
  const reader = (split: SplitIndex): TokenSplit => splitReader(split, index, storage);
  return {
    location,
    index,
    train: reader(index.splits.train),
    heldOut: reader(index.splits.heldOut),
    fingerprint: hex32(crc32(jsonBytes(index.splits))),
    tokenizer: () => loadTokenizer(storage),
    async verify() {
      for (const name of splitNames) {
        for (const shard of index.splits[name].shards) await verifyShard(storage, shard);
      }
    },
  };
}

async function readIndex(storage: Storage): Promise<ShardIndex> {
  try {
    return parseIndex(await readBytes(storage, indexName), `${storage.location}/${indexName}`);
  } catch (error) {
    // Data are not a checkpoint; the JSON reader cannot know.
    if (CheckpointError.isInstance(error)) throw new DataError(error.message, { cause: error });
    throw error;
  }
}

function splitReader(split: SplitIndex, index: ShardIndex, storage: Storage): TokenSplit {
  const { location } = storage;
  const verified = new Map<ShardFile, Promise<void>>();
  const verifiedOnce = (shard: ShardFile): Promise<void> => {
    const known = verified.get(shard) ?? verifyShard(storage, shard);
    verified.set(shard, known);
    // What could not be read may be read another time.
    known.catch(() => verified.delete(shard));
    return known;
  };
  const starts: number[] = [];
  let end = 0;
  for (const { tokens } of split.shards) {
    starts.push(end);
    end += tokens;
  }
  return {
    length: split.tokens,
    documents: split.documents,
    bytes: split.bytes,
    async read(start, count) {
      if (!(Number.isSafeInteger(start) && Number.isSafeInteger(count) && start >= 0 && count >= 0)) {
        throw new DataError(`${location}: expected whole numbers >= 0, got start ${start} and count ${count}`);
      }
      if (start + count > split.tokens) {
        throw new DataError(
          `${location}: tokens ${start} to ${start + count} were asked for, there are ${split.tokens}`,
        );
      }
      const ids = new Int32Array(count);
      for (let at = start; at < start + count; ) {
        const position = shardAt(starts, at);
        const shard = split.shards[position];
        const shardStart = starts[position];
        if (shard === undefined || shardStart === undefined) break;
        const stop = Math.min(start + count, shardStart + shard.tokens);
        await verifiedOnce(shard);
        const part = await readIds(storage, shard.file, index.dtype, at - shardStart, stop - shardStart);
        copyIds(part, ids, at - start, index.tokenizer.size, `${location}: ${shard.file}`);
        at = stop;
      }
      return ids;
    },
  };
}

/** Position of the last shard that starts at or before a token; empty shards are passed over. */
function shardAt(starts: readonly number[], token: number): number {
  let low = 0;
  let high = starts.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((starts[middle] ?? 0) <= token) low = middle;
    else high = middle;
  }
  return low;
}

async function readIds(
  storage: Storage,
  name: string,
  dtype: ShardIndex["dtype"],
  start: number,
  end: number,
): Promise<Uint16Array | Uint32Array> {
  const width = dtype === "uint16" ? 2 : 4;
  await using file = await storage.open(name);
  const { buffer } = await file.read(start * width, end * width);
  return dtype === "uint16" ? new Uint16Array(buffer) : new Uint32Array(buffer);
}

/** A damaged id would read outside the embedding, so each is checked. */
function copyIds(from: Uint16Array | Uint32Array, to: Int32Array, at: number, size: number, label: string): void {
  for (let index = 0; index < from.length; index++) {
    const id = from[index] ?? 0;
    if (id >= size) {
      throw new DataError(`${label} is damaged: it holds id ${id}, the tokenizer has ${size}; prepare the data again`);
    }
    to[at + index] = id;
  }
}

async function verifyShard(storage: Storage, shard: ShardFile): Promise<void> {
  await using file = await storage.open(shard.file);
  let sum = 0;
  for (let start = 0; start < file.size; start += verifiedBytes) {
    sum = crc32(await file.read(start, Math.min(start + verifiedBytes, file.size)), sum);
  }
  if (hex32(sum) !== shard.crc32) {
    throw new DataError(`${storage.location}: ${shard.file} does not match its checksum; prepare the data again`);
  }
}
