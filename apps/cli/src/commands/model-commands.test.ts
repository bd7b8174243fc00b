// What commands do with a model: a folder, a run, a checkpoint, a file of torch, and damaged ones of each.
import { cp, mkdir, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { initialize, languageModel, preset } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { loadModel, saveModel } from "@sisa/hub/node";
import type { TaskResult } from "@sisa/train";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { run, temporaryFolder, tinyConfig, tinyText } from "../testing.ts";

const torchFile = new URL("../../../../packages/hub/test/fixtures/official-checkpoint.pt", import.meta.url).pathname;

/** A trained run and its model as a folder; copied before tests that change them. */
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  await writeFile(join(folder, "corpus.txt"), tinyText);
  await writeFile(join(folder, "tiny.config.json"), JSON.stringify({ ...tinyConfig, steps: 4 }));
  expect((await run(folder, ["train", "tiny.config.json"])).code).toBe(0);
  const { model, parameters, tokenizer } = await loadModel(join(folder, "runs/tiny/checkpoints/latest"));
  await saveModel(join(folder, "my-model"), { config: model.config, parameters, tokenizer });
});

const generate = (place: string, ...words: readonly string[]) =>
  run(folder, ["generate", place, ...words, "--max-tokens", "8", "--json"]);

describe("sisa generate", () => {
  it.each(["my-model", "runs/latest", "runs/tiny", "runs/tiny/checkpoints", "runs/tiny/checkpoints/step-00000004"])(
    "finds the model in %s",
    async (place) => {
      const expected = await generate("my-model", "Once", "--seed", "3");
      const { code, json } = await generate(place, "Once", "--seed", "3");
      expect(code).toBe(0);
      expect(json).toMatchObject({ prompt: "Once", text: expected.json?.text, tokens: 8, reason: "length" });
    },
  );

  it("follows a pointer that is a file, where the disk has no links", async () => {
    const copy = join(await temporaryFolder(), "runs");
    await cp(join(folder, "runs"), copy, { recursive: true });
    await rm(join(copy, "latest"));
    await writeFile(join(copy, "latest"), "tiny\n");
    expect((await generate(join(copy, "latest"), "Once")).code).toBe(0);
  });

  it("streams the continuation, the same for the same seed, to the standard output", async () => {
    const words = ["generate", "my-model", "Once", "--max-tokens", "8", "--seed", "1"];
    const first = await run(folder, words);
    const again = await generate("my-model", "Once", "--seed", "1");
    const other = await generate("my-model", "Once", "--seed", "2");
    expect(first.stdout).toBe(`${again.json?.text}\n`);
    expect(other.json?.text).not.toBe(again.json?.text);
    expect(first.stderr).toMatch(/8 tokens, [\d.]+ tokens\/s/);
  });

  it("reads the prompt from the standard input, without the line end that echo adds", async () => {
    const words = ["generate", "my-model", "--max-tokens", "2"];
    const { json } = await run(folder, [...words, "--json"], { stdin: "Once\n" });
    expect(json?.prompt).toBe("Once");
    const { stdout } = await run(folder, [...words, "--echo"], { stdin: "Once\n" });
    expect(stdout).toBe(`Once${json?.text}\n`);
  });

  it("begins with end-of-text where there is no prompt", async () => {
    expect(await generate("my-model")).toMatchObject({ code: 0, json: { prompt: "", tokens: 8 } });
  });

  it("ends before a stop", async () => {
    const { json } = await generate("my-model", "Once", "--temperature", "0");
    const text = String(json?.text);
    const stop = text.slice(2, 4);
    const stopped = await generate("my-model", "Once", "--temperature", "0", "--stop", "never", "--stop", stop);
    expect(stopped.json).toMatchObject({ text: text.slice(0, text.indexOf(stop)), reason: "stop" });
  });

  it("gives on the reference what it gives on ONNX Runtime", async () => {
    const onnx = await generate("my-model", "Once", "--temperature", "0");
    const reference = await generate("my-model", "Once", "--temperature", "0", "--backend", "reference");
    expect(reference.json?.text).toBe(onnx.json?.text);
  });

  it("ends at Ctrl-C", async () => {
    const { code, stdout } = await run(folder, ["generate", "my-model", "Once", "--stop", "x"], {
      onOutput: (_, interrupt) => interrupt("SIGINT"),
    });
    expect(code).toBe(130);
    expect(stdout.endsWith("\n")).toBe(true);
  });

  it("refuses a prompt that does not fit", async () => {
    const { code, error } = await generate("my-model", "x".repeat(65));
    expect(error).toContain("the prompt has 65 tokens, more than the 64 that fit");
    expect(code).toBe(3);
  });

  it("loads from a web server", async () => {
    const server = createServer((request, response) => {
      readFile(join(folder, "my-model", request.url ?? "")).then(
        (bytes) => {
          response.setHeader("content-length", bytes.length);
          response.end(request.method === "HEAD" ? undefined : bytes);
        },
        () => response.writeHead(404).end(),
      );
    });
    server.listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : 0;
    try {
      const { code, json } = await generate(`http://127.0.0.1:${port}/`, "Once", "--temperature", "0");
      expect(code).toBe(0);
      expect(json?.text).toBe((await generate("my-model", "Once", "--temperature", "0")).json?.text);
    } finally {
      server.close();
    }
  });
});

