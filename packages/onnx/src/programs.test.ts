// Programs as a user runs them: in a process of their own, which must end by itself.

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { expect, test } from "vitest";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..");

// Inside the package, so that programs find onnxruntime-node.
const cache = join(root, "node_modules/.cache");

/** What a program prints. It must end with code 0 and print no errors. */
async function outputOf(program: string): Promise<string> {
  await mkdir(cache, { recursive: true });
  const folder = await mkdtemp(join(cache, "program-"));
  try {
    const source = join(folder, "program.ts");
    const bundle = join(folder, "program.mjs");
    await writeFile(source, program);
    await build({
      entryPoints: [source],
      outfile: bundle,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      conditions: ["@sisa/source"],
      external: ["onnxruntime-node", "onnxruntime-web"],
      alias: { "@sisa/onnx": join(root, "src/index.ts") },
      logLevel: "silent",
    });
    const { stdout, stderr } = await run(process.execPath, [bundle], { timeout: 60_000 });
    expect(stderr).toBe("");
    return stdout;
  } finally {
    await rm(folder, { recursive: true });
  }
}

test("a program ends though its backend is left open", async () => {
  const output = await outputOf(`
    import { add, f32, trace } from "@sisa/core";
    import { onnxruntime } from "@sisa/onnx";
    const backend = await onnxruntime();
    const executable = await backend.compile(trace({ x: f32(2) }, ({ x }) => add(x, 1)));
    const { value } = executable.run({ x: backend.tensor(f32(2)) });
    console.log(String(await value.read()));
  `);
  expect(output.trim()).toBe("1,1");
});
