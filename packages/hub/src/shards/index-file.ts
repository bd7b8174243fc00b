// index.json of a folder of token shards: what is in it, checked before any of it is believed.

import { DataError } from "@sisa/core";
import { isObject, parseJsonObject } from "../json.ts";

export const indexName = "index.json";
const formatName = "sisa-token-shards";

/** The two parts of a data set, by the names they have in index.json. */
export const splitNames = ["train", "heldOut"] as const;
/** "train" or "heldOut". */
export type SplitName = (typeof splitNames)[number];

/** index.json of a folder of token shards. */
export interface ShardIndex {
  /** What tells the file from others. */
  readonly format: typeof formatName;
  readonly version: 1;
  /** Element type of the shards, little-endian. */
  readonly dtype: "uint16" | "uint32";
  /** What made the ids. */
  readonly tokenizer: {
    /** Every id is below this. */
    readonly size: number;
    /** See `tokenizerFingerprint`; null where the tokenizer is not kept in files. */
    readonly fingerprint: string | null;
  };
  /** Id after every document; null where documents are joined without one. */
  readonly endOfText: number | null;
  /** Tokens to train on and tokens held out. */
  readonly splits: Readonly<Record<SplitName, SplitIndex>>;
  /** How the shards were made, for people. */
  readonly preparation?: Readonly<Record<string, unknown>>;
}

/** The documents of a split, and the files that hold their tokens. */
export interface SplitIndex {
  /** End-of-text ids included. */
  readonly tokens: number;
  /** How many there are. */
  readonly documents: number;
  /** Bytes of the documents' text in UTF-8, for losses in bits per byte. */
  readonly bytes: number;
  /** One after the other they are the split. */
  readonly shards: readonly ShardFile[];
}

/** One file of token ids. */
export interface ShardFile {
  /** Its name in the folder. */
  readonly file: string;
  /** Ids in it. */
  readonly tokens: number;
  /** CRC-32 of the file, eight hexadecimal digits. */
  readonly crc32: string;
}

export function makeIndex(fields: Omit<ShardIndex, "format" | "version">): ShardIndex {
  return { format: formatName, version: 1, ...fields };
}

/** @throws DataError where the file is not an index that this version knows */
export function parseIndex(bytes: Uint8Array, location: string): ShardIndex {
  const fail = (problem: string): never => {
    throw new DataError(`${location}: ${problem}; prepare the data again`);
  };
  const json = parseJsonObject(bytes, location);
  if (json.format !== formatName) return fail(`expected format "${formatName}", got ${JSON.stringify(json.format)}`);
  if (json.version !== 1) return fail(`expected version 1, got ${JSON.stringify(json.version)}`);
  const { dtype, tokenizer, endOfText, splits, preparation } = json;
  if (dtype !== "uint16" && dtype !== "uint32")
    return fail(`dtype must be uint16 or uint32, got ${JSON.stringify(dtype)}`);
  if (!isObject(tokenizer) || !isCount(tokenizer.size)) return fail("tokenizer.size is missing");
  const { size, fingerprint } = tokenizer;
  if (typeof fingerprint !== "string" && fingerprint !== null) return fail("tokenizer.fingerprint is missing");
  if (endOfText !== null && !isCount(endOfText)) return fail("endOfText must be an id or null");
  if (!isObject(splits)) return fail("splits are missing");
  return makeIndex({
    dtype,
    tokenizer: { size, fingerprint },
    endOfText,
    splits: { train: parseSplit(splits.train, "train", fail), heldOut: parseSplit(splits.heldOut, "heldOut", fail) },
    ...(isObject(preparation) ? { preparation } : {}),
  });
}

function parseSplit(json: unknown, name: SplitName, fail: (problem: string) => never): SplitIndex {
  if (!isObject(json) || !Array.isArray(json.shards)) return fail(`splits.${name} is missing`);
  const { tokens, documents, bytes } = json;
  if (!isCount(tokens) || !isCount(documents) || !isCount(bytes)) return fail(`splits.${name} lacks its counts`);
  const shards = json.shards.map((shard: unknown): ShardFile => {
    const { file, tokens: shardTokens, crc32 } = isObject(shard) ? shard : {};
    if (
      typeof file !== "string" ||
      !isCount(shardTokens) ||
      typeof crc32 !== "string" ||
      !/^[0-9a-f]{8}$/.test(crc32)
    ) {
      return fail(`splits.${name}.shards lists something that is not a shard`);
    }
    return { file, tokens: shardTokens, crc32 };
  });
  const total = shards.reduce((sum, shard) => sum + shard.tokens, 0);
  if (total !== tokens) return fail(`splits.${name} has ${tokens} tokens, its shards ${total}`);
  return { tokens, documents, bytes, shards };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
