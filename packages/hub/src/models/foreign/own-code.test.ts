// Tiny models with random weights that the code of their authors wrote, and the logits that it computed from them;
// test/fixtures/README.md says which code, and what stood in for its kernels.

import { evaluate } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { jsonBytes, parseJson } from "../../json.ts";
import { openSafetensors, type SafetensorsFile } from "../../safetensors/read.ts";
import { writeSafetensors } from "../../safetensors/write.ts";
import { directory } from "../../storage/directory-storage.ts";
import { memoryStorage } from "../../storage/memory-storage.ts";
import { readBytes } from "../../storage/storage.ts";
import { toFloat32, toInt32 } from "../../tensors.ts";
import { fixtures } from "../../testing.ts";
import { byteTokenizer } from "../../tokenizers/byte-tokenizer.ts";
import { importTorchModel } from "../import-torch.ts";
import { type LoadedModel, loadModelFolder } from "../model-folder.ts";

const files = directory(new URL("foreign/", fixtures));
const tokenizer = byteTokenizer();

/** config.json as the other code writes it. */
function configOf(file: SafetensorsFile): Readonly<Record<string, unknown>> {
  return { ...(parseJson(file.metadata.config ?? "") as object) };
}

/** Largest distance between our logits and those of a file, as a share of the largest. */
async function distance({ model, parameters }: LoadedModel, file: SafetensorsFile): Promise<number> {
  const ids = await file.read("golden.ids");
  const expected = toFloat32(await file.read("golden.logits"), "golden.logits");
  const inputs = Object.entries(model.parameters).map(([name, { shape }]) => [
    name,
    { shape, data: Float64Array.from(parameters[name] ?? []) },
  ]);
  const all = { ids: { shape: ids.shape, data: toInt32(ids, "golden.ids") }, ...Object.fromEntries(inputs) };
  const [B = 1, T = 1] = ids.shape;
  const found = evaluate(model.logitsGraph().bind({ B, T }), all, "float64").logits?.data;
  expect(found).toHaveLength(expected.length);
  const apart = expected.map((value, index) => Math.abs(value - Number(found?.[index])));
  return Math.max(...apart) / Math.max(...expected.map(Math.abs));
}

describe("a folder as transformers saves it computes what the code of the model computes", () => {
  it.each([
    "mamba-tiny",
    "mamba2-groups-tiny",
    "falcon-h1-norm-tiny",
    "jamba-experts-tiny",
    "fox-llama-tiny",
    "fox-pro-tiny",
    "fox-pro-shared-norm-tiny",
    "hymba-tiny",
  ])("%s", async (name) => {
    await using file = await openSafetensors(files, `${name}.safetensors`);
    const storage = memoryStorage();
    await storage.write("config.json", jsonBytes(configOf(file)));
    const names = [...file.tensors.keys()].filter((tensor) => !tensor.startsWith("golden."));
    const tensors = names.map(async (tensor) => [tensor, await file.read(tensor)] as const);
    await writeSafetensors(storage, "model.safetensors", Object.fromEntries(await Promise.all(tensors)));
    expect(await distance(await loadModelFolder(storage, { tokenizer }), file)).toBeLessThan(1e-5);
  });
});

describe.each(["mamba-ssm-1-tiny", "mamba-ssm-2-tiny", "mamba-ssm-3-tiny", "mamba-ssm-3-mlp-tiny"])("%s", (name) => {
  it("computes the same from the folder that mamba_ssm saves", async () => {
    await using expected = await openSafetensors(files, `${name}.expected.safetensors`);
    const storage = memoryStorage();
    await storage.write("config.json", jsonBytes(configOf(expected)));
    await storage.write("pytorch_model.bin", await readBytes(files, `${name}.bin`));
    expect(await distance(await loadModelFolder(storage, { tokenizer }), expected)).toBeLessThan(1e-5);
  });

  it("and from the weights alone", async () => {
    await using expected = await openSafetensors(files, `${name}.expected.safetensors`);
    const loaded = await importTorchModel(files, `${name}.bin`, { tokenizer });
    expect(await distance(loaded, expected)).toBeLessThan(1e-5);
  });
});
