// Texts in memory as training data: tokens joined by end-of-text, and a held-out part chosen by document hash.
import { ConfigError, DataError } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { arraySource, type TrainingData } from "./training-data.ts";

/** A text with a name for messages. */
export interface TextDocument {
  /** For messages. */
  readonly name: string;
  /** All of it. */
  readonly text: string;
}

/** What is held out, and what the data is called. */
export interface TextOptions {
  /** Part of the tokens that is held out, above 0 and below 1. Default 0.05. */
  readonly heldOutFraction?: number;
  /** Shown in reports and errors. Default "text", or the paths. */
  readonly name?: string;
}

/**
 * Training data from texts in memory: each text one document, whole documents held out by the hash of their ids, or the
 * ends of some where that would miss the wanted share.
 *
 * @throws DataError where there is no text; ConfigError where the fraction is not between 0 and 1
 */
export function textDocuments(
  documents: Iterable<string | TextDocument>,
  tokenizer: Tokenizer,
  options: TextOptions = {},
): TrainingData {
  const collector = new DocumentCollector(tokenizer);
  for (const document of documents) collector.add(typeof document === "string" ? document : document.text);
  return collector.finish(options);
}

/** A document as a range of the collected ids. */
interface Part {
  readonly start: number;
  readonly end: number;
  readonly hash: number;
}

type Ids = Uint16Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** Collects texts as ids, one at a time, so that only one text is in memory with its ids. */
export class DocumentCollector {
  readonly #tokenizer: Tokenizer;
  readonly #parts: Part[] = [];
  #ids: Ids;
  #length = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
    this.#ids = allocateIds(tokenizer.size, 1 << 16);
  }

  /** Adds a text. An empty one is left out. */
  add(text: string): void {
    const ids = this.#tokenizer.encode(text);
    if (ids.length === 0) return;
    const start = this.#length;
    this.#reserve(start + ids.length + 1);
    this.#ids.set(ids, start);
    this.#length += ids.length;
    const { endOfText } = this.#tokenizer;
    if (endOfText !== undefined) this.#ids[this.#length++] = endOfText;
    this.#parts.push({ start, end: this.#length, hash: hashIds(this.#ids.subarray(start, this.#length)) });
  }

  /** Splits what was collected. @throws DataError where nothing was; ConfigError for a fraction that cannot be */
  finish(options: TextOptions & { readonly skippedFiles?: number } = {}): TrainingData {
    const { heldOutFraction = 0.05, name = "text", skippedFiles = 0 } = options;
    if (!(heldOutFraction > 0 && heldOutFraction < 1)) {
      throw new ConfigError(`heldOutFraction: expected a number > 0 and < 1, got ${heldOutFraction}`);
    }
    if (this.#length < 2) {
      const skipped = skippedFiles > 0 ? `, and ${skippedFiles} files that are not text` : "";
      throw new DataError(`${name}: expected text to train on, got ${this.#length} tokens${skipped}; name other files`);
    }
    const { held, split } = chooseHeldOut(this.#parts, this.#length, heldOutFraction);
    const heldOut = this.#gather(held);
    const training = this.#gather(complement(this.#parts, held));
    return {
      training: arraySource(training),
      heldOut: arraySource(heldOut),
      vocabularySize: this.#tokenizer.size,
      tokenizer: this.#tokenizer,
      fingerprint: fingerprintOf(training, heldOut),
      description: { name, documents: this.#parts.length, split, skippedFiles },
    };
  }

  #reserve(length: number): void {
    if (length <= this.#ids.length) return;
    const larger = allocateIds(this.#tokenizer.size, Math.max(length, this.#ids.length * 2));
    larger.set(this.#ids.subarray(0, this.#length));
    this.#ids = larger;
  }

  #gather(parts: readonly Range[]): Ids {
    const length = parts.reduce((sum, { start, end }) => sum + end - start, 0);
    const ids = allocateIds(this.#tokenizer.size, length);
    let at = 0;
    for (const { start, end } of parts) {
      ids.set(this.#ids.subarray(start, end), at);
      at += end - start;
    }
    return ids;
  }
}

interface Range {
  readonly start: number;
  readonly end: number;
}

function allocateIds(vocabularySize: number, length: number): Ids {
  return vocabularySize <= 2 ** 16 ? new Uint16Array(length) : new Int32Array(length);
}

/**
 * The ranges to hold out: whole documents, those of the largest hashes, where that comes within a factor of two of the
 * wanted share; else the end of one more document is cut off too, so that a single file can be split.
 */
function chooseHeldOut(
  parts: readonly Part[],
  total: number,
  fraction: number,
): { held: Range[]; split: "documents" | "contiguous" } {
  const wanted = Math.max(1, Math.round(total * fraction));
  const byHash = [...parts].sort((a, b) => b.hash - a.hash || a.start - b.start);
  const whole: Part[] = [];
  let size = 0;
  for (const part of byHash) {
    const next = size + part.end - part.start;
    if (Math.abs(next - wanted) > Math.abs(size - wanted)) break;
    whole.push(part);
    size = next;
  }
  if (whole.length < parts.length && size >= wanted / 2 && size <= wanted * 2) {
    return { held: inOrder(whole), split: "documents" };
  }
  const held: Range[] = [];
  let missing = wanted;
  for (const { start, end } of byHash) {
    if (missing === 0) break;
    const taken = Math.min(missing, end - start);
    held.push({ start: end - taken, end });
    missing -= taken;
  }
  return { held: inOrder(held), split: "contiguous" };
}

function inOrder(ranges: readonly Range[]): Range[] {
  return [...ranges].sort((a, b) => a.start - b.start);
}

/** What the ranges leave of the parts; each range ends where its part ends. */
function complement(parts: readonly Part[], held: readonly Range[]): Range[] {
  const heldFrom = new Map(held.map(({ start, end }) => [end, start]));
  return parts
    .map(({ start, end }) => ({ start, end: heldFrom.get(end) ?? end }))
    .filter(({ start, end }) => end > start);
}

/** 32-bit hash of ids (FNV-1a with the finaliser of MurmurHash3, so that high bits are good too). */
function hashIds(ids: Ids, seed = 0x811c9dc5): number {
  let hash = seed;
  for (const id of ids) hash = Math.imul(hash ^ id, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function fingerprintOf(training: Ids, heldOut: Ids): string {
  const words = [hashIds(training), hashIds(training, 0x9747b28c), hashIds(heldOut), hashIds(heldOut, 0x9747b28c)];
  return `${training.length}+${heldOut.length}:${words.map((word) => word.toString(16).padStart(8, "0")).join("")}`;
}