describe("a torch checkpoint", () => {
  it("can be looked at without a tokenizer, and needs one for text", async () => {
    const { code, json } = await run(folder, ["inspect", torchFile, "--json"]);
    expect(code).toBe(0);
    expect(json).toMatchObject({ config: { vocabularySize: 89, form: "sdpa" }, heads: { layers: ["0", "1"] } });
    const text = await generate(torchFile, "Once");
    expect(text).toMatchObject({ code: 3, error: expect.stringContaining("has no tokenizer; pass --tokenizer FILE") });
    const other = await generate(torchFile, "Once", "--tokenizer", "byte");
    expect(other).toMatchObject({ code: 3, error: expect.stringContaining("they do not belong together") });
  });

  it("is not executed: opcodes that import are refused by name", async () => {
    // A pickle that would call os.system("touch hacked").
    const pickle = "\x80\x02cposix\nsystem\nX\x0c\x00\x00\x00touch hacked\x85R.";
    await writeFile(join(folder, "hostile.pt"), zipOf("archive/data.pkl", Buffer.from(pickle, "latin1")));
    for (const command of ["inspect", "generate"]) {
      const { code, error } = await run(folder, [command, "hostile.pt"]);
      expect(code).toBe(3);
      expect(error).toContain("posix.system");
    }
    expect(await readdir(folder)).not.toContain("hacked");
  });

  it("is refused where it is cut short or something else", async () => {
    await cp(torchFile, join(folder, "cut.pt"));
    await truncate(join(folder, "cut.pt"), 100_000);
    expect((await run(folder, ["inspect", "cut.pt"])).code).toBe(3);
    await writeFile(join(folder, "text.pt"), "weights");
    expect((await run(folder, ["inspect", "text.pt"])).code).toBe(3);
    expect(await run(folder, ["inspect", "corpus.txt"])).toMatchObject({
      code: 3,
      error: expect.stringContaining("expected a model folder, or a torch checkpoint"),
    });
  });
});

