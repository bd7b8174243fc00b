// The zip archives that torch.save writes: entries stored without compression, read in ranges. A general zip reader
// would decompress; here an entry's bytes can be read in part, straight from the file.
// Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end).

import { CheckpointError } from "@sisa/core";
import { crc32 } from "../crc32.ts";
import type { StoredFile } from "../storage/storage.ts";

export interface ZipEntry {
  readonly size: number;
  /** CRC-32 of the content, as the archive states it. */
  readonly checksum: number;
  /** Position of the entry's local header. */
  readonly header: number;
}

/** A central directory of a model with 100,000 tensors is 10 MB. */
const maximumDirectoryBytes = 64 * 1024 * 1024;
const endSize = 22;
const maximumCommentBytes = 0xffff;

/**
 * Entries by name.
 * @throws CheckpointError where the file is not a zip archive, or holds compressed or encrypted entries
 */
export async function readZipDirectory(file: StoredFile, location: string): Promise<Map<string, ZipEntry>> {
  const { start, size, count } = await findDirectory(file, location);
  if (size > maximumDirectoryBytes) throw damaged(location, `its directory of ${size} bytes`);
  const view = viewOf(await readRange(file, start, size, location));
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let index = 0; index < count; index++) {
    if (at + 46 > view.byteLength || view.getUint32(at, true) !== 0x02014b50) throw damaged(location, "its directory");
    const flags = view.getUint16(at + 8, true);
    const method = view.getUint16(at + 10, true);
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const next = at + 46 + nameLength + extraLength + view.getUint16(at + 32, true);
    if (next > view.byteLength) throw damaged(location, "its directory");
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at + 46, nameLength));
    if (method !== 0 || (flags & 1) !== 0) {
      throw new CheckpointError(
        `${location}: entry ${JSON.stringify(name)} is compressed or encrypted, torch.save stores entries as they are; ` +
          `save the checkpoint again with torch.save`,
      );
    }
    if (entries.has(name)) throw damaged(location, `its directory, which names ${JSON.stringify(name)} twice`);
    const extra = new DataView(view.buffer, view.byteOffset + at + 46 + nameLength, extraLength);
    entries.set(name, readEntry(view, at, extra, location));
    at = next;
  }
  return entries;
}

/**
 * Bytes of an entry from `start` up to `end`. The checksum is compared where they are all there are.
 * @throws CheckpointError where the archive is cut short or the content does not match
 */
export async function readZipEntry(
  file: StoredFile,
  entry: ZipEntry,
  label: string,
  range: { readonly start: number; readonly end: number; readonly verify: boolean },
): Promise<Uint8Array<ArrayBuffer>> {
  const header = viewOf(await readRange(file, entry.header, 30, label));
  if (header.getUint32(0, true) !== 0x04034b50) throw damaged(label, "the header before its content");
  const content = entry.header + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  const bytes = await readRange(file, content + range.start, range.end - range.start, label);
  if (range.verify && bytes.length === entry.size && crc32(bytes) !== entry.checksum) {
    throw new CheckpointError(
      `${label}: does not match its checksum: the file is damaged; fetch it again (verify: false reads it as it is)`,
    );
  }
  return bytes;
}

async function findDirectory(
  file: StoredFile,
  location: string,
): Promise<{ start: number; size: number; count: number }> {
  const tailStart = Math.max(0, file.size - endSize - maximumCommentBytes);
  const tail = viewOf(await file.read(tailStart, file.size));
  let at = tail.byteLength - endSize;
  while (at >= 0 && tail.getUint32(at, true) !== 0x06054b50) at -= 1;
  if (at < 0) {
    throw new CheckpointError(
      `${location}: expected a zip archive as torch.save writes it (torch 1.6 or newer), got something else or a file cut short`,
    );
  }
  const found = {
    count: tail.getUint16(at + 10, true),
    size: tail.getUint32(at + 12, true),
    start: tail.getUint32(at + 16, true),
  };
  const isZip64 = found.count === 0xffff || found.size === 0xffffffff || found.start === 0xffffffff;
  if (!isZip64 && at < 20) return found;
  // The locator of a zip64 end stands right before the end. torch writes one for large archives, some tools always.
  const locator = at < 20 ? undefined : new DataView(tail.buffer, tail.byteOffset + at - 20, 20);
  if (locator === undefined || locator.getUint32(0, true) !== 0x07064b50) {
    if (isZip64) throw damaged(location, "its end");
    return found;
  }
  const end = viewOf(await readRange(file, safe(locator.getBigUint64(8, true), location), 56, location));
  if (end.getUint32(0, true) !== 0x06064b50) throw damaged(location, "its end");
  return {
    count: safe(end.getBigUint64(32, true), location),
    size: safe(end.getBigUint64(40, true), location),
    start: safe(end.getBigUint64(48, true), location),
  };
}

function readEntry(view: DataView, at: number, extra: DataView, location: string): ZipEntry {
  const compressedSize = view.getUint32(at + 20, true);
  const size = view.getUint32(at + 24, true);
  const header = view.getUint32(at + 42, true);
  // Fields that do not fit are all ones here and follow as 64 bits in this order.
  const wide = wideFields(extra);
  const take = (narrow: number): number => {
    if (narrow !== 0xffffffff) return narrow;
    const value = wide.shift();
    if (value === undefined) throw damaged(location, "its directory");
    return safe(value, location);
  };
  const entry = { size: take(size), stored: take(compressedSize), header: take(header) };
  if (entry.stored !== entry.size) throw damaged(location, "its directory");
  return { size: entry.size, header: entry.header, checksum: view.getUint32(at + 16, true) };
}

function wideFields(extra: DataView): bigint[] {
  const fields: bigint[] = [];
  for (let at = 0; at + 4 <= extra.byteLength; ) {
    const length = extra.getUint16(at + 2, true);
    const end = Math.min(at + 4 + length, extra.byteLength);
    if (extra.getUint16(at, true) === 1) {
      for (let field = at + 4; field + 8 <= end; field += 8) fields.push(extra.getBigUint64(field, true));
    }
    at += 4 + length;
  }
  return fields;
}

async function readRange(
  file: StoredFile,
  start: number,
  length: number,
  location: string,
): Promise<Uint8Array<ArrayBuffer>> {
  if (start + length > file.size) throw new CheckpointError(`${location}: cut short: it ends inside its content`);
  return await file.read(start, start + length);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function safe(value: bigint, location: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(location, "a size in it");
  return Number(value);
}

function damaged(location: string, part: string): CheckpointError {
  return new CheckpointError(`${location}: damaged archive: ${part} cannot be read`);
}
