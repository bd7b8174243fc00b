// The examples of the READMEs run as printed.
import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { testGpuEnvironment } from "../packages/browser-testing/src/node.ts";
import { codeBlocks, exampleFolder, runExample } from "./examples.ts";
import { publicPackages } from "./packages.ts";
import { root } from "./run.mjs";

/** An example in TypeScript of a page: the first, or the one that has a text. */
async function exampleOf(folder: string, text = ""): Promise<string> {
  const readme = await readFile(path.join(folder, "README.md"), "utf8");
  const example = codeBlocks(readme).find(({ language, code }) => language === "ts" && code.includes(text));
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

const packageFolder = (name: string) => path.join(root, "packages", name);

/** What examples print that need nothing beside them. */
test.each([
  // silu(8 * 0.5 * 0.1) = 0.4 / (1 + e^-0.4)
  ["core", /^graph\(x: float32\[T,8\], w: float32\[8,4\]\) \{[\s\S]*Float32Array\(1\) \[ 0\.23947/],
  ["onnx", /^Float32Array\(1\) \[ 0\.23947\d+ \] Float32Array\(32\) \[/],
])("that of @sisa/%s", async (name, printed) => {
  await using folder = await exampleFolder();
  expect(await runExample(await exampleOf(packageFolder(name)), folder.path)).toMatch(printed);
});

test("that of @sisa/hub, and that of @sisa/serve with the model that it saves", async () => {
  await using folder = await exampleFolder();
  const lines = Array.from({ length: 10 }, (_, index) => JSON.stringify({ text: `text ${index}` }));
  await writeFile(path.join(folder.path, "corpus.jsonl"), lines.join("\n"));
  expect(await runExample(await exampleOf(packageFolder("hub")), folder.path)).toBe(
    "128 Grüße\n9 Int32Array(4) [ 116, 101, 120, 116 ]\n",
  );
  // Any free port: 8080 may be taken on this machine.
  const service = (await exampleOf(packageFolder("serve"))).replace("8080", "0");
  expect(await runExample(service, folder.path)).toMatch(/^200 [\s\S]+\n$/);
});

test("that of @sisa/train", async () => {
  await using folder = await exampleFolder();
  await mkdir(path.join(folder.path, "corpus"));
  await writeFile(path.join(folder.path, "corpus/a.txt"), "Once upon a time there was a small model. ".repeat(200));
  const printed = await runExample(await exampleOf(packageFolder("train")), folder.path);
  expect(Number.parseFloat(printed)).toBeLessThan(Math.log(257));
});

test("that of @sisa/kernels-webgpu, on SwiftShader", async () => {
  await using folder = await exampleFolder(packageFolder("kernels-webgpu"));
  const example = await exampleOf(packageFolder("kernels-webgpu"));
  const printed = await runExample(example, folder.path, await testGpuEnvironment());
  expect(printed).toMatch(/SwiftShader[\s\S]*Float32Array\(1\) \[ 0\.23947/);
  // Its process ends though nothing is closed.
  await runExample(example.replace("await using", "const"), folder.path, await testGpuEnvironment());
  const tuned = await exampleOf(packageFolder("kernels-webgpu"), "autotune");
  await runExample(tuned, folder.path, await testGpuEnvironment());
});

test("that of @sisa/kernels-cuda says what is missing where there is no GPU", async () => {
  await using folder = await exampleFolder(packageFolder("kernels-cuda"));
  const attempt = runExample(await exampleOf(packageFolder("kernels-cuda")), folder.path, { CUDA_VISIBLE_DEVICES: "" });
  await expect(attempt).rejects.toThrow(/BackendUnavailableError: cuda: .*(install|check with nvidia-smi)/);
});

test("that of @sisa/cli is a configuration", async () => {
  await using folder = await exampleFolder();
  await writeFile(path.join(folder.path, "sisa.config.ts"), await exampleOf(path.join(root, "apps/cli")));
  const program = 'import config from "./sisa.config.ts"; console.log(config.steps, config.model.vocabularySize);';
  expect(await runExample(program, folder.path)).toBe("2000 257\n");
});

test.each(publicPackages().map(({ manifest, folder }) => [manifest.name, folder]))(
  "%s says what it is, how to install it, shows it, and leads to the documentation",
  async (name, folder) => {
    const readme = await readFile(path.join(folder, "README.md"), "utf8");
    expect(readme).toMatch(new RegExp(`^# ${name}\n\n\\S`));
    expect(readme).toMatch(new RegExp(`npm install .*${name}`));
    expect(codeBlocks(readme).some(({ language }) => language === "ts")).toBe(true);
    const links = [...readme.matchAll(/\]\(((?!https?:)[^)#]+)\)/g)].map(([, link]) => path.join(folder, link ?? ""));
    expect(links).toContain(path.join(root, "docs/index.md"));
    expect(links.filter((link) => !existsSync(link))).toEqual([]);
  },
);