describe("a model folder that is not sound is refused in one line:", () => {
  let copy: string;
  beforeEach(async () => {
    copy = join(await temporaryFolder(), "model");
    await cp(join(folder, "my-model"), copy, { recursive: true });
  });

  async function refused(message: string): Promise<void> {
    const { code, error, stdout } = await generate(copy, "Once");
    expect(error).toContain(message);
    expect(code).toBe(3);
    expect(stdout).toBe("");
  }

  it("one bit of the weights is another", async () => {
    const weights = await readFile(join(copy, "model.safetensors"));
    weights[weights.length - 100] = (weights[weights.length - 100] ?? 0) ^ 4;
    await writeFile(join(copy, "model.safetensors"), weights);
    await refused("does not match its checksum");
  });

  it("the weights are cut short", async () => {
    await truncate(join(copy, "model.safetensors"), 5000);
    await refused("describes");
  });

  it("the weights are missing", async () => {
    await rm(join(copy, "model.safetensors"));
    await refused("expected model.safetensors or model.safetensors.index.json, found neither");
  });

  it("the weights are of another model", async () => {
    await writeFile(join(folder, "wide.config.json"), JSON.stringify({ ...tinyConfig, steps: 1 }));
    const words = ["--model.width", "16", "--output", "other", "--name", "wide"];
    expect((await run(folder, ["train", "wide.config.json", ...words])).code).toBe(0);
    await cp(join(folder, "other/wide/checkpoints/latest/model.safetensors"), join(copy, "model.safetensors"));
    await refused("the weights are of another model than the configuration");
  });

  it("the tokenizer does not match", async () => {
    const config = JSON.parse(Buffer.from(byteTokenizer().files?.["tokenizer.json"] ?? []).toString());
    delete config.model.vocab.a;
    delete config.model.vocab.b;
    config.added_tokens = [];
    config.model.vocab = Object.fromEntries(Object.keys(config.model.vocab).map((token, id) => [token, id]));
    await writeFile(join(copy, "tokenizer.json"), JSON.stringify(config));
    await refused("they do not belong together");
  });

  it("the configuration is impossible, or none", async () => {
    const config = JSON.parse(await readFile(join(copy, "config.json"), "utf8"));
    await writeFile(join(copy, "config.json"), JSON.stringify({ ...config, num_attention_heads: 3 }));
    await refused("heads must divide width");
    await writeFile(join(copy, "config.json"), "{");
    await refused("config.json: not JSON, or cut short");
    await rm(join(copy, "config.json"));
    await refused("holds no model");
  });
});

describe("sisa inspect", () => {
  it("counts parameters and cache, and shows lambda and half-life", async () => {
    const words = ["inspect", "my-model", "--text", "corpus.txt"];
    const { code, json } = await run(folder, [...words, "--json"]);
    expect(code).toBe(0);
    const { all, ...parts } = part<Record<string, number>>(json, "parameters");
    expect(Object.values(parts).reduce((sum, count) => sum + count, 0)).toBe(all);
    // Two layers: key and value 8 each, importance 2 x 2, decay 2, phase 2 x 1, four bytes each.
    expect(json?.cacheBytesPerToken).toEqual({ key: 64, value: 64, importance: 32, decay: 16, phase: 16 });
    const { lambda, halfLife, measuredHalfLife } = part<Record<string, number[][]>>(json, "heads");
    for (const values of [lambda, halfLife, measuredHalfLife]) expect(values?.flat()).toHaveLength(4);
    expect(lambda?.[0]?.[0]).toBeCloseTo(Math.log1p(Math.exp(-1)), 2);
    expect(halfLife?.[0]?.[0]).toBeGreaterThan(80);
    const { stdout } = await run(folder, words);
    expect(stdout).toContain("Half-life in tokens, measured on the text");
    expect(stdout).toMatch(/layer 1 +0\.3\d\d +0\.3\d\d/);
  });
});

it("a state space model is shown part by part, and its states apart from what grows with each token", async () => {
  const config = preset("jamba", "1m", { layers: 2, width: 16, heads: 2, feedForwardWidth: 16, vocabularySize: 257 });
  const parameters = initialize(languageModel(config), 1);
  await saveModel(join(folder, "jamba"), { config, parameters, tokenizer: byteTokenizer() });
  const { code, json } = await run(folder, ["inspect", "jamba", "--json"]);
  expect(code).toBe(0);
  expect(Object.keys(part(json, "parameters"))).not.toContain("other");
  expect(part<Record<string, number>>(json, "parameters")["state space mixer"]).toBeGreaterThan(1000);
  expect(Object.keys(part(json, "cacheBytesPerToken"))).toEqual(["key", "value"]);
  expect(Object.keys(part(json, "stateBytes")).length).toBeGreaterThan(0);
  expect((await run(folder, ["inspect", "jamba"])).stdout).toContain("State of a sequence, bytes in float32");
});

