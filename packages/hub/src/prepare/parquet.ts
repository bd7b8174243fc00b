// Texts in a column of Parquet files, one row group at a time, through hyparquet.

import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { DataError } from "@sisa/core";
import {
  type AsyncBuffer,
  asyncBufferFromFile,
  type Compressors,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
} from "hyparquet";
import { ZSTDDecoder } from "zstddec/stream";

/** Rows that are stored, and so read, together. */
export interface RowGroup {
  readonly start: number;
  readonly end: number;
  /** Bytes in the file. */
  readonly bytes: number;
}

interface OpenFile {
  readonly file: AsyncBuffer;
  readonly metadata: FileMetaData;
}

/**
 * The row groups of a file.
 * @throws DataError where it is not Parquet, or has no column of strings named `field`
 */
export async function parquetRowGroups(path: string, field: string): Promise<RowGroup[]> {
  const { metadata } = await openParquet(path);
  const columns = parquetSchema(metadata).children;
  const column = columns.find(({ element }) => element.name === field);
  if (column?.element.type !== "BYTE_ARRAY") {
    const names = columns.map(({ element }) => element.name).join(", ");
    throw new DataError(
      `${path}: expected a column of strings named "${field}", got ${names}; pass textField to name another`,
    );
  }
  const groups: RowGroup[] = [];
  let start = 0;
  for (const group of metadata.row_groups) {
    const end = start + Number(group.num_rows);
    const bytes = group.columns.reduce((sum, each) => sum + Number(each.meta_data?.total_compressed_size ?? 0), 0);
    groups.push({ start, end, bytes });
    start = end;
  }
  return groups;
}

/** A reader of rows with their numbers; the text in bytes, undefined where there is none. */
export function parquetTexts(
  field: string,
): (path: string, start: number, end: number) => AsyncGenerator<[number, Uint8Array | undefined]> {
  // Tasks of one file follow each other, so its footer is read once.
  let current: { readonly path: string; readonly opened: Promise<OpenFile> } | undefined;
  return async function* (path, start, end) {
    if (current?.path !== path) current = { path, opened: openParquet(path) };
    const { file, metadata } = await current.opened;
    const rows = await readRows(path, {
      file,
      metadata,
      columns: [field],
      rowStart: start,
      rowEnd: end,
      compressors: await compressors(),
      // Bytes stay bytes: the library would silently replace what is not UTF-8.
      parsers: { stringFromBytes: (bytes) => bytes },
    });
    for (const [index, row] of rows.entries()) {
      const text: unknown = row[field];
      yield [start + index, text instanceof Uint8Array ? text : undefined];
    }
  };
}

async function readRows(
  path: string,
  options: Parameters<typeof parquetReadObjects>[0],
): Promise<Record<string, unknown>[]> {
  try {
    return await parquetReadObjects(options);
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

async function openParquet(path: string): Promise<OpenFile> {
  try {
    const file = await asyncBufferFromFile(path);
    return { file, metadata: await parquetMetadataAsync(file) };
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): DataError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new DataError(`${path}: cannot be read as Parquet: ${reason}`, { cause });
}

let zstd: Promise<ZSTDDecoder> | undefined;

/** Compressions beside none and Snappy, which the library has itself. */
async function compressors(): Promise<Compressors> {
  zstd ??= (async () => {
    const decoder = new ZSTDDecoder();
    await decoder.init();
    return decoder;
  })();
  const decoder = await zstd;
  return {
    GZIP: (input) => gunzipSync(input),
    BROTLI: (input) => brotliDecompressSync(input),
    ZSTD: (input, outputLength) => {
      const output = decoder.decode(input, outputLength);
      if (output.length !== outputLength) throw new Error("a page of zstd is damaged");
      return output;
    },
  };
}
