// The example of README.md runs as printed.

import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { expect, it } from "vitest";
import { temporaryFolder } from "./testing.ts";

it("runs as printed", async () => {
  const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
  const example = /```ts\n(.*?)```/s.exec(readme)?.[1];
  if (example === undefined) throw new Error("README.md has no example");
  const folder = await temporaryFolder();
  const program = join(folder, "example.mjs");
  await build({
    stdin: { contents: example, loader: "ts", resolveDir: import.meta.dirname },
    outfile: program,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    conditions: ["@sisa/source"],
    // Bundled from sources, it has no worker program beside it.
    define: { "import.meta.url": '"file:///example.ts"' },
  });
  const lines = Array.from({ length: 10 }, (_, index) => JSON.stringify({ text: `text ${index}` }));
  await writeFile(join(folder, "corpus.jsonl"), lines.join("\n"));
  const { stdout } = await promisify(execFile)(process.execPath, [program], { cwd: folder });
  expect(stdout).toBe("128 Grüße\n9 Int32Array(4) [ 116, 101, 120, 116 ]\n");
});
