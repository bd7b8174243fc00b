// TypeScript of the workspace as one script for the browser.

import { build } from "esbuild";

/**
 * Bundles a module, and what it imports, on the workspace's sources.
 *
 * @param code        TypeScript
 * @param resolveFrom folder that its imports are resolved from: that of the test's package
 */
export async function bundle(code: string, resolveFrom: string): Promise<string> {
  const result = await build({
    stdin: { contents: code, resolveDir: resolveFrom, loader: "ts" },
    bundle: true,
    write: false,
    platform: "browser",
    format: "esm",
    target: "es2022",
    conditions: ["@sisa/source"],
    logLevel: "silent",
  });
  return result.outputFiles[0]?.text ?? "";
}

/** A page that runs one module, as files for `serve`. */
export function modulePage(script: string): { readonly "index.html": string; readonly "main.js": string } {
  const html = `<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">
<title>Test</title><script type="module" src="main.js"></script></html>`;
  return { "index.html": html, "main.js": script };
}
