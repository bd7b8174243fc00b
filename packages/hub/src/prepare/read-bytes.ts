// A file's content as a stream of bytes, decompressed by its last suffix.

import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import { DataError } from "@sisa/core";
import { decompressZstd } from "./zstd.ts";

/** One file being read. */
export interface ByteSource {
  /** Content in chunks of at most 1 MiB. @throws DataError where the file cannot be read or decompressed */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Bytes of the file read so far, before decompression. */
  readonly position: () => number;
}

const chunkBytes = 256 * 1024;

export function readBytesOf(path: string): ByteSource {
  const file = createReadStream(path, { highWaterMark: chunkBytes });
  const content = path.endsWith(".zst") ? decompressZstd(file) : path.endsWith(".gz") ? gunzip(file) : file;
  return { chunks: named(content, path), position: () => file.bytesRead };
}

function gunzip(file: AsyncIterable<Uint8Array> & NodeJS.ReadableStream): AsyncIterable<Uint8Array> {
  const decompressor = createGunzip({ chunkSize: chunkBytes });
  file.on("error", (error) => decompressor.destroy(error));
  return file.pipe(decompressor);
}

async function* named(chunks: AsyncIterable<Uint8Array>, path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DataError(`${path}: cannot be read to its end: ${reason}`, { cause });
  }
}
