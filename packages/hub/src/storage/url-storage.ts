// Files below a URL, read with Range requests so that a tensor can be fetched without the file around it. Read only.

import { openBytes } from "./memory-storage.ts";
import type { Storage, StoredFile } from "./storage.ts";
import { checkName, checkRange, missingFile } from "./storage.ts";
import { StorageError } from "./storage-error.ts";

/** How files are fetched. */
export interface UrlStorageOptions {
  /** Sent with every request, for instance `{ authorization: "Bearer ..." }`. Default none. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Makes the requests. Default: the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
}

/**
 * The files below a URL, such as `https://huggingface.co/OWNER/MODEL/resolve/main/`.
 * A server that ignores Range requests works too: the file is then held in memory while it is open. What lists or
 * writes is refused with a StorageError of reason `unsupported`.
 *
 * @throws TypeError for what is no URL
 */
export function urlStorage(base: string | URL, options: UrlStorageOptions = {}): Storage {
  const folder = new URL(base);
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  const location = folder.href;
  const fetch = options.fetch ?? globalThis.fetch;

  async function request(name: string, init: { method?: string; range?: string }): Promise<Response> {
    checkName({ location }, name);
    const url = new URL(name.split("/").map(encodeURIComponent).join("/"), folder);
    url.search = folder.search;
    const headers = { ...options.headers, ...(init.range === undefined ? {} : { range: init.range }) };
    try {
      return await fetch(url, { method: init.method ?? "GET", headers });
    } catch (cause) {
      throw new StorageError("failed", `${url.href}: cannot be reached: ${textOf(cause)}`, { cause });
    }
  }

  async function size(name: string): Promise<number | undefined> {
    const response = await request(name, { method: "HEAD" });
    if (response.status === 404) return undefined;
    if (!response.ok) throw refused(response, location + name);
    // With a content encoding the length would be that of the compressed bytes.
    const length = response.headers.get("content-encoding") === null ? response.headers.get("content-length") : null;
    if (length !== null && /^\d+$/.test(length)) return Number(length);
    return (await download(name)).length;
  }

  async function download(name: string): Promise<Uint8Array> {
    const response = await request(name, {});
    if (response.status === 404) throw missingFile({ location }, name);
    if (!response.ok) throw refused(response, location + name);
    return await bodyOf(response, location + name);
  }

  function openRemote(name: string, bytes: number): StoredFile {
    let whole: StoredFile | undefined;
    const file: StoredFile = {
      name,
      size: bytes,
      async read(start, end) {
        checkRange(file, start, end);
        if (start === end) return new Uint8Array(0);
        if (whole === undefined) {
          const response = await request(name, { range: `bytes=${start}-${end - 1}` });
          if (!response.ok) throw refused(response, location + name);
          const body = await bodyOf(response, location + name);
          const expected = response.status === 206 ? end - start : bytes;
          if (body.length !== expected) {
            throw new StorageError(
              "failed",
              `${location}${name}: expected ${expected} bytes, got ${body.length}; the file may have changed meanwhile`,
            );
          }
          if (response.status === 206) return body;
          whole = openBytes(name, body);
        }
        return await whole.read(start, end);
      },
      async close() {
        whole = undefined;
      },
      async [Symbol.asyncDispose]() {
        whole = undefined;
      },
    };
    return file;
  }

  const refuse = (what: string) => async (): Promise<never> => {
    throw new StorageError("unsupported", `${location}: a URL cannot be ${what}`);
  };
  return {
    location,
    size,
    async open(name) {
      const bytes = await size(name);
      if (bytes === undefined) throw missingFile({ location }, name);
      return openRemote(name, bytes);
    },
    list: refuse("listed"),
    write: refuse("written to"),
    rename: refuse("written to"),
    remove: refuse("written to"),
  };
}

function refused(response: Response, url: string): StorageError {
  const reason = response.status === 401 || response.status === 403 ? "denied" : "failed";
  return new StorageError(reason, `${url}: the server answered ${response.status} ${response.statusText}`.trimEnd());
}

async function bodyOf(response: Response, url: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw new StorageError("failed", `${url}: the connection broke off: ${textOf(cause)}`, { cause });
  }
}

function textOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
