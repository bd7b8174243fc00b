// What a tokenizer is to the other packages.

import { DataError } from "@sisa/core";
import { crc32, hex32 } from "../crc32.ts";
import type { TokenContent } from "./byte-stream-decoder.ts";

/** Text to ids and back. `byteTokenizer` and `loadTokenizer` give one. */
export interface Tokenizer {
  /** One more than the largest id. */
  readonly size: number;
  /** Id of the token that separates documents, where there is one. */
  readonly endOfText: number | undefined;
  /**
   * The files of a model folder that make this tokenizer again, by name: `tokenizer.json` and, where known,
   * `tokenizer_config.json`. A tokenizer without them works, but cannot be saved with a model.
   */
  readonly files?: Readonly<Record<string, Uint8Array>>;
  /**
   * Ids of a text. Special tokens that are spelled out in it become their ids; none are added.
   * @throws DataError for a text of more ids than one list can hold
   */
  encode(text: string): number[];
  /**
   * The text of ids, special tokens spelled out. Bytes that are not UTF-8 become U+FFFD.
   * @throws DataError for an id that is not below `size`
   */
  decode(ids: ArrayLike<number>): string;
  /**
   * Bytes of UTF-8 that ids stand for, special tokens spelled out. A token that is part of a character counts its own.
   * @throws DataError for an id that is not below `size`
   */
  byteLength(ids: ArrayLike<number>): number;
  /**
   * Bytes of UTF-8 that a token adds to a text, special tokens spelled out; of a part of a character, its own.
   * @throws DataError for an id that is not below `size`
   */
  tokenBytes(id: number): Uint8Array;
  /** Decodes ids one by one. What `push` and then `flush` return, put together, is what `decode` returns. */
  streamDecoder(): StreamDecoder;
}

/** Ids to text while they come, for streaming. */
export interface StreamDecoder {
  /**
   * Text that is certain now that this id has come; never half a character. May be empty.
   * @throws DataError for an id that the tokenizer does not have
   */
  push(id: number): string;
  /** What is left at the end: U+FFFD for bytes that did not become a character. The decoder starts anew after it. */
  flush(): string;
}

/** Decodes all ids with a fresh stream decoder. */
export function decodeAll(decoder: StreamDecoder, ids: ArrayLike<number>): string {
  const parts: string[] = [];
  for (const id of Array.from(ids)) parts.push(decoder.push(id));
  parts.push(decoder.flush());
  return parts.join("");
}

/** Bytes of ids whose tokens are runs of bytes. */
export function bytesOfAll(contentOf: (id: number) => TokenContent, ids: ArrayLike<number>): number {
  let bytes = 0;
  for (let at = 0; at < ids.length; at++) bytes += bytesOf(contentOf(ids[at] ?? -1)).length;
  return bytes;
}

export function bytesOf(content: TokenContent): Uint8Array {
  return typeof content === "string" ? new TextEncoder().encode(content) : content.slice();
}

/** @throws DataError for ids that the tokenizer does not have */
export function checkId(id: number, size: number): void {
  if (!(Number.isInteger(id) && id >= 0 && id < size)) {
    throw new DataError(`decode: expected ids from 0 to ${size - 1}, got ${id}`);
  }
}

/**
 * Eight hexadecimal digits that differ where tokenizers differ, or undefined where a tokenizer is not kept in files.
 * Layout of tokenizer.json does not matter. Token shards carry it, so that a model is not trained on ids of another.
 */
export function tokenizerFingerprint(tokenizer: Tokenizer): string | undefined {
  const file = tokenizer.files?.["tokenizer.json"];
  if (file === undefined) return undefined;
  const compact = JSON.stringify(JSON.parse(new TextDecoder().decode(file)));
  return hex32(crc32(new TextEncoder().encode(compact)));
}
