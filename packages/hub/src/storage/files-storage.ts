// Files that a person picked or dropped in a browser. Read only.

import type { Storage, StoredFile } from "./storage.ts";
import { checkName, checkRange, missingFile } from "./storage.ts";
import { StorageError } from "./storage-error.ts";

/** What is used of the browser's `File`; content is read in ranges, never whole. */
export interface PickedFile {
  /** Without its folder. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** Path below the picked folder, with the folder's own name first; empty where single files were picked. */
  readonly webkitRelativePath?: string;
  /** The bytes from `start` up to but not including `end`, not read yet. */
  slice(
    start: number,
    end: number,
  ): {
    /** Reads them. */
    arrayBuffer(): Promise<ArrayBuffer>;
  };
}

/**
 * The files of an `<input type="file">` (with or without `webkitdirectory`) or of a drop, as a folder. What writes is
 * refused with a StorageError of reason `unsupported`.
 */
export function filesStorage(files: Iterable<PickedFile>): Storage {
  const byName = new Map<string, PickedFile>();
  for (const file of files) byName.set(nameOf(file), file);
  const refuse = async (): Promise<never> => {
    throw new StorageError("unsupported", "picked files: they can be read, not changed; save to another storage");
  };
  const storage: Storage = {
    location: "picked files",
    async size(name) {
      checkName(storage, name);
      return byName.get(name)?.size;
    },
    async open(name) {
      checkName(storage, name);
      const file = byName.get(name);
      if (file === undefined) throw missingFile(storage, name);
      return openPicked(name, file);
    },
    async list() {
      return [...byName.keys()].sort();
    },
    write: refuse,
    rename: refuse,
    remove: refuse,
  };
  return storage;
}

function nameOf(file: PickedFile): string {
  const path = file.webkitRelativePath ?? "";
  return path === "" ? file.name : path.slice(path.indexOf("/") + 1);
}

function openPicked(name: string, picked: PickedFile): StoredFile {
  const file: StoredFile = {
    name,
    size: picked.size,
    async read(start, end) {
      checkRange(file, start, end);
      try {
        return new Uint8Array(await picked.slice(start, end).arrayBuffer());
      } catch (cause) {
        throw new StorageError("failed", `${name}: cannot be read any more; pick it again`, { cause });
      }
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
  return file;
}
