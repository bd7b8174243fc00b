import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { expect, test } from "vitest";

const run = promisify(execFile);

// Inside the package, so that the program finds onnxruntime-node.
const cache = join(import.meta.dirname, "../node_modules/.cache");

const program = (end: string) => `
import { add, f32, trace } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
const backend = await onnxruntime();
const executable = await backend.compile(trace({ x: f32(2) }, ({ x }) => add(x, 1)));
const { value } = executable.run({ x: backend.tensor(f32(2)) });
console.log(String(await value.read()));
${end}
`;

test.for([
  ["is closed", "await backend.close();"],
  ["is left open", ""],
])("a program ends by itself where its backend %s", async ([, end = ""]) => {
  await mkdir(cache, { recursive: true });
  const folder = await mkdtemp(join(cache, "exit-"));
  try {
    const source = join(folder, "program.ts");
    const bundle = join(folder, "program.mjs");
    await writeFile(source, program(end));
    await build({
      entryPoints: [source],
      outfile: bundle,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      conditions: ["@sisa/source"],
      external: ["onnxruntime-node", "onnxruntime-web"],
      alias: { "@sisa/onnx": join(import.meta.dirname, "index.ts") },
      logLevel: "silent",
    });
    const { stdout, stderr } = await run(process.execPath, [bundle], { timeout: 60_000 });
    expect(stdout.trim()).toBe("1,1");
    expect(stderr).toBe("");
  } finally {
    await rm(folder, { recursive: true });
  }
});
