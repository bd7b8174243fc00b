// Every package as a registry would get it: what is in it, and that every kind of importer finds its code and its types.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PackedPackage, packAll, publishedPackages } from "./packed.ts";

let folder: string;
let packed: readonly PackedPackage[];

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "sisa-packed-"));
  packed = await packAll(folder);
}, 300_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

const names = publishedPackages().map(({ name }) => name);

async function tarballOf(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const found = packed.find((each) => each.name === name);
  if (found === undefined) throw new Error(`${name} was not packed`);
  return new Uint8Array(await readFile(found.tarball));
}

test.each(names)("%s holds its licence, its README and what its package.json names", async (name) => {
  const { messages, pkg } = await publint({ pack: { tarball: (await tarballOf(name)).buffer } });
  expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
  const content = createPackageFromTarballData(await tarballOf(name));
  const files = content.listFiles();
  expect(files).toEqual(expect.arrayContaining([`/node_modules/${name}/LICENSE`, `/node_modules/${name}/README.md`]));
  expect(files.filter((file) => /\.test\.|\/src\//.test(file))).toEqual([]);
  const manifest = content.readFile(`/node_modules/${name}/package.json`);
  expect(manifest).not.toContain("workspace:");
  expect(JSON.stringify(JSON.parse(manifest).exports)).not.toContain("@sisa/source");
});

test.each(names)("%s gives types to every kind of importer", async (name) => {
  const result = await checkPackage(createPackageFromTarballData(await tarballOf(name)));
  if (!result.types) throw new Error(`${name} has no types`);
  const problems = result.problems.filter((problem) => {
    // Modules only, on purpose: CommonJS reaches them by import(), and resolution from before `exports` by nothing.
    if (problem.kind === "CJSResolvesToESM") return false;
    return !("resolutionKind" in problem && problem.resolutionKind === "node10");
  });
  expect(problems).toEqual([]);
});
