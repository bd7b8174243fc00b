// What training reads: two streams of token ids, one to train on and one held out. Where they come from is elsewhere.
import type { Tokenizer } from "@sisa/hub";

/** Token ids, one long row. Documents are joined by the end-of-text token. */
export interface TokenSource {
  /** Number of tokens. */
  readonly length: number;
  /** `count` ids from position `start`, all of them inside the source. */
  read(start: number, count: number): Int32Array | Promise<Int32Array>;
  /** What to say after each of `count` ids from `start`, where that is not the next id. */
  readTargets?(start: number, count: number): Int32Array | Promise<Int32Array>;
}

/** Tokens to train on and tokens held out, as `train` takes them. */
export interface TrainingData {
  /** What steps read. */
  readonly training: TokenSource;
  /** What the held-out loss is measured on; never trained on. */
  readonly heldOut: TokenSource;
  /** Every id is below this. */
  readonly vocabularySize: number;
  /** Made the ids; needed for samples and for bits per byte. */
  readonly tokenizer?: Tokenizer;
  /** Mean bytes of text of a held-out token; used where there is no tokenizer to count them. */
  readonly bytesPerToken?: number;
  /** Differs where the tokens differ. A run is only resumed on the data it began with. */
  readonly fingerprint: string;
  /** Where it comes from, for people. */
  readonly description: DataDescription;
}

/** Where data comes from, for people. */
export interface DataDescription {
  /** Of the file, the folder or the set. */
  readonly name: string;
  /** How many there are, held-out ones included. */
  readonly documents: number;
  /** How the held-out part was chosen: whole documents by hash, the last part of a document, or when it was stored. */
  readonly split: "documents" | "contiguous" | "stored";
  /** Files of a folder that are not text and were left out. */
  readonly skippedFiles: number;
}

/** Ids in memory as a source. */
export function arraySource(ids: ArrayLike<number>): TokenSource {
  return {
    length: ids.length,
    read(start, count) {
      const part = new Int32Array(count);
      for (let index = 0; index < count; index++) part[index] = ids[start + index] ?? 0;
      return part;
    },
  };
}