it("a model of generated tokens is measured on them without a tokenizer, and has no text", async () => {
  const model = ["layers", "width", "heads", "stateWidth", "feedForwardWidth", "maximumLength"] as const;
  const sizes = model.flatMap((name) => [`--model.${name}`, String(tinyConfig.model[name])]);
  const data = [
    "--data.synthetic",
    "mqar",
    "--data.sequence-length",
    "32",
    "--model.preset",
    "sisa",
    "--model.size",
    "1m",
  ];
  const words = [...data, ...sizes, "--steps", "2", "--micro-batch-size", "2", "--output", "synthetic"];
  const { stdout } = await run(folder, ["train", ...words]);
  const suggested = "eval synthetic/sisa-1m --tasks mqar --lengths 32";
  expect(stdout).toContain(`sisa ${suggested} `);
  const measured = await run(folder, [...suggested.split(" "), "--json"]);
  expect(measured).toMatchObject({ code: 0, json: { results: { mqar: { items: 200 } } } });
  expect(await run(folder, ["inspect", "synthetic/latest"])).toMatchObject({ code: 0 });
  expect(await generate("synthetic/latest", "Once")).toMatchObject({
    code: 3,
    error: expect.stringContaining("was trained on generated tokens (mqar) and has no text"),
  });
});

describe("sisa eval", () => {
  const resultOf = (json: Record<string, unknown> | undefined, task: string): TaskResult =>
    part<TaskResult>(part<Record<string, unknown>>(json, "results"), task);
  const metric = (result: TaskResult, name: string): number => result.metrics[name]?.value ?? Number.NaN;

  it("measures the held-out part of the model's run, and keeps results beside it", async () => {
    const { code, json } = await run(folder, ["eval", "runs/latest", "--json"]);
    expect(code).toBe(0);
    const result = resultOf(json, "perplexity");
    expect(result.protocol).toContain("windows of 16 tokens");
    expect(result.items).toBeGreaterThan(6);
    const loss = metric(result, "loss");
    expect(loss).toBeLessThan(Math.log(257) + 0.1);
    expect(metric(result, "perplexity")).toBeCloseTo(Math.exp(loss), 6);
    expect(metric(result, "bitsPerByte")).toBeGreaterThan(1);
    expect((await run(folder, ["eval", "runs/latest"])).stdout).toContain(`loss ${loss.toFixed(4)} ± `);

    const { folder: place, model } = json as { folder: string; model: { fingerprint: string } };
    expect(place).toContain(join("evaluation", "step-"));
    const written = JSON.parse(await readFile(join(place, "perplexity.json"), "utf8"));
    expect(written).toEqual({ ...result, model });
    expect(await readFile(join(place, "report.html"), "utf8")).toContain("bitsPerByte");
  });

  it("measures a text that is given, and asks for one where there is no run", async () => {
    const text = await run(folder, ["eval", "my-model", "--text", "corpus.txt", "--limit", "150", "--json"]);
    expect(resultOf(text.json, "perplexity")).toMatchObject({
      items: 3,
      protocol: expect.stringContaining("64 tokens"),
    });
    expect(text.json?.folder).toBe(join(folder, "evaluation/my-model"));
    const none = await run(folder, ["eval", "my-model"]);
    expect(none).toMatchObject({ code: 2, error: expect.stringContaining("give a text: --text FILE_OR_FOLDER") });
  });

  it("runs tasks on sets that are given by folder, by file or by name", async () => {
    await mkdir(join(folder, "sets"), { recursive: true });
    await writeFile(join(folder, "sets/lambada_test.jsonl"), '{"text": "one two three"}\n{"text": "four five"}\n');
    const question = JSON.stringify({ question: "q", choices: ["a", "b"], label: 1 });
    await writeFile(join(folder, "sets/piqa.jsonl"), `${question}\n`);
    const tasks = ["eval", "my-model", "--tasks", "lambada,lambada:harness,piqa", "--to", "measured", "--json"];
    const { code, json } = await run(folder, [...tasks, "--data", "sets"]);
    expect(code).toBe(0);
    expect(resultOf(json, "lambada")).toMatchObject({ items: 2, metrics: { accuracy: { value: 0 } } });
    expect(resultOf(json, "piqa:harness")).toMatchObject({ items: 1, metrics: { acc: {}, acc_norm: {} } });
    expect(JSON.parse(await readFile(join(folder, "measured/lambada-harness.json"), "utf8")).task).toBe(
      "lambada:harness",
    );

    const one = ["eval", "my-model", "--tasks", "lambada", "--to", "measured"];
    expect(await run(folder, [...one, "--data", "sets/lambada_test.jsonl"])).toMatchObject({ code: 0 });
    await writeFile(join(folder, "sets/lambada_bad.jsonl"), "no JSON\n");
    expect(await run(folder, [...one, "--data", "sets"])).toMatchObject({
      code: 2,
      error: expect.stringContaining("found lambada_bad.jsonl, lambada_test.jsonl"),
    });
    const named = await run(folder, [...one, "--data", "lambada=sets/lambada_bad.jsonl"]);
    expect(named).toMatchObject({ code: 3, error: expect.stringContaining("line 1") });
    expect((await run(folder, one)).error).toContain("task lambada needs its items");
  });

  it("goes on where Ctrl-C stopped it", async () => {
    const words = ["eval", "my-model", "--tasks", "parity,perplexity", "--text", "corpus.txt", "--lengths", "8"];
    const stopped = await run(folder, [...words, "--to", "stopped"], {
      onOutput: (_, interrupt) => interrupt("SIGINT"),
    });
    expect(stopped).toMatchObject({ code: 130, error: expect.stringContaining("the same command goes on from there") });
    expect(stopped.stdout).toContain("parity");
    expect(stopped.stdout).not.toContain("perplexity");
    const ended = await run(folder, [...words, "--to", "stopped", "--json"]);
    expect(ended.code).toBe(0);
    const straight = await run(folder, [...words, "--to", "straight", "--json"]);
    expect(part(ended.json, "results")).toEqual(part(straight.json, "results"));
  });

  it("draws the heat map of needles", async () => {
    const words = ["--tasks", "niah:grid", "--lengths", "62,64", "--depths", "2", "--limit", "1", "--to", "grid"];
    expect(await run(folder, ["eval", "my-model", ...words])).toMatchObject({ code: 0 });
    const { heatMap } = JSON.parse(await readFile(join(folder, "grid/niah-grid.json"), "utf8"));
    expect(heatMap.columns.values).toEqual(["62", "64"]);
    expect(await readFile(join(folder, "grid/report.html"), "utf8")).toContain('<table class="heat">');
  });

  it("says where a model is too short for niah", async () => {
    const { code, error } = await run(folder, ["eval", "my-model", "--tasks", "niah"]);
    expect(error).toMatch(/^niah: needs \d+ positions, the model has 64$/);
    expect(code).toBe(2);
  });
});

