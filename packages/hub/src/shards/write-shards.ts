// Writing token shards. A shard is collected in memory and written whole, so memory is bounded by two shards.

import { ConfigError, DataError } from "@sisa/core";
import { crc32, hex32 } from "../crc32.ts";
import { jsonBytes } from "../json.ts";
import type { Storage } from "../storage/storage.ts";
import { type Tokenizer, tokenizerFingerprint } from "../tokenizers/tokenizer.ts";
import {
  indexName,
  makeIndex,
  type ShardFile,
  type ShardIndex,
  type SplitIndex,
  type SplitName,
} from "./index-file.ts";

import { TokenBuffer, type TokenDType, tokenDTypeFor } from "./token-buffer.ts";

/** What made the ids, and how large a file gets. */
export interface ShardWriteOptions {
  /** Made the ids. Its files are written beside the shards. */
  readonly tokenizer: Tokenizer;
  /** Tokens of a full shard; default 2^24, which is 32 MiB of uint16. */
  readonly shardTokens?: number;
}

/** What a run of ids stands for. */
export interface DocumentCounts {
  /** How many documents they are of. */
  readonly documents: number;
  /** Bytes of the text in UTF-8. */
  readonly bytes: number;
}

/** Writes shards front to back, and makes them readable at the end. */
export interface TokenShardWriter {
  /** Tokens given so far. */
  readonly tokens: number;
  /**
   * Adds ids to the end of a split, end-of-text ids included.
   * @throws StorageError where a full shard cannot be written
   */
  append(split: SplitName, ids: ArrayLike<number>, counts: DocumentCounts): Promise<void>;
  /**
   * Writes what is left and the index, which makes the shards readable.
   * @param preparation how the shards were made, for people
   * @throws DataError where there is no token at all; StorageError where a file cannot be written
   */
  finish(preparation?: Readonly<Record<string, unknown>>): Promise<ShardIndex>;
}

/**
 * Writes token shards into a folder: uint16 where the tokenizer has at most 65,536 tokens, else uint32, little-endian.
 * Each file is written whole; index.json comes last, and without it there are no shards.
 *
 * @throws ConfigError for a shard size below 1
 */
export function tokenShardWriter(storage: Storage, options: ShardWriteOptions): TokenShardWriter {
  const { tokenizer, shardTokens = 2 ** 24 } = options;
  const dtype = tokenDTypeFor(tokenizer.size);
  if (!Number.isSafeInteger(shardTokens) || shardTokens < 1) {
    throw new ConfigError(`shardTokens: expected a whole number >= 1, got ${shardTokens}`);
  }
  const writers: Readonly<Record<SplitName, SplitWriter>> = {
    train: new SplitWriter(storage, "train", dtype, shardTokens),
    heldOut: new SplitWriter(storage, "held-out", dtype, shardTokens),
  };
  return {
    get tokens() {
      return writers.train.tokens + writers.heldOut.tokens;
    },
    append: (split, ids, counts) => writers[split].append(ids, counts),
    async finish(preparation) {
      if (writers.train.tokens + writers.heldOut.tokens === 0) {
        throw new DataError(`${storage.location}: expected text, got none; the data are empty`);
      }
      const index = makeIndex({
        dtype,
        tokenizer: { size: tokenizer.size, fingerprint: tokenizerFingerprint(tokenizer) ?? null },
        endOfText: tokenizer.endOfText ?? null,
        splits: { train: await writers.train.finish(), heldOut: await writers.heldOut.finish() },
        ...(preparation === undefined ? {} : { preparation }),
      });
      for (const [name, content] of Object.entries(tokenizer.files ?? {})) await storage.write(name, content);
      await storage.write(indexName, jsonBytes(index));
      return index;
    },
  };
}

class SplitWriter {
  readonly #storage: Storage;
  readonly #name: string;
  readonly #shardTokens: number;
  readonly #shards: ShardFile[] = [];
  readonly #buffer: TokenBuffer;
  #documents = 0;
  #bytes = 0;
  tokens = 0;

  constructor(storage: Storage, name: string, dtype: TokenDType, shardTokens: number) {
    this.#storage = storage;
    this.#name = name;
    this.#shardTokens = shardTokens;
    this.#buffer = new TokenBuffer(dtype);
  }

  async append(ids: ArrayLike<number>, counts: DocumentCounts): Promise<void> {
    this.#documents += counts.documents;
    this.#bytes += counts.bytes;
    this.tokens += ids.length;
    for (let at = 0; at < ids.length; ) {
      if (this.#buffer.length === this.#shardTokens) await this.#flush();
      const end = Math.min(ids.length, at + this.#shardTokens - this.#buffer.length);
      this.#buffer.append(ids, at, end);
      at = end;
    }
  }

  async finish(): Promise<SplitIndex> {
    if (this.#buffer.length > 0) await this.#flush();
    return { tokens: this.tokens, documents: this.#documents, bytes: this.#bytes, shards: this.#shards };
  }

  async #flush(): Promise<void> {
    const { ids } = this.#buffer;
    const bytes = new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
    const file = `${this.#name}-${String(this.#shards.length).padStart(5, "0")}.bin`;
    await this.#storage.write(file, bytes);
    this.#shards.push({ file, tokens: ids.length, crc32: hex32(crc32(bytes)) });
    this.#buffer.clear();
  }
}
