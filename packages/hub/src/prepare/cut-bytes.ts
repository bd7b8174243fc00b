// Cuts a stream of bytes into pieces. Where a cut falls depends on the content alone, never on how it was read.

import { DataError } from "@sisa/core";

/** Bytes that belong together, and where they start in the stream. */
export interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

const newline = 0x0a;
const space = 0x20;

/** Longest line that is accepted; a string of V8 holds about twice as much. */
const maximumLineBytes = 256 * 1024 * 1024;

/**
 * Whole lines, about `targetBytes` of them at a time; a longer line comes alone.
 * @throws DataError for a line of more than 256 MiB
 */
export async function* cutLines(
  chunks: AsyncIterable<Uint8Array>,
  targetBytes: number,
  location: string,
): AsyncGenerator<Piece> {
  yield* cut(chunks, targetBytes, (bytes) => {
    const last = bytes.lastIndexOf(newline, targetBytes - 1);
    // A line longer than the target: up to its end, wherever that is.
    const end = (last < 0 ? bytes.indexOf(newline, targetBytes) : last) + 1;
    if (end === 0 && bytes.length > maximumLineBytes) {
      throw new DataError(`${location}: expected one JSON object a line, got a line of more than 256 MiB`);
    }
    return end;
  });
}

/** Plain text in pieces of at most `maximumBytes`, cut between paragraphs where there are any in the second half. */
export async function* cutText(chunks: AsyncIterable<Uint8Array>, maximumBytes: number): AsyncGenerator<Piece> {
  yield* cut(chunks, maximumBytes, (bytes) => {
    const isParagraphEnd = (at: number): boolean => bytes[at - 1] === newline && bytes[at - 2] === newline;
    const isLineEnd = (at: number): boolean => bytes[at - 1] === newline;
    const isWordEnd = (at: number): boolean => bytes[at] === space;
    const isCharacterStart = (at: number): boolean => ((bytes[at] ?? 0) & 0xc0) !== 0x80;
    for (const isCut of [isParagraphEnd, isLineEnd, isWordEnd, isCharacterStart]) {
      for (let at = maximumBytes; at > maximumBytes / 2; at--) if (isCut(at)) return at;
    }
    return maximumBytes;
  });
}

/**
 * Collects more than `size` bytes, then asks where the next piece ends; 0 asks for more first. What is left at the end
 * is a piece of its own, cut once more while it is longer than `size`.
 */
async function* cut(
  chunks: AsyncIterable<Uint8Array>,
  size: number,
  endOfPiece: (bytes: Uint8Array) => number,
): AsyncGenerator<Piece> {
  let offset = 0;
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  // Where a piece is longer than `size`, look again only once the rest has doubled.
  let wanted = size;
  for await (const chunk of chunks) {
    waiting.push(chunk);
    waitingBytes += chunk.length;
    if (waitingBytes <= wanted) continue;
    let rest = joined(waiting, waitingBytes);
    while (rest.length > size) {
      const end = endOfPiece(rest);
      if (end === 0) break;
      yield { offset, bytes: copyOf(rest, end) };
      offset += end;
      rest = rest.subarray(end);
    }
    waiting = [rest];
    waitingBytes = rest.length;
    wanted = Math.max(size, 2 * rest.length);
  }
  let rest = joined(waiting, waitingBytes);
  while (rest.length > 0) {
    const end = rest.length > size ? endOfPiece(rest) || rest.length : rest.length;
    yield { offset, bytes: copyOf(rest, end) };
    offset += end;
    rest = rest.subarray(end);
  }
}

/** A Buffer's own `slice` would give a view. */
function copyOf(bytes: Uint8Array, end: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.subarray(0, end));
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const [only] = parts;
  if (only !== undefined && parts.length === 1) return only;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
