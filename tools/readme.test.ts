// The library example of the README runs as printed.
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..");
/** A package that depends on all the others, so that the example finds them from here. */
const command = join(root, "apps/cli");

test("the README's example trains, samples and saves", async () => {
  const readme = await readFile(join(root, "README.md"), "utf8");
  const example = /```ts\n(.*?)```/s.exec(readme)?.[1] ?? "";
  const statements = example.split("\n").filter((line) => line !== "" && !line.startsWith("import "));
  expect(statements).toHaveLength(6);

  const cache = join(command, "node_modules/.cache");
  await mkdir(cache, { recursive: true });
  const folder = await mkdtemp(join(cache, "readme-"));
  try {
    const program = join(folder, "example.mjs");
    await build({
      stdin: { contents: example, loader: "ts", resolveDir: command },
      outfile: program,
      bundle: true,
      format: "esm",
      platform: "node",
      target: "node20",
      conditions: ["@sisa/source"],
    });
    await copyFile(join(root, "README.md"), join(folder, "README.md"));
    const { stdout } = await promisify(execFile)(process.execPath, [program], { cwd: folder });
    expect(Number.parseFloat(stdout)).toBeLessThan(Math.log(257));
    expect(await readdir(join(folder, "my-model"))).toEqual(
      expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json"]),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
