// Exports that are written to disk.

import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { initialize, languageModel, preset } from "@sisa/core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { exportOnnx } from "../node.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sisa-export-"));
});
afterAll(() => rm(folder, { recursive: true }));

const model = languageModel(
  preset("sisa", "1m", { vocabularySize: 31, width: 16, heads: 2, layers: 1, stateWidth: 4 }),
);
const source = { model, parameters: initialize(model, 1), assets: { "config.json": new TextEncoder().encode("{}") } };
const dtypes = ["float32", "int8"] as const;

test("writes into a folder what it returns without one", async () => {
  const returned = await exportOnnx(source, { dtypes });
  for (const to of [join(folder, "a/path"), pathToFileURL(join(folder, "url"))]) {
    expect(await exportOnnx(source, { to, dtypes })).toBeUndefined();
    const entries = await readdir(to, { recursive: true, withFileTypes: true });
    expect(entries.filter((entry) => entry.isFile())).toHaveLength(Object.keys(returned).length);
    for (const [path, bytes] of Object.entries(returned)) {
      const written = await readFile(typeof to === "string" ? join(to, path) : new URL(`url/${path}`, to));
      expect(written.equals(bytes), path).toBe(true);
    }
  }
});

test("gives each file to a target as soon as it is made", async () => {
  const written: string[] = [];
  const target = { write: async (path: string) => void written.push(path) };
  await exportOnnx(source, { to: target, dtypes });
  expect(written).toEqual([
    "config.json",
    "onnx/model.onnx",
    "onnx/model_fixed.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_fixed_int8.onnx",
    "onnx/report.json",
    "README.md",
  ]);
});

test("refuses a file in place of the folder, and writes nothing where options are wrong", async () => {
  const file = join(folder, "file");
  await writeFile(file, "mine");
  await expect(exportOnnx(source, { to: file })).rejects.toThrow(
    `exportOnnx: expected a folder, got ${file}, which is a file`,
  );
  await expect(exportOnnx(source, { to: join(folder, "none"), dtypes: ["int2"] as never })).rejects.toThrow(
    'got "int2"',
  );
  expect(await readFile(file, "utf8")).toBe("mine");
  expect(await readdir(folder)).not.toContain("none");
});
