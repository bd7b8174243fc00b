// The pieces of work that preparing data is cut into, and what becomes of each. All of it can be posted between threads.

import type { SplitName } from "../shards/index-file.ts";
import type { TokenArray } from "../shards/token-buffer.ts";

/** Documents to tokenize: lines of JSON, one plain text, or rows of a Parquet file that the worker reads itself. */
export type Task =
  | {
      readonly kind: "lines" | "text";
      readonly file: string;
      /** Position of the first byte in the decompressed file. */
      readonly offset: number;
      readonly bytes: Uint8Array<ArrayBuffer>;
    }
  | { readonly kind: "rows"; readonly file: string; readonly start: number; readonly end: number };

/** What all tasks of one preparation have in common. */
export interface TaskSettings {
  readonly tokenizerFiles: Readonly<Record<string, Uint8Array>>;
  /** Id that follows every document. */
  readonly endOfText: number;
  readonly textField: string;
  readonly seed: number;
  /** Documents whose hash, a number below 2^32, is below this are held out. */
  readonly heldOutBelow: number;
  /** Part of every document that is cut off its end and held out, for documents that are all one; 0 for none. */
  readonly heldOutTail: number;
  readonly invalidText: "refuse" | "skip";
}

/** Documents of one task as ids, each followed by the end of text, split in two. */
export interface TaskResult {
  readonly splits: Readonly<Record<SplitName, SplitPart>>;
  /** Of all documents; 2^32 where there are none. */
  readonly smallestHash: number;
  /** Documents left out because they are not UTF-8. */
  readonly skipped: number;
  /** Documents left out because they have no text. */
  readonly empty: number;
}

export interface SplitPart {
  readonly ids: TokenArray;
  readonly documents: number;
  /** Bytes of text in UTF-8. */
  readonly bytes: number;
}
