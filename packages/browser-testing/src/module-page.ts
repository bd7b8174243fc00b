// TypeScript of the workspace as a page that runs it.

import path from "node:path";
import { build } from "esbuild";
import type { ServedFiles } from "./serve.ts";

const html = `<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">
<title>Test</title><script type="module" src="main.js"></script></html>`;

/**
 * A page that runs one module, bundled with what it imports from the workspace's sources, as files for `serve`. What is
 * imported by `import()` is a file of its own, so that a package which starts itself again as a worker can do so.
 *
 * @param code        TypeScript
 * @param resolveFrom folder that its imports are resolved from, such as the test's own
 */
export async function modulePage(code: string, resolveFrom: string): Promise<ServedFiles> {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: resolveFrom, loader: "ts", sourcefile: "main.ts" },
    bundle: true,
    splitting: true,
    write: false,
    outdir: resolveFrom,
    entryNames: "main",
    platform: "browser",
    format: "esm",
    target: "es2022",
    conditions: ["@sisa/source"],
    logLevel: "silent",
  });
  const scripts = outputFiles.map((file) => [path.basename(file.path), file.contents] as const);
  return { "index.html": html, ...Object.fromEntries(scripts) };
}
