import { mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import {
  CheckpointError,
  generate,
  i32,
  initialize,
  languageModel,
  type ModelConfig,
  modelConfigToJson,
  preset,
  reference,
} from "@sisa/core";
import { afterEach, describe, expect, it, vi } from "vitest";
import { jsonBytes } from "../json.ts";
import { openSafetensors } from "../safetensors/read.ts";
import { openTensors } from "../safetensors/sharded.ts";
import { writeSafetensors } from "../safetensors/write.ts";
import { directory } from "../storage/directory-storage.ts";
import { memoryStorage } from "../storage/memory-storage.ts";
import { readBytes, type Storage } from "../storage/storage.ts";
import { toFloat32, toInt32 } from "../tensors.ts";
import { fixtures, temporaryFolder, utf8 } from "../testing.ts";
import { byteTokenizer } from "../tokenizers/byte-tokenizer.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { importTorchModel } from "./import-torch.ts";
import { loadModel as loadAnywhere } from "./load-model.ts";
import { checkTokenizer, loadModelFolder, type ModelToSave, saveModelFolder } from "./model-folder.ts";
import { loadModel, saveModel } from "./node.ts";

const tokenizer = byteTokenizer();
const config = preset("sisa", "1m", {
  mixers: ["sisa", "attention"],
  width: 8,
  heads: 2,
  stateWidth: 4,
  feedForwardWidth: 6,
  vocabularySize: 257,
  maximumLength: 32,
});
const parameters = initialize(languageModel(config), 1);
const saved: ModelToSave = { config, parameters, tokenizer, generationConfig: { temperature: 0.5, topK: 3 } };

afterEach(() => {
  vi.restoreAllMocks();
});

async function savedModel(): Promise<Storage> {
  const storage = memoryStorage();
  await saveModelFolder(storage, saved);
  return storage;
}

async function text(storage: Storage, name: string): Promise<string> {
  return new TextDecoder().decode(await readBytes(storage, name));
}

describe("a model folder", () => {
  it("gives back what was saved", async () => {
    const loaded = await loadModelFolder(await savedModel());
    expect(loaded.model.config).toEqual(config);
    expect(loaded.parameters).toEqual(parameters);
    expect(loaded.tokenizer.size).toBe(257);
    expect(loaded.generationConfig).toEqual({ temperature: 0.5, topK: 3 });
  });

  it("has the files and fields that Hugging Face tools look for", async () => {
    const storage = await savedModel();
    expect(await storage.list()).toEqual([
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(JSON.parse(await text(storage, "config.json"))).toMatchObject({
      architectures: ["SisaForCausalLM"],
      model_type: "sisa",
      vocab_size: 257,
      bos_token_id: 256,
      eos_token_id: 256,
      torch_dtype: "float32",
    });
    expect(JSON.parse(await text(storage, "generation_config.json"))).toEqual({
      bos_token_id: 256,
      eos_token_id: 256,
      do_sample: true,
      temperature: 0.5,
      top_k: 3,
    });
    await using weights = await openSafetensors(storage, "model.safetensors");
    expect(weights.metadata).toEqual({ format: "pt" });
    const card = await text(storage, "README.md");
    expect(card).toMatch(/^---\nlibrary_name: sisa\n/);
    expect(card).toContain("| Layers | 1 sisa, 1 attention |");
    expect(card).toContain("| State width per head | 4 |");
  });

  it("carries the bytes of its small files as assets", async () => {
    const storage = await savedModel();
    const { assets } = await loadModelFolder(storage);
    expect(Object.keys(assets)).toEqual([
      "config.json",
      "generation_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(assets["tokenizer.json"]).toEqual(await readBytes(storage, "tokenizer.json"));
  });

  it("can hold bfloat16 in shards, vectors in float32", async () => {
    const storage = memoryStorage();
    await saveModelFolder(storage, saved, { dtype: "bfloat16", maximumShardBytes: 3000 });
    expect(await storage.list()).toContain("model.safetensors.index.json");
    expect(JSON.parse(await text(storage, "config.json")).torch_dtype).toBe("bfloat16");
    await using weights = await openTensors(storage);
    expect(weights.tensors.get("embed.weight")?.dtype).toBe("bfloat16");
    expect(weights.tensors.get("layers.0.lambda_raw")?.dtype).toBe("float32");
    const loaded = await loadModelFolder(storage);
    expect(loaded.parameters["layers.0.lambda_raw"]).toEqual(parameters["layers.0.lambda_raw"]);
    for (const [name, values] of Object.entries(parameters)) {
      const rounded = loaded.parameters[name] ?? new Float32Array(0);
      for (const [index, value] of values.entries()) {
        expect(Math.abs((rounded[index] ?? 0) - value)).toBeLessThanOrEqual(Math.abs(value) / 256);
      }
    }
  });

  it("asks for each parameter once, when it is written", async () => {
    const calls: string[] = [];
    const lazily = Object.entries(parameters).map(([name, values]) => [
      name,
      async () => {
        calls.push(name);
        return values;
      },
    ]);
    const storage = memoryStorage();
    await saveModelFolder(storage, { ...saved, parameters: Object.fromEntries(lazily) });
    expect(calls.sort()).toEqual(Object.keys(parameters).sort());
    expect((await loadModelFolder(storage)).parameters).toEqual(parameters);
  });

  it("leaves a README.md of yours alone", async () => {
    const storage = memoryStorage({ "README.md": utf8("mine") });
    await saveModelFolder(storage, saved);
    expect(await text(storage, "README.md")).toBe("mine");
  });

  it("needs a tokenizer, its own or one that is given", async () => {
    const storage = memoryStorage();
    const { tokenizer: _, ...without } = saved;
    await saveModelFolder(storage, without);
    await expect(loadModelFolder(storage)).rejects.toThrow(/expected tokenizer.json; it is missing/);
    const loaded = await loadModelFolder(storage, { tokenizer });
    expect(loaded.tokenizer).toBe(tokenizer);
    expect(loaded.assets["tokenizer.json"]).toEqual(tokenizer.files?.["tokenizer.json"]);
  });

  it("has generation_config.json among its assets where the folder has none", async () => {
    const storage = await savedModel();
    await storage.remove("generation_config.json");
    const { assets } = await loadModelFolder(storage);
    expect(JSON.parse(new TextDecoder().decode(assets["generation_config.json"]))).toEqual({
      bos_token_id: tokenizer.endOfText,
      eos_token_id: tokenizer.endOfText,
    });
  });

  it("takes greedy decoding from other tools' files", async () => {
    const storage = await savedModel();
    await storage.write("generation_config.json", jsonBytes({ do_sample: false, top_p: null, odd: "x" }));
    expect((await loadModelFolder(storage)).generationConfig).toEqual({ temperature: 0 });
  });
});

describe("loading says in one line", () => {
  const json = modelConfigToJson(config);
  const change =
    (name: string, content: Uint8Array) =>
    async (storage: Storage): Promise<void> =>
      storage.write(name, content);
  const weights =
    (changed: Readonly<Record<string, Float32Array | undefined>>, shapes: Readonly<Record<string, number[]>> = {}) =>
    async (storage: Storage): Promise<void> => {
      const tensors = Object.entries({ ...parameters, ...changed }).flatMap(([name, data]) =>
        data === undefined
          ? []
          : [
              [
                name,
                { dtype: "float32", shape: shapes[name] ?? languageModel(config).parameters[name]?.shape ?? [], data },
              ],
            ],
      );
      await writeSafetensors(storage, "model.safetensors", Object.fromEntries(tensors));
    };

  it.each<[string, (storage: Storage) => Promise<void>, RegExp]>([
    [
      "that there is no model",
      (storage) => storage.remove("config.json"),
      /^memory: expected a model folder; there is no config.json$/,
    ],
    [
      "that there are no weights",
      (storage) => storage.remove("model.safetensors"),
      /expected model.safetensors or .*, found neither/,
    ],
    [
      "that the configuration is cut short",
      change("config.json", utf8("{")),
      /^memory\/config.json: not JSON, or cut short/,
    ],
    [
      "that it is another kind of model",
      change("config.json", jsonBytes({ ...json, model_type: "llama" })),
      /^memory\/config.json: expected model_type "sisa", got "llama"$/,
    ],
    [
      "that sizes are impossible",
      change("config.json", jsonBytes({ ...json, num_attention_heads: 3 })),
      /^memory.*: heads must divide width/,
    ],
    [
      "that parameters are missing",
      weights({ "final_norm.weight": undefined, "layers.1.W_Q.weight": undefined }),
      /^memory\/model.safetensors: parameters are missing: layers.1.W_Q.weight, final_norm.weight$/,
    ],
    [
      "that many are missing",
      change(
        "config.json",
        jsonBytes({ ...json, num_hidden_layers: 3, layer_types: ["sisa", "attention", "attention"] }),
      ),
      /parameters are missing: layers.2.[^ ]+, layers.2.[^ ]+, layers.2.[^ ]+ and 6 more$/,
    ],
    [
      "that parameters are left over",
      weights({ "lm_head.weight": new Float32Array(1) }, { "lm_head.weight": [1] }),
      /: parameters that the model does not have: lm_head.weight$/,
    ],
    [
      "that a shape is wrong",
      change("config.json", jsonBytes({ ...json, intermediate_size: 7 })),
      /expected layers.0.ffn.w_gate.weight of shape \[7,8\], got \[6,8\]/,
    ],
    [
      "that a rank is wrong",
      weights({}, { "final_norm.weight": [8, 1] }),
      /expected final_norm.weight of shape \[8\], got \[8,1\]/,
    ],
    ["that the tokenizer is cut short", change("tokenizer.json", utf8("{")), /tokenizer.json: not JSON/],
    [
      "that sampling defaults are no numbers",
      change("generation_config.json", jsonBytes({ top_k: "3" })),
      /generation_config.json: top_k must be a number/,
    ],
  ])("%s", async (_, damage, message) => {
    const storage = await savedModel();
    await damage(storage);
    const load = loadModelFolder(storage);
    await expect(load).rejects.toThrow(message);
    await expect(load).rejects.toBeInstanceOf(CheckpointError);
    await expect(load).rejects.toThrow(/^[^\n]*$/);
  });

  it("that the weights are damaged", async () => {
    const storage = await savedModel();
    const bytes = await readBytes(storage, "model.safetensors");
    bytes[bytes.length - 5] = (bytes[bytes.length - 5] ?? 0) ^ 4;
    await storage.write("model.safetensors", bytes);
    await expect(loadModelFolder(storage)).rejects.toThrow(/does not match its checksum/);
    await loadModelFolder(storage, { verify: false });
  });

  it("that tokenizer and vocabulary do not belong together", () => {
    const sized = (size: number): Tokenizer => ({ ...tokenizer, size });
    const check = (size: number, vocabularySize: number) => () =>
      checkTokenizer(sized(size), { ...config, vocabularySize }, "x");
    expect(check(50277, 257)).toThrow(
      "x: the tokenizer has 50277 tokens, the model a vocabulary of 257; they do not belong together",
    );
    expect(check(257, 50277)).toThrow(CheckpointError);
    expect(check(258, 257)).toThrow(CheckpointError);
    expect(check(50277, 50277)).not.toThrow();
    expect(check(50277, 50304)).not.toThrow();
  });
});

describe("saving refuses", () => {
  it("parameters that do not fit, and writes nothing", async () => {
    const storage = memoryStorage();
    const { "final_norm.weight": _, ...missing } = parameters;
    await expect(saveModelFolder(storage, { ...saved, parameters: missing })).rejects.toThrow(
      "saveModel: parameters are missing: final_norm.weight",
    );
    const more = { ...parameters, odd: new Float32Array(1) };
    await expect(saveModelFolder(storage, { ...saved, parameters: more })).rejects.toThrow("does not have: odd");
    const other = { ...tokenizer, size: 9999 };
    await expect(saveModelFolder(storage, { ...saved, tokenizer: other })).rejects.toThrow(/do not belong together/);
    expect(await storage.list()).toEqual([]);
  });

  it("parameters of another size", async () => {
    const wrong = { ...parameters, "final_norm.weight": new Float32Array(9) };
    await expect(saveModelFolder(memoryStorage(), { ...saved, parameters: wrong })).rejects.toThrow(
      "final_norm.weight: expected 8 values for shape [8], got 9",
    );
  });
});

describe("on disk", () => {
  it("a model is saved and loaded by path", async () => {
    const path = join(await temporaryFolder(), "runs", "my-model");
    await saveModel(path, saved);
    expect((await loadModel(path)).parameters).toEqual(parameters);
    expect(await readdir(join(path, ".."))).toEqual(["my-model"]);
  });

  it.skipIf(process.platform === "win32")("a model is saved to a folder that is named by the time", async () => {
    const path = join(await temporaryFolder(), "2026-11-28T08:35:00.000Z");
    await saveModel(path, saved);
    await saveModel(path, saved);
    expect((await loadModel(path)).parameters).toEqual(parameters);
    expect(await readdir(join(path, ".."))).toEqual(["2026-11-28T08:35:00.000Z"]);
  });

  it("a save replaces the model and nothing else", async () => {
    const path = join(await temporaryFolder(), "my-model");
    await saveModel(path, saved, { maximumShardBytes: 3000 });
    await writeFile(join(path, "README.md"), "mine");
    await mkdir(join(path, "onnx"));
    await writeFile(join(path, "onnx", "model.onnx"), "kept");
    const others = initialize(languageModel(config), 2);
    await saveModel(path, { ...saved, parameters: others });
    expect((await loadModel(path)).parameters).toEqual(others);
    expect((await readdir(path)).sort()).toEqual([
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "onnx",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(await readFile(join(path, "README.md"), "utf8")).toBe("mine");
  });

  it("a full disk leaves the old model as it was", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "my-model");
    await saveModel(path, saved);
    const handle = await open(join(path, "config.json"));
    const prototype: Pick<typeof handle, "write"> = Object.getPrototypeOf(handle);
    await handle.close();
    const original = prototype.write;
    let writes = 0;
    vi.spyOn(prototype, "write").mockImplementation(function (this: unknown, ...given: unknown[]) {
      writes += 1;
      if (writes > 12) throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
      return Reflect.apply(original, this, given);
    });
    const others = initialize(languageModel(config), 2);
    await expect(saveModel(path, { ...saved, parameters: others })).rejects.toMatchObject({
      code: "STORAGE",
      reason: "full",
    });
    vi.restoreAllMocks();
    expect(await readdir(folder)).toEqual(["my-model"]);
    expect((await loadModel(path)).parameters).toEqual(parameters);
  });

  it("a path that holds no model is refused", async () => {
    const folder = await temporaryFolder();
    await expect(loadModel(join(folder, "gone"))).rejects.toThrow(/there is no such model folder or checkpoint/);
    await writeFile(join(folder, "file.bin"), "x");
    await expect(loadModel(join(folder, "file.bin"))).rejects.toThrow(/expected a model folder, or a torch checkpoint/);
    await writeFile(join(folder, "x.pt"), "x");
    await expect(loadModel(join(folder, "x.pt"))).rejects.toThrow(/has no tokenizer; pass one/);
    await expect(loadModel(join(folder, "x.pt"), { tokenizer })).rejects.toThrow(/expected a zip archive/);
  });

  it("a torch checkpoint is loaded with the tokenizer beside it", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "x.pt"), await readFile(new URL("official-checkpoint.pt", fixtures)));
    await writeFile(join(folder, "tokenizer.json"), tokenizer.files?.["tokenizer.json"] ?? "");
    await expect(loadModel(join(folder, "x.pt"))).rejects.toThrow(/has 257 tokens, the model a vocabulary of 89/);
    const loaded = await loadModel(join(folder, "x.pt"), { tokenizer: { ...tokenizer, size: 89 }, form: "exact" });
    expect(loaded.model.config.form).toBe("exact");
  });
});

describe("in a browser", () => {
  it("a model is loaded from picked files, a storage and a URL", async () => {
    const storage = await savedModel();
    const picked: File[] = [];
    for (const name of await storage.list()) picked.push(new File([await readBytes(storage, name)], name));
    expect((await loadAnywhere(picked)).parameters).toEqual(parameters);
    expect((await loadAnywhere(storage)).parameters).toEqual(parameters);

    const server = createServer(async (request, response) => {
      const name = (request.url ?? "").slice("/model/".length);
      if ((await storage.size(name)) === undefined) return response.writeHead(404).end();
      const content = await readBytes(storage, name);
      return response.writeHead(200, { "content-length": content.length }).end(content);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const address = server.address();
      const url = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}/model`;
      expect((await loadAnywhere(url)).parameters).toEqual(parameters);
      expect((await loadModel(new URL(url))).parameters).toEqual(parameters);
    } finally {
      server.close();
    }
  });
});

describe("the official checkpoint", () => {
  const official = (): ReturnType<typeof importTorchModel> =>
    importTorchModel(directory(fixtures), "official-checkpoint.pt", { tokenizer: { ...tokenizer, size: 89 } });

  it("gives the configuration it was trained with", async () => {
    const expected: ModelConfig = {
      mixers: ["sisa", "sisa"],
      vocabularySize: 89,
      width: 48,
      heads: 3,
      feedForwardWidth: 83,
      stateWidth: 8,
      form: "sdpa",
      maximumLength: 128,
      ropeBase: 10_000,
      normEpsilon: 1e-6,
    };
    expect((await official()).model.config).toEqual(expected);
  });

  it("gives the logits that its own code gives", async () => {
    const { model, parameters: weights } = await official();
    await using expected = await openSafetensors(directory(fixtures), "official-checkpoint.expected.safetensors");
    const ids = toInt32(await expected.read("ids"), "ids");
    const [rows = 0, length = 0] = expected.tensors.get("ids")?.shape ?? [];
    const logits = toFloat32(await expected.read("logits"), "logits");
    await using backend = reference();
    const program = await backend.compile(model.logitsGraph().bind({ B: rows, T: length }), { constants: weights });
    const computed = await program.run({ ids: backend.tensor(i32(rows, length), ids) }).logits.read();
    const largest = logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const worst = logits.reduce((most, value, index) => Math.max(most, Math.abs(value - (computed[index] ?? 0))), 0);
    expect(worst / largest).toBeLessThan(1e-4);
  });

  it("has the files that go along with an export", async () => {
    const { assets } = await official();
    const json = (name: string) => JSON.parse(new TextDecoder().decode(assets[name]));
    const ends = { bos_token_id: tokenizer.endOfText, eos_token_id: tokenizer.endOfText };
    expect(json("generation_config.json")).toEqual(ends);
    expect(json("config.json")).toMatchObject({ ...ends, sisa_form: "sdpa", hidden_size: 48 });
    expect(assets["tokenizer.json"]).toEqual(tokenizer.files?.["tokenizer.json"]);
  });

  it("can be saved as a model folder, and generates", async () => {
    const loaded = await official();
    const storage = memoryStorage();
    await saveModelFolder(storage, { config: loaded.model.config, parameters: loaded.parameters });
    const again = await loadModelFolder(storage, { tokenizer: loaded.tokenizer });
    expect(again.parameters).toEqual(loaded.parameters);
    await using backend = reference();
    const ids: number[] = [];
    for await (const id of generate({ ...again, backend, tokens: [1, 2], maxTokens: 2, temperature: 0 })) ids.push(id);
    expect(ids).toHaveLength(2);
  });
});
