// Every kind of file that is exported, against a structural check and, where Python has it, the official checker.

import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { initialize, languageModel, preset } from "@sisa/core";
import { type ModelProto, ModelProtoSchema, NodeProtoSchema, type ValueInfoProto } from "onnx-buf";
import { beforeAll, describe, expect, test } from "vitest";
import { type ExportedFiles, exportOnnx } from "../index.ts";
import { problemsOf } from "./check-model.ts";
import { models } from "./testing.ts";

const python = process.env.PYTHON ?? "python3";
const found = spawnSync(python, ["-c", "import onnx; print(onnx.__version__)"], { encoding: "utf8" });
const official = found.status === 0 ? found.stdout.trim() : undefined;

const sizes = { vocabularySize: 31, width: 32, heads: 2, layers: 2, stateWidth: 4, maximumLength: 96 };
const folders: Record<string, ExportedFiles> = {};
beforeAll(async () => {
  const config = preset("sisa", "1m", sizes);
  const dtypes = ["float32", "float16", "int8", "int4"] as const;
  for (const mixers of [
    ["sisa", "sisa"],
    ["attention", "attention"],
    ["attention", "sisa"],
  ] as const) {
    const model = languageModel({ ...config, mixers });
    const source = { model, parameters: initialize(model, 1) };
    folders[mixers.join(" and ")] = await exportOnnx(source, { dtypes });
    folders[`${mixers.join(" and ")}, weights apart`] = await exportOnnx(source, { dtypes, largestFileBytes: 10_000 });
    folders[`${mixers.join(" and ")}, sdpa`] = await exportOnnx(source, { dtypes: ["float32"], form: "sdpa" });
  }
  for (const [name, other] of Object.entries(models)) {
    const model = languageModel(other);
    folders[name] = await exportOnnx({ model, parameters: initialize(model, 1) });
  }
});

const outsideOf = (files: ExportedFiles) =>
  Object.fromEntries(Object.entries(files).map(([path, bytes]) => [basename(path), bytes]));

test("exported files are sound", () => {
  let count = 0;
  for (const [name, files] of Object.entries(folders)) {
    for (const [path, bytes] of Object.entries(files)) {
      if (!path.endsWith(".onnx")) continue;
      expect(problemsOf(bytes, outsideOf(files)), `${path} of ${name}`).toEqual([]);
      count++;
    }
  }
  // Two kinds of decoder, but one for the two models of states only.
  expect(count).toBe(6 * 8 + 3 * 2 + Object.keys(models).length * 2 - 2);
});

const checkAll = `
import sys, onnx
for path in sys.argv[1:]:
    onnx.checker.check_model(path, full_check=True)
print("checked", len(sys.argv) - 1)
`;

// The name says which of the two ran.
test(`exported files pass ${official ? `the checker of onnx ${official}` : `no official check: ${python} has no package onnx`}`, async () => {
  if (official === undefined) {
    expect(found.status).not.toBe(0);
    return;
  }
  const root = await mkdtemp(join(tmpdir(), "sisa-onnx-"));
  try {
    for (const [name, files] of Object.entries(folders)) {
      const paths: string[] = [];
      for (const [path, bytes] of Object.entries(files)) {
        await writeFile(join(root, basename(path)), bytes);
        if (path.endsWith(".onnx")) paths.push(join(root, basename(path)));
      }
      const checked = spawnSync(python, ["-c", checkAll, ...paths], { encoding: "utf8" });
      expect(checked.stderr, name).toBe("");
      expect(checked.stdout.trim(), name).toBe(`checked ${paths.length}`);
    }
  } finally {
    await rm(root, { recursive: true });
  }
});

describe("the structural check", () => {
  const changed = (change: (model: ModelProto) => void): string[] => {
    const model = fromBinary(ModelProtoSchema, folders["sisa and sisa"]?.["onnx/model.onnx"] ?? new Uint8Array());
    change(model);
    return problemsOf(toBinary(ModelProtoSchema, model));
  };

  test.each<[string, (model: ModelProto) => void, string]>([
    ["a lost node", ({ graph }) => graph?.node.splice(3, 1), "which is not defined before"],
    ["nodes out of order", ({ graph }) => graph?.node.reverse(), "which is not defined before"],
    ["a lost constant", ({ graph }) => graph?.initializer.splice(0, 1), "which is not defined before"],
    ["a lost byte", ({ graph }) => cutData(graph), "should have"],
    ["another operator set", ({ opsetImport: [first] }) => setVersion(first), "does not belong to IR version"],
    ["an unknown domain", ({ graph }) => setDomain(graph?.node[0]), 'operator set "acme" is not imported'],
    [
      "control flow",
      ({ graph }) => graph?.node.push(create(NodeProtoSchema, { opType: "Loop", output: ["z"] })),
      "is control flow",
    ],
    [
      "a node of no use",
      ({ graph }) => graph?.node.push(create(NodeProtoSchema, { opType: "Neg", input: ["input_ids"], output: ["z"] })),
      "nothing reads Neg",
    ],
    [
      "a lost output",
      ({ graph }) => graph?.output.push({ ...(graph.output[0] as ValueInfoProto), name: "other" }),
      'output "other" is not defined',
    ],
  ])("finds %s", (_name, change, problem) => {
    expect(changed(change).join("\n")).toContain(problem);
  });

  test("finds data that is not where it should be", () => {
    const files = folders["sisa and sisa, weights apart"] ?? {};
    const model = files["onnx/model.onnx"] ?? new Uint8Array();
    const data = files["onnx/model.onnx_data"] ?? new Uint8Array();
    expect(problemsOf(model).join()).toContain('lies in "model.onnx_data", which is not there');
    expect(problemsOf(model, { "model.onnx_data": data.subarray(0, 20_000) }).join()).toContain("ends after its file");
  });
});

function cutData(graph: ModelProto["graph"]): void {
  const large = graph?.initializer.find(({ rawData }) => rawData.length > 100);
  if (large) large.rawData = large.rawData.slice(1);
}

function setVersion(imported: { version: bigint } | undefined): void {
  if (imported) imported.version = 20n;
}

function setDomain(node: { domain: string } | undefined): void {
  if (node) node.domain = "acme";
}
