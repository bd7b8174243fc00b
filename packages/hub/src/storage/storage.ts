// Files as every reader and writer of this package sees them: a folder in memory, on disk, picked in a browser, or on
// a web server. Names are relative paths with "/" between their parts.

import { StorageError } from "./storage-error.ts";

/** A folder of files. Implementations: `memoryStorage`, `filesStorage`, `urlStorage`, and `directory` on Node. */
export interface Storage {
  /** Where this is, for messages: a path, a URL. */
  readonly location: string;

  /**
   * Size of a file in bytes, or undefined where there is none of that name.
   * @throws StorageError with reason `denied`, as every method does, for a name that leads out of the folder
   */
  size(name: string): Promise<number | undefined>;

  /**
   * Opens a file for reading.
   * @throws StorageError with reason `missing` where there is no such file
   */
  open(name: string): Promise<StoredFile>;

  /**
   * Writes a file, whole or not at all: readers see the old content until the new one is complete and durable.
   * A producer may write content larger than memory, and go back to fill in what it knew only at the end.
   * @throws StorageError with reason `full` where there is no room; the old content is still there then
   */
  write(name: string, content: Uint8Array | FileProducer): Promise<void>;

  /** Names of all files at any depth, sorted. Files that are still being written are not among them. */
  list(): Promise<string[]>;

  /** Moves a file or a folder, replacing a file of the new name. @throws StorageError where there is nothing to move */
  rename(from: string, to: string): Promise<void>;

  /** Removes a file, or a folder with all it holds. No error where there is nothing of that name. */
  remove(name: string): Promise<void>;
}

/** A file opened for reading. */
export interface StoredFile extends AsyncDisposable {
  /** As it was opened. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /**
   * The bytes from `start` up to but not including `end`, as a fresh array that fills its buffer.
   * @throws StorageError where the range does not lie in the file
   */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Gives the file back; `await using` calls it. */
  close(): Promise<void>;
}

/** Writes one file's content, front to back, and may overwrite what it has already written. */
export type FileProducer = (file: FileWriter) => Promise<void>;

/** Where the content of one file goes. */
export interface FileWriter {
  /** Adds bytes at the end. They may be changed by the caller once the promise is settled. */
  append(bytes: Uint8Array): Promise<void>;
  /** Replaces bytes that were appended before. @throws StorageError where they were not */
  patch(start: number, bytes: Uint8Array): Promise<void>;
}

/** The bytes of a whole file. @throws StorageError with reason `missing` where there is none, or another's */
export async function readBytes(storage: Storage, name: string): Promise<Uint8Array<ArrayBuffer>> {
  await using file = await storage.open(name);
  return await file.read(0, file.size);
}

/**
 * Names come from files too (a weight index names its shards), so they must not reach outside the folder. A colon does
 * not: below a folder it names no drive, and times have it.
 * @throws StorageError for empty, absolute and upward names
 */
export function checkName(storage: Pick<Storage, "location">, name: string): void {
  const parts = name.split("/");
  if (/[\\\0]/.test(name) || parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new StorageError(
      "denied",
      `${storage.location}: expected a name inside this folder, such as "a/b.json", got ${JSON.stringify(name)}`,
    );
  }
}

/** @throws StorageError where [start, end) does not lie in the file */
export function checkRange(file: { readonly name: string; readonly size: number }, start: number, end: number): void {
  if (!(Number.isSafeInteger(start) && Number.isSafeInteger(end) && 0 <= start && start <= end && end <= file.size)) {
    throw new StorageError(
      "failed",
      `${file.name}: bytes ${start} to ${end} were asked for, the file has ${file.size}`,
    );
  }
}

export function missingFile(storage: Pick<Storage, "location">, name: string): StorageError {
  return new StorageError("missing", `${storage.location}: there is no file ${name}`);
}
