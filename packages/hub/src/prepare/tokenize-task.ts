// From bytes to ids: reads the documents of a task, decides which split each belongs to, and encodes them.

import { DataError } from "@sisa/core";
import { crc32 } from "../crc32.ts";
import { isObject } from "../json.ts";
import type { SplitName } from "../shards/index-file.ts";
import { TokenBuffer, tokenDTypeFor } from "../shards/token-buffer.ts";
import { tokenizerFromFiles } from "../tokenizers/json-tokenizer.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { decodeUtf8, firstInvalidUtf8, withoutByteOrderMark } from "../utf8.ts";
import { parquetTexts } from "./parquet.ts";
import type { SplitPart, Task, TaskResult, TaskSettings } from "./task.ts";

/** A function that does tasks, the same in every thread. */
export function taskTokenizer(settings: TaskSettings): (task: Task) => Promise<TaskResult> {
  const tokenizer = tokenizerFromFiles(settings.tokenizerFiles);
  const rows = parquetTexts(settings.textField);

  return async (task) => {
    const documents = new Documents(settings, tokenizer);
    if (task.kind === "rows") {
      for await (const [row, bytes] of rows(task.file, task.start, task.end)) {
        if (bytes === undefined) documents.addEmpty();
        else documents.addBytes(bytes, `${task.file}: row ${row}`, 0);
      }
    } else if (task.kind === "text") {
      documents.addBytes(task.offset === 0 ? withoutByteOrderMark(task.bytes) : task.bytes, task.file, task.offset);
    } else {
      addLines(documents, task, settings.textField);
    }
    return documents.finish();
  };
}

const newline = 0x0a;

function addLines(documents: Documents, task: Task & { readonly kind: "lines" | "text" }, field: string): void {
  const { bytes, file } = task;
  for (let start = 0; start < bytes.length; ) {
    const next = bytes.indexOf(newline, start);
    const end = next < 0 ? bytes.length : next;
    const line = bytes.subarray(start, end);
    const offset = task.offset + start;
    start = end + 1;
    if (line.length === 0) continue;
    const text = documents.decode(offset === 0 ? withoutByteOrderMark(line) : line, file, offset);
    if (text === undefined || /^\s*$/.test(text)) continue;
    documents.addText(textOfLine(text, field, `${file}: line at byte ${offset}`), `${file}: line at byte ${offset}`);
  }
}

function textOfLine(line: string, field: string, label: string): string {
  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DataError(`${label}: not JSON: ${reason}`, { cause });
  }
  const text = isObject(record) ? record[field] : undefined;
  if (typeof text !== "string") {
    const found = isObject(record) ? `fields ${Object.keys(record).join(", ")}` : "something else than an object";
    throw new DataError(
      `${label}: expected a string in field "${field}", got ${found}; pass textField to name another`,
    );
  }
  return text;
}

/** Collects the documents of one task. */
class Documents {
  readonly #settings: TaskSettings;
  readonly #tokenizer: Tokenizer;
  readonly #splits: Readonly<Record<SplitName, { ids: TokenBuffer; documents: number; bytes: number }>>;
  #smallestHash = 2 ** 32;
  #skipped = 0;
  #empty = 0;

  constructor(settings: TaskSettings, tokenizer: Tokenizer) {
    this.#settings = settings;
    this.#tokenizer = tokenizer;
    const empty = () => ({ ids: new TokenBuffer(tokenDTypeFor(tokenizer.size)), documents: 0, bytes: 0 });
    this.#splits = { train: empty(), heldOut: empty() };
  }

  /** The text of bytes; undefined where they are not UTF-8 and may be left out. */
  decode(bytes: Uint8Array, file: string, offset: number): string | undefined {
    const text = decodeUtf8(bytes);
    if (text === undefined) this.#refuse(`${file}: not UTF-8 at byte ${offset + firstInvalidUtf8(bytes)}`);
    return text;
  }

  addBytes(bytes: Uint8Array, file: string, offset: number): void {
    const text = this.decode(bytes, file, offset);
    if (text !== undefined) this.#add(text, bytes);
  }

  addText(text: string, label: string): void {
    // JSON can spell half a character, which UTF-8 cannot.
    if (/\p{Surrogate}/u.test(text)) this.#refuse(`${label}: half a surrogate pair, which is no text`);
    else this.#add(text, new TextEncoder().encode(text));
  }

  addEmpty(): void {
    this.#empty += 1;
  }

  finish(): TaskResult {
    const part = ({ ids, documents, bytes }: { ids: TokenBuffer; documents: number; bytes: number }): SplitPart => ({
      ids: ids.ids.slice(),
      documents,
      bytes,
    });
    const { train, heldOut } = this.#splits;
    return {
      splits: { train: part(train), heldOut: part(heldOut) },
      smallestHash: this.#smallestHash,
      skipped: this.#skipped,
      empty: this.#empty,
    };
  }

  #add(text: string, bytes: Uint8Array): void {
    if (bytes.length === 0) {
      this.#empty += 1;
      return;
    }
    const { seed, heldOutBelow, heldOutTail } = this.#settings;
    const hash = hashOf(bytes, seed);
    this.#smallestHash = Math.min(this.#smallestHash, hash);
    if (heldOutTail === 0) {
      this.#append(hash < heldOutBelow ? "heldOut" : "train", text, bytes.length);
      return;
    }
    const end = tailStart(bytes, heldOutTail);
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    if (end > 0) this.#append("train", decoder.decode(bytes.subarray(0, end)), end);
    this.#append("heldOut", decoder.decode(bytes.subarray(end)), bytes.length - end);
  }

  #append(split: SplitName, text: string, byteLength: number): void {
    const part = this.#splits[split];
    part.ids.append(this.#tokenizer.encode(text));
    part.ids.append([this.#settings.endOfText]);
    part.documents += 1;
    part.bytes += byteLength;
  }

  #refuse(problem: string): void {
    if (this.#settings.invalidText === "refuse") {
      throw new DataError(`${problem}; convert the file to UTF-8, or skip invalid text`);
    }
    this.#skipped += 1;
  }
}

/** Where the last part of a text begins, at the first byte of a character and with at least one character behind it. */
function tailStart(bytes: Uint8Array, part: number): number {
  const isContinuation = (at: number): boolean => ((bytes[at] ?? 0) & 0xc0) === 0x80;
  let start = Math.min(Math.floor(bytes.length * (1 - part)), bytes.length - 1);
  while (start > 0 && isContinuation(start)) start--;
  return start;
}

/** A number below 2^32 from the text alone, so that equal documents never stand on both sides. */
function hashOf(bytes: Uint8Array, seed: number): number {
  // The finaliser of MurmurHash3 spreads the checksum over all 32 bits.
  let hash = crc32(bytes) ^ Math.imul(seed, 0x9e3779b9);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
