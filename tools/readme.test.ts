// The examples of the READMEs run as printed.
import { copyFile, readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { codeBlocks, exampleFolder, runExample } from "./examples.ts";
import { publicPackages } from "./packages.ts";
import { root } from "./run.mjs";

/** The first example in TypeScript of a page. */
async function exampleOf(folder: string): Promise<string> {
  const readme = await readFile(path.join(folder, "README.md"), "utf8");
  const example = codeBlocks(readme).find(({ language }) => language === "ts");
  if (example === undefined) throw new Error(`${folder}/README.md has no example`);
  return example.code;
}

test("the project's trains, samples and saves, in six lines", async () => {
  const example = await exampleOf(root);
  const statements = example.split("\n").filter((line) => line !== "" && !line.startsWith("import "));
  expect(statements).toHaveLength(6);
  await using folder = await exampleFolder();
  await copyFile(path.join(root, "README.md"), path.join(folder.path, "README.md"));
  expect(Number.parseFloat(await runExample(example, folder.path))).toBeLessThan(Math.log(257));
  expect(await readdir(path.join(folder.path, "my-model"))).toEqual(
    expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json"]),
  );
});

/** What examples print that need nothing beside them. Those of other packages are run by their own tests. */
test.each([
  // silu(8 * 0.5 * 0.1) = 0.4 / (1 + e^-0.4)
  ["core", /^graph\(x: float32\[T,8\], w: float32\[8,4\]\) \{[\s\S]*Float32Array\(1\) \[ 0\.23947/],
  ["onnx", /^Float32Array\(1\) \[ 0\.23947\d+ \] Float32Array\(32\) \[/],
])("that of @sisa/%s", async (name, printed) => {
  await using folder = await exampleFolder();
  expect(await runExample(await exampleOf(path.join(root, "packages", name)), folder.path)).toMatch(printed);
});

test.each(publicPackages().map(({ manifest, folder }) => [manifest.name, folder]))(
  "%s says what it is, how to install it, and shows it",
  async (name, folder) => {
    const readme = await readFile(path.join(folder, "README.md"), "utf8");
    expect(readme).toMatch(new RegExp(`^# ${name}\n\n\\S`));
    expect(readme).toMatch(new RegExp(`npm install .*${name}`));
    expect(codeBlocks(readme).some(({ language }) => language === "ts" || language === "sh")).toBe(true);
  },
);