describe("sisa export", () => {
  it("writes the ONNX file with configuration and tokenizer", async () => {
    const { code, json } = await run(folder, ["export", "my-model", "--to", "export", "--json"]);
    expect(code).toBe(0);
    const files = Object.keys(part(json, "files"));
    expect(files).toEqual(expect.arrayContaining(["config.json", "tokenizer.json", "onnx/model.onnx"]));
    for (const file of files) expect((await readFile(join(folder, "export", file))).length).toBeGreaterThan(0);
  });
});

describe("sisa prepare", () => {
  it("writes shards that train takes", async () => {
    await mkdir(join(folder, "texts/more"), { recursive: true });
    const line = (index: number): string => JSON.stringify({ text: `${tinyText.slice(0, 200)} ${index}` });
    await writeFile(join(folder, "texts/a.jsonl"), Array.from({ length: 40 }, (_, index) => line(index)).join("\n"));
    await writeFile(join(folder, "texts/more/b.txt"), tinyText);
    await writeFile(join(folder, "texts/more/c.md"), `# ${tinyText}`);
    await writeFile(join(folder, "texts/image.png"), "no text");
    const prepared = await run(folder, ["prepare", "texts", "--to", "shards", "--held-out", "0.2", "--json"]);
    expect(prepared.code).toBe(0);
    expect(prepared.json).toMatchObject({ train: { documents: expect.any(Number) }, skippedDocuments: 0 });
    const { train, heldOut } = prepared.json as Record<"train" | "heldOut", { documents: number }>;
    expect(train.documents + heldOut.documents).toBe(42);
    const shown = await run(folder, ["prepare", "texts", "--to", "shown", "--held-out", "0.2"]);
    expect(shown.stdout).toContain("sisa train --data.shards shown ");

    const words = ["--output", "shard-runs", "--json"];
    const sizes = ["layers", "width", "heads", "stateWidth", "feedForwardWidth", "maximumLength"] as const;
    for (const name of sizes) words.push(`--model.${name}`, String(tinyConfig.model[name]));
    const flags = ["--data.shards", "shards", "--model.preset", "sisa", "--model.size", "1m", "--steps", "2"];
    const trained = await run(folder, ["train", ...flags, "--data.sequence-length", "16", ...words]);
    expect(trained).toMatchObject({ code: 0, json: { step: 2, run: join(folder, "shard-runs/sisa-1m") } });
    expect((await run(folder, ["eval", "shard-runs/latest", "--json"])).json).toMatchObject({
      results: { perplexity: { metrics: { bitsPerByte: { value: expect.any(Number) } } } },
    });
  });

  it("holds the end of a single text out, to train on the rest", async () => {
    const { code, stdout } = await run(folder, ["prepare", "corpus.txt", "--to", "of-one", "--threads", "0"]);
    expect(code).toBe(0);
    expect(stdout).toContain("of a single document, whose end is held out");
    expect(stdout).toContain("sisa train --data.shards of-one ");
  });

  it("does not suggest training where nothing is held out", async () => {
    const { code, stdout, stderr } = await run(folder, ["prepare", "texts", "--to", "no-held-out", "--held-out", "0"]);
    expect(code).toBe(0);
    expect(stdout).not.toContain("sisa train");
    expect(stderr).toContain("Nothing is held out");
  });

  it("refuses text that is not UTF-8, unless told to skip it, and writes nothing then", async () => {
    await writeFile(join(folder, "bad.txt"), Uint8Array.of(0x63, 0xe9, 0x61));
    const { code, error } = await run(folder, ["prepare", "bad.txt", "--to", "bad-shards"]);
    expect(error).toContain("bad.txt");
    expect(code).toBe(3);
    expect(await readdir(folder)).not.toContain("bad-shards");
  });

  it.each([
    [["nowhere.txt"], 3, "nowhere.txt: there is no such file"],
    [["empty"], 3, "holds no .txt"],
    [["tiny.config.json"], 3, "expected .txt, .md, .jsonl"],
    [["corpus.txt", "--tokenizer", "no.json"], 3, "there is no such tokenizer file"],
    [["corpus.txt", "--held-out", "2"], 2, "Expected a number >= 0 and <= 0.99."],
  ])("refuses %j", async (words, code, message) => {
    await mkdir(join(folder, "empty"), { recursive: true });
    const outcome = await run(folder, ["prepare", ...words, "--to", "never"]);
    expect(outcome.error).toContain(message);
    expect(outcome.code).toBe(code);
  });
});

