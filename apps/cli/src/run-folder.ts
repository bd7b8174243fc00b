// What a training run leaves on disk, and where: one folder a run, and `latest`, which leads to the newest.
import { mkdir, open, readdir, readFile, rename, rm, rmdir, stat, symlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CheckpointError, ConfigError } from "@sisa/core";
import { StorageError } from "@sisa/hub";
import { directory } from "@sisa/hub/node";

/** What was trained on what, as JSON. */
export const runFile = "run.json";
export const metricsFileName = "metrics.jsonl";
export const checkpointsFolder = "checkpoints";
export const tensorboardFolderName = "tensorboard";
export const reportFile = "report.html";
const latestLink = "latest";

/**
 * The folder for a run: `name`, or where that is taken `name-2`, `name-3`, ...
 *
 * @param goOn take up the newest run of the name, where there is one
 * @throws ConfigError for a name that is no folder's name
 */
export async function runFolderFor(output: string, name: string, goOn: boolean): Promise<string> {
  if (name === "" || name === latestLink || name !== basename(name) || /^\.|[\\:]/.test(name)) {
    throw new ConfigError(`--name: expected the name of a folder, other than "${latestLink}", got "${name}"`);
  }
  const newest = await newestNumber(output, name);
  return join(output, numbered(name, goOn ? Math.max(1, newest) : newest + 1));
}

/**
 * Makes the folder of a new run. Several runs that begin at once get one each: what is not made yet looks free to all.
 * @returns the folder; disposed, it and what was made above it go again where nothing was written there
 */
export async function makeRunFolder(output: string, name: string): Promise<AsyncDisposable & { folder: string }> {
  const topmost = await mkdir(output, { recursive: true });
  let folder: string | undefined;
  for (let number = 1 + (await newestNumber(output, name)); folder === undefined; number++) {
    folder = await mkdirIfFree(join(output, numbered(name, number)));
  }
  const made = [folder];
  for (let path = output; topmost !== undefined && path.length >= topmost.length; path = dirname(path)) made.push(path);
  return {
    folder,
    async [Symbol.asyncDispose]() {
      // Only empty ones can be removed in this way.
      for (const path of made) await rmdir(path).catch(() => {});
    },
  };
}

async function mkdirIfFree(path: string): Promise<string | undefined> {
  try {
    await mkdir(path);
    return path;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return undefined;
    throw error;
  }
}

/** The highest number among the runs of a name; 0 where there is none. */
async function newestNumber(output: string, name: string): Promise<number> {
  const names = await readdir(output).catch(() => []);
  const taken = names
    .map((other) => (other === name ? 1 : other.startsWith(`${name}-`) ? wholeNumber(other.slice(name.length + 1)) : 0))
    .filter((number) => number > 0);
  return Math.max(0, ...taken);
}

function numbered(name: string, number: number): string {
  return number === 1 ? name : `${name}-${number}`;
}

/** The number that the digits spell, from 2; 0 for any other text. */
function wholeNumber(text: string): number {
  return /^[1-9]\d*$/.test(text) && Number(text) >= 2 ? Number(text) : 0;
}

/** @throws ConfigError where a file has the name of the folder, or of one above it */
export async function requireFolder(path: string, field: string): Promise<void> {
  const found = await stat(path).catch((error: unknown) => {
    const isBelowFile = error instanceof Error && "code" in error && error.code === "ENOTDIR";
    return isBelowFile ? ("file" as const) : undefined;
  });
  if (found === undefined || (found !== "file" && found.isDirectory())) return;
  throw new ConfigError(
    `${field}: expected a folder, or a name that is free, got ${path}, which is a file or below one`,
  );
}

/**
 * Tries whether files can be written into a folder, or where the folder would be made. Leaves nothing behind.
 * @throws StorageError where they cannot
 */
export async function requireWritable(folder: string, field: string): Promise<void> {
  let existing = folder;
  while ((await stat(existing).catch(() => undefined)) === undefined && existing !== dirname(existing)) {
    existing = dirname(existing);
  }
  const storage = directory(existing);
  const name = `.sisa-${process.pid}`;
  try {
    await storage.write(name, new Uint8Array(1));
    await storage.remove(name);
  } catch (error) {
    if (!StorageError.isInstance(error)) throw error;
    throw new StorageError(error.reason, `${field}: ${folder} cannot be written to: ${error.message}`, {
      cause: error,
    });
  }
}

/** Writes what a run is, and lets `latest` lead to it. */
export async function beginRunFolder(folder: string, description: unknown): Promise<void> {
  await mkdir(folder, { recursive: true });
  await replaceFile(join(folder, runFile), `${JSON.stringify(description, undefined, 2)}\n`);
  await pointLatest(folder);
}

/**
 * The configuration that a run was trained with, not yet checked.
 * @throws CheckpointError where the folder is that of no run
 */
export async function configOfRun(run: string): Promise<unknown> {
  const path = join(run, runFile);
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    if (typeof value === "object" && value !== null && "config" in value) return value.config;
  } catch (cause) {
    throw new CheckpointError(`${path}: cannot be read: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  throw new CheckpointError(`${path}: expected the configuration of a run`);
}

/** A small file, whole or not at all. */
export async function replaceFile(path: string, content: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, content);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** No name of a folder is longer. */
const longestPointer = 1024;

/**
 * The path that `latest` leads to where it is a file that holds a name; any other path as it is.
 * @throws CheckpointError for a file that holds anything else
 */
export async function followPointer(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  if (basename(path) !== latestLink || found?.isFile() !== true) return path;
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(longestPointer) });
    const name = buffer.toString("utf8", 0, bytesRead).trim();
    if (name !== "" && name !== latestLink && name === basename(name)) return join(dirname(path), name);
  } finally {
    await file.close();
  }
  throw new CheckpointError(`${path}: expected the name of the run beside it that is the newest, got something else`);
}

/** A link where the disk has links, else a file that holds the name; `followPointer` reads it. */
async function pointLatest(folder: string): Promise<void> {
  const link = join(folder, "..", latestLink);
  // Runs in containers that share a disk may have one process id.
  const temporary = `${link}.${basename(folder)}.${process.pid}.tmp`;
  await rm(temporary, { force: true });
  try {
    await symlink(basename(folder), temporary, "dir");
    await rename(temporary, link);
  } catch {
    await rm(temporary, { force: true });
    await replaceFile(link, `${basename(folder)}\n`);
  }
}
