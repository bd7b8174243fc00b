// A folder on disk, for Node. A file is written under a temporary name, flushed to the disk and renamed, so that a
// crash, a full disk or a kill leaves either the old content or the new one.

import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { FileWriter, Storage, StoredFile } from "./storage.ts";
import { checkName, checkRange, missingFile } from "./storage.ts";
import { StorageError, type StorageErrorReason } from "./storage-error.ts";

/** Node reads and writes at most 2 GiB in one call. */
const maximumCallBytes = 1 << 30;

/**
 * A folder on disk. It need not exist yet: the first write makes it. A file is written beside its place, flushed to the
 * disk and renamed, so that a crash leaves the old content or the new. Errors of the system are StorageErrors.
 */
export function directory(path: string | URL): Storage {
  const root = resolve(path instanceof URL ? fileURLToPath(path) : path);
  const pathOf = (name: string): string => {
    checkName({ location: root }, name);
    return join(root, name);
  };
  const storage: Storage = {
    location: root,

    async size(name) {
      try {
        const found = await stat(pathOf(name));
        return found.isFile() ? found.size : undefined;
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw storageError(error, pathOf(name));
      }
    },

    async open(name) {
      let handle: FileHandle | undefined;
      try {
        handle = await open(pathOf(name), "r");
        const found = await handle.stat();
        if (!found.isFile()) throw missingFile(storage, name);
        return openHandle(name, handle, found.size);
      } catch (error) {
        await handle?.close();
        throw isMissing(error) ? missingFile(storage, name) : storageError(error, pathOf(name));
      }
    },

    async write(name, content) {
      const path = pathOf(name);
      const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
      try {
        await mkdir(dirname(path), { recursive: true });
        const handle = await open(temporary, "wx");
        try {
          const writer = new HandleWriter(name, handle);
          if (content instanceof Uint8Array) await writer.append(content);
          else await content(writer);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(temporary, path);
        await syncFolder(dirname(path));
      } catch (error) {
        await rm(temporary, { force: true }).catch(() => {});
        throw storageError(error, path);
      }
    },

    async list() {
      try {
        const entries = await readdir(root, { recursive: true, withFileTypes: true });
        return entries
          .filter((entry) => entry.isFile() && !isTemporary(entry.name))
          .map((entry) =>
            join(entry.parentPath, entry.name)
              .slice(root.length + 1)
              .replaceAll("\\", "/"),
          )
          .sort();
      } catch (error) {
        if (isMissing(error)) return [];
        throw storageError(error, root);
      }
    },

    async rename(from, to) {
      const source = pathOf(from);
      const target = pathOf(to);
      try {
        await mkdir(dirname(target), { recursive: true });
        await rename(source, target);
        await syncFolder(dirname(target));
      } catch (error) {
        throw isMissing(error) ? missingFile(storage, from) : storageError(error, target);
      }
    },

    async remove(name) {
      const path = pathOf(name);
      try {
        await rm(path, { recursive: true, force: true });
      } catch (error) {
        throw storageError(error, path);
      }
    },
  };
  return storage;
}

function openHandle(name: string, handle: FileHandle, size: number): StoredFile {
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= handle.close();
    return closed;
  };
  const file: StoredFile = {
    name,
    size,
    async read(start, end) {
      checkRange(file, start, end);
      const bytes = new Uint8Array(end - start);
      for (let done = 0; done < bytes.length; ) {
        const length = Math.min(bytes.length - done, maximumCallBytes);
        const { bytesRead } = await handle.read(bytes, done, length, start + done).catch((error: unknown) => {
          throw storageError(error, name);
        });
        if (bytesRead === 0) throw new StorageError("failed", `${name}: the file was cut short while it was open`);
        done += bytesRead;
      }
      return bytes;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
  return file;
}

class HandleWriter implements FileWriter {
  readonly #name: string;
  readonly #handle: FileHandle;
  #length = 0;

  constructor(name: string, handle: FileHandle) {
    this.#name = name;
    this.#handle = handle;
  }

  async append(bytes: Uint8Array): Promise<void> {
    await this.#writeAll(bytes, this.#length);
    this.#length += bytes.length;
  }

  async patch(start: number, bytes: Uint8Array): Promise<void> {
    checkRange({ name: this.#name, size: this.#length }, start, start + bytes.length);
    await this.#writeAll(bytes, start);
  }

  async #writeAll(bytes: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const length = Math.min(bytes.length - done, maximumCallBytes);
      done += (await this.#handle.write(bytes, done, length, position + done)).bytesWritten;
    }
  }
}

/** Makes a rename durable. Not every system lets a folder be opened; its files are whole all the same. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r").catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}

function isTemporary(name: string): boolean {
  return /^\..*\.[0-9a-f]{12}\.tmp$/.test(name);
}

function codeOf(error: unknown): string {
  return typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
}

function isMissing(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR"].includes(codeOf(error));
}

const reasons: Readonly<Record<string, StorageErrorReason>> = {
  ENOSPC: "full",
  EDQUOT: "full",
  EFBIG: "full",
  EACCES: "denied",
  EPERM: "denied",
  EROFS: "denied",
};

const advice: Readonly<Partial<Record<StorageErrorReason, string>>> = {
  full: "the disk is full; free some space and try again, what was there before is untouched",
  denied: "the system refuses access; check the permissions",
};

/** Errors of the system become StorageErrors; errors of the caller's producer pass as they are. */
function storageError(error: unknown, path: string): unknown {
  const code = codeOf(error);
  if (!(error instanceof Error) || !/^E[A-Z0-9]+$/.test(code)) return error;
  const reason = reasons[code] ?? "failed";
  return new StorageError(reason, `${path}: ${advice[reason] ?? error.message}`, { cause: error });
}
