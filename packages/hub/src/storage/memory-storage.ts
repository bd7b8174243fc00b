// Files in memory: for tests, and for programs in a browser that build files to download.

import type { FileWriter, Storage, StoredFile } from "./storage.ts";
import { checkName, checkRange, missingFile } from "./storage.ts";
import { StorageError } from "./storage-error.ts";

/**
 * An empty folder in memory, or one with the given files.
 *
 * @param files name to content
 * @param options.capacityBytes writes beyond it fail with reason `full`; default no limit
 * @throws StorageError for a name that is empty, absolute or leads out of the folder
 */
export function memoryStorage(
  files: Readonly<Record<string, Uint8Array>> = {},
  options: { readonly capacityBytes?: number } = {},
): Storage {
  const contents = new Map<string, Uint8Array>();
  const storage: Storage = {
    location: "memory",

    async size(name) {
      checkName(storage, name);
      return contents.get(name)?.length;
    },

    async open(name) {
      checkName(storage, name);
      const content = contents.get(name);
      if (content === undefined) throw missingFile(storage, name);
      return openBytes(name, content);
    },

    async write(name, content) {
      checkName(storage, name);
      const room = (options.capacityBytes ?? Number.POSITIVE_INFINITY) - usedBytes(contents);
      const written = new GrowingBytes(name, room);
      if (content instanceof Uint8Array) await written.append(content);
      else await content(written);
      contents.set(name, written.take());
    },

    async list() {
      return [...contents.keys()].sort();
    },

    async rename(from, to) {
      checkName(storage, from);
      checkName(storage, to);
      const moved = [...contents].filter(([name]) => name === from || name.startsWith(`${from}/`));
      if (moved.length === 0) throw missingFile(storage, from);
      for (const [name, content] of moved) {
        contents.delete(name);
        contents.set(to + name.slice(from.length), content);
      }
    },

    async remove(name) {
      checkName(storage, name);
      for (const file of [...contents.keys()]) {
        if (file === name || file.startsWith(`${name}/`)) contents.delete(file);
      }
    },
  };
  for (const [name, content] of Object.entries(files)) {
    checkName(storage, name);
    contents.set(name, new Uint8Array(content));
  }
  return storage;
}

/** A file whose content is at hand. */
export function openBytes(name: string, content: Uint8Array): StoredFile {
  const file: StoredFile = {
    name,
    size: content.length,
    async read(start, end) {
      checkRange(file, start, end);
      return new Uint8Array(content.subarray(start, end));
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  };
  return file;
}

function usedBytes(contents: ReadonlyMap<string, Uint8Array>): number {
  let total = 0;
  for (const content of contents.values()) total += content.length;
  return total;
}

/** Bytes that grow by doubling. */
class GrowingBytes implements FileWriter {
  readonly #name: string;
  readonly #room: number;
  #bytes = new Uint8Array(1024);
  #length = 0;

  constructor(name: string, room: number) {
    this.#name = name;
    this.#room = room;
  }

  async append(bytes: Uint8Array): Promise<void> {
    const end = this.#length + bytes.length;
    if (end > this.#room) {
      throw new StorageError("full", `${this.#name}: no room left in memory storage, ${this.#room} bytes were free`);
    }
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(end, 2 * this.#bytes.length));
      larger.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = end;
  }

  async patch(start: number, bytes: Uint8Array): Promise<void> {
    checkRange({ name: this.#name, size: this.#length }, start, start + bytes.length);
    this.#bytes.set(bytes, start);
  }

  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}