describe("sisa doctor", () => {
  afterEach(() => void vi.unstubAllEnvs());

  it("runs a graph on every backend that is there, and says what is missing", async () => {
    // Where there is a GPU, or a program that is one, it is hidden.
    vi.stubEnv("CUDA_VISIBLE_DEVICES", "");
    vi.stubEnv("VK_ICD_FILENAMES", "none");
    const { code, json } = await run(folder, ["doctor", "--json"]);
    expect(code).toBe(0);
    expect(json).toMatchObject({ node: process.version, cores: expect.any(Number) });
    const backends = part<{ name: string; works: boolean }[]>(json, "backends");
    expect(backends.filter(({ works }) => works).map(({ name }) => name)).toEqual(["onnxruntime", "reference"]);
    expect((await run(folder, ["doctor"])).stdout).toContain("cuda: no ");
  });
});

/** A field of a result that is an object. */
function part<T extends object>(json: Record<string, unknown> | undefined, name: string): T {
  const value = json?.[name];
  if (typeof value !== "object" || value === null) throw new Error(`expected an object under "${name}"`);
  return value as T;
}

/** A zip archive of one stored file. */
function zipOf(name: string, content: Buffer): Buffer {
  const entry = Buffer.alloc(26);
  entry.writeUInt16LE(20, 0);
  entry.writeUInt32LE(crc32(content), 10);
  entry.writeUInt32LE(content.length, 14);
  entry.writeUInt32LE(content.length, 18);
  entry.writeUInt16LE(name.length, 22);
  const local = Buffer.concat([Buffer.from("PK\x03\x04"), entry, Buffer.from(name), content]);
  const central = Buffer.concat([
    Buffer.from("PK\x01\x02\x14\x00", "latin1"),
    entry,
    Buffer.alloc(14),
    Buffer.from(name),
  ]);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(1, 8);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(local.length, 16);
  return Buffer.concat([local, central, end]);
}
