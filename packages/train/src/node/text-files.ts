// Text files and folders on disk as training data.
import { constants } from "node:buffer";
import { type Dirent, statSync } from "node:fs";
import { open, readdir, readFile, realpath, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { DataError } from "@sisa/core";
import { decodeUtf8, firstInvalidUtf8, type Tokenizer, withoutByteOrderMark } from "@sisa/hub";
import { DocumentCollector, type TextDocument, type TextOptions } from "../data/text-documents.ts";
import type { TrainingData } from "../data/training-data.ts";

/** A file is taken for binary where a NUL is among its first bytes, as git does. */
const sniffedBytes = 8192;

/** Which files of a folder are read, and what is held out. */
export interface TextFilesOptions extends TextOptions {
  /** Which files of a folder to take, by path relative to the folder. Default: all text files. */
  readonly include?: (path: string) => boolean;
}

/**
 * Training data from text files: each file one document, folders with all they hold but hidden files, `node_modules` and
 * files that are not text.
 *
 * @param paths one or several files or folders
 * @throws DataError a path that is not there, no text, a file too large for one text, or bytes that are not UTF-8 (with
 *   file and offset); ConfigError where the held-out fraction is not between 0 and 1
 */
export async function textFiles(
  paths: string | readonly string[],
  tokenizer: Tokenizer,
  options: TextFilesOptions = {},
): Promise<TrainingData> {
  const roots = typeof paths === "string" ? [paths] : paths;
  const collector = new DocumentCollector(tokenizer);
  let skippedFiles = 0;
  for await (const document of documentsOf(roots, options.include)) {
    if (document === undefined) skippedFiles++;
    else addTo(collector, document);
  }
  return collector.finish({ ...options, name: options.name ?? roots.join(", "), skippedFiles });
}

/** @throws DataError that names the file, where the tokenizer refuses its text */
function addTo(collector: DocumentCollector, { name, text }: TextDocument): void {
  try {
    collector.add(text);
  } catch (cause) {
    if (DataError.isInstance(cause)) throw new DataError(`${name}: ${cause.message}`, { cause });
    throw cause;
  }
}

/**
 * The texts of files, found as `textFiles` finds them.
 * @throws DataError a path that is not there, a file too large for one text, or bytes that are not UTF-8
 */
export async function readDocuments(paths: string | readonly string[]): Promise<TextDocument[]> {
  const documents: TextDocument[] = [];
  for await (const document of documentsOf([paths].flat())) if (document !== undefined) documents.push(document);
  return documents;
}

/** Texts one at a time; undefined for a file of a folder that is not text. */
async function* documentsOf(
  roots: readonly string[],
  include: (path: string) => boolean = () => true,
): AsyncGenerator<TextDocument | undefined> {
  for (const root of roots) {
    for await (const { path, fromFolder } of filesOf(root, include)) {
      if (fromFolder && (await isBinary(path))) yield undefined;
      else yield { name: path, text: await readText(path) };
    }
  }
}

/** @throws DataError for a file of more bytes than a string has room for, or that is not UTF-8 */
async function readText(path: string): Promise<string> {
  const { size } = await stat(path);
  if (size > constants.MAX_STRING_LENGTH) {
    throw new DataError(
      `${path}: expected at most 512 MiB of text in one file, got ${size} bytes; cut it into several files, or into ` +
        "shards with `sisa prepare`",
    );
  }
  return textOf(await readFile(path), path);
}

/** @throws DataError that names the file, the byte and its offset */
function textOf(bytes: Uint8Array, path: string): string {
  const text = decodeUtf8(withoutByteOrderMark(bytes));
  if (text !== undefined) return text;
  const offset = firstInvalidUtf8(bytes);
  const byte = bytes[offset];
  const found = byte === undefined ? "the end of a cut-off character" : `byte 0x${byte.toString(16).padStart(2, "0")}`;
  throw new DataError(
    `${path}: expected UTF-8 text, got ${found} at offset ${offset}; convert the file to UTF-8 or leave it out`,
  );
}

interface FoundFile {
  readonly path: string;
  readonly fromFolder: boolean;
}

async function* filesOf(root: string, include: (path: string) => boolean): AsyncGenerator<FoundFile> {
  const found = statSync(root, { throwIfNoEntry: false });
  if (found === undefined) throw new DataError(`${root}: there is no such file or folder (looked in ${resolve(root)})`);
  if (!found.isDirectory()) yield { path: root, fromFolder: false };
  // The folder itself may be a link, as packages are under pnpm.
  else yield* walk(root, await realpath(root), "", include);
}

async function* walk(
  shownRoot: string,
  root: string,
  below: string,
  include: (path: string) => boolean,
): AsyncGenerator<FoundFile> {
  const entries = await readdir(join(root, below), { withFileTypes: true });
  // By code unit, so that the order does not depend on the machine's language.
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) yield* walk(shownRoot, root, path, include);
    else if (isFile(entry, join(root, path)) && include(path)) yield { path: join(shownRoot, path), fromFolder: true };
  }
}

/** Links to files are followed, links to folders are not: they may lead back. */
function isFile(entry: Dirent, path: string): boolean {
  return entry.isFile() || (entry.isSymbolicLink() && statSync(path, { throwIfNoEntry: false })?.isFile() === true);
}

async function isBinary(path: string): Promise<boolean> {
  await using handle = await open(path);
  const { buffer, bytesRead } = await handle.read({ buffer: new Uint8Array(sniffedBytes) });
  return buffer.subarray(0, bytesRead).includes(0);
}
