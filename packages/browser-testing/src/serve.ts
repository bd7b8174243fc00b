// A web server on loopback for one test: a folder, or files that the test made.

import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";

export interface ServeOptions {
  /**
   * Whether pages are isolated (COOP and COEP), which they must be to have threads. Default false, as on most static
   * hosts.
   */
  readonly isolated?: boolean;
}

export interface LoopbackServer extends AsyncDisposable {
  /** Such as `http://127.0.0.1:38211/`. */
  readonly url: string;
}

/** Files by their path below the root, such as `{ "index.html": "..." }`. */
export type ServedFiles = { readonly [path: string]: string | Uint8Array };

const types: { readonly [extension: string]: string } = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
};

/** Serves a folder, or files in memory, on a free port of loopback. A path that ends in a slash means its index.html. */
export async function serve(source: string | ServedFiles, options: ServeOptions = {}): Promise<LoopbackServer> {
  const read = typeof source === "string" ? fromFolder(source) : fromMemory(source);
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const name = decodeURIComponent(pathname.endsWith("/") ? `${pathname}index.html` : pathname).slice(1);
    read(name).then(
      (content) => {
        if (content === undefined) {
          response.writeHead(404).end(`no such file: ${name}`);
          return;
        }
        response.setHeader("content-type", types[path.extname(name)] ?? "application/octet-stream");
        response.setHeader("cache-control", "no-store");
        if (options.isolated === true) {
          response.setHeader("cross-origin-opener-policy", "same-origin");
          response.setHeader("cross-origin-embedder-policy", "require-corp");
        }
        response.end(content);
      },
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

type Read = (name: string) => Promise<string | Uint8Array | undefined>;

function fromMemory(files: ServedFiles): Read {
  return async (name) => (Object.hasOwn(files, name) ? files[name] : undefined);
}

function fromFolder(folder: string): Read {
  const root = path.resolve(folder);
  return async (name) => {
    const file = path.join(root, name);
    const inside = file.startsWith(root + path.sep);
    const found = inside ? await stat(file).catch(() => undefined) : undefined;
    return found?.isFile() ? await readFile(file) : undefined;
  };
}
