// Cuts files into tasks, in order. Only reading and decompressing happens here; the rest is for the workers.

import { stat } from "node:fs/promises";
import { DataError } from "@sisa/core";
import { cutLines, cutText } from "./cut-bytes.ts";
import { parquetRowGroups } from "./parquet.ts";
import { readBytesOf } from "./read-bytes.ts";
import type { Task } from "./task.ts";

export interface InputFile {
  readonly path: string;
  readonly bytes: number;
}

/** A task, and how much of its file is behind it once it is done. */
export interface PlacedTask {
  readonly task: Task;
  readonly positionInFile: number;
  readonly file: InputFile;
}

/** Lines that go to a worker together. */
const lineBytes = 1024 * 1024;

/** A plain text that is longer is cut into several documents, so that memory stays bounded and some can be held out. */
export const maximumTextBytes = 64 * 1024;

const kinds: readonly { readonly pattern: RegExp; readonly kind: Task["kind"] }[] = [
  { pattern: /\.(txt|md)(\.gz|\.zst)?$/, kind: "text" },
  { pattern: /\.(jsonl|ndjson)(\.gz|\.zst)?$/, kind: "lines" },
  { pattern: /\.parquet$/, kind: "rows" },
];

/**
 * The files with their sizes.
 * @throws DataError where one is missing, is a folder or of an unknown kind
 */
export async function checkFiles(paths: readonly string[]): Promise<InputFile[]> {
  if (paths.length === 0) throw new DataError("prepare: expected files with text, got none");
  const files: InputFile[] = [];
  for (const path of paths) {
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) throw new DataError(`${path}: there is no such file`);
    if (!found.isFile()) throw new DataError(`${path}: expected a file; name the files in it`);
    kindOf(path);
    files.push({ path, bytes: found.size });
  }
  return files;
}

/** All tasks of the files. What is in them depends on the files and the field alone. */
export async function* listTasks(files: readonly InputFile[], textField: string): AsyncGenerator<PlacedTask> {
  for (const file of files) {
    const { path } = file;
    const kind = kindOf(path);
    if (kind === "rows") {
      let position = 0;
      for (const { start, end, bytes } of await parquetRowGroups(path, textField)) {
        position = Math.min(position + bytes, file.bytes);
        yield { task: { kind, file: path, start, end }, positionInFile: position, file };
      }
    } else {
      const source = readBytesOf(path);
      const pieces =
        kind === "lines" ? cutLines(source.chunks, lineBytes, path) : cutText(source.chunks, maximumTextBytes);
      for await (const { offset, bytes } of pieces) {
        yield { task: { kind, file: path, offset, bytes }, positionInFile: source.position(), file };
      }
    }
  }
}

function kindOf(path: string): Task["kind"] {
  const found = kinds.find(({ pattern }) => pattern.test(path));
  if (found === undefined) {
    throw new DataError(`${path}: expected .txt, .md, .jsonl or .ndjson (plain, .gz or .zst), or .parquet`);
  }
  return found.kind;
}
