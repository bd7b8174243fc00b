// Whatever a command is given, it ends with one line of error and the documented exit code, and every file that was there
// is the same byte for byte, with none beside it.
import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, readlink, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { exitCode } from "./exit-codes.ts";
import { run, temporaryFolder, tinyConfig, tinyText } from "./testing.ts";

const torchFile = new URL("../../../packages/hub/test/fixtures/official-checkpoint.pt", import.meta.url).pathname;

/** A folder with a text, a configuration, a run of two checkpoints, shards, a model folder, and damaged copies of it. */
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const inFolder = (path: string): string => join(folder, path);
  await writeFile(inFolder("corpus.txt"), tinyText);
  await writeFile(inFolder("tiny.json"), JSON.stringify({ ...tinyConfig, steps: 3, saveEvery: 2 }));
  const { data: _, ...withoutData } = tinyConfig;
  await writeFile(inFolder("no-data.json"), JSON.stringify({ ...withoutData, steps: 1 }));
  expect((await run(folder, ["train", "tiny.json"])).code).toBe(exitCode.ok);
  const lines = Array.from({ length: 40 }, (_, index) =>
    JSON.stringify({ text: `${tinyText.slice(0, 200)} ${index}` }),
  );
  await writeFile(inFolder("corpus.jsonl"), lines.join("\n"));
  const words = ["prepare", "corpus.jsonl", "--to", "shards", "--held-out", "0.2", "--threads", "0"];
  const prepared = await run(folder, words);
  expect(prepared.code).toBe(exitCode.ok);

  const checkpoints = inFolder("runs/tiny/checkpoints");
  await cp(join(checkpoints, "step-00000003"), inFolder("model"), { recursive: true });
  await rm(inFolder("model/training.safetensors"));
  const copy = async (name: string, change: (at: string) => Promise<void>): Promise<void> => {
    await cp(inFolder("model"), inFolder(name), { recursive: true });
    await change(inFolder(name));
  };
  await copy("truncated", (at) => truncate(join(at, "model.safetensors"), 5000));
  await copy("emptied", (at) => truncate(join(at, "model.safetensors"), 0));
  await copy("flipped-data", (at) => flipBit(join(at, "model.safetensors"), -100));
  await copy("flipped-header", (at) => flipBit(join(at, "model.safetensors"), 40));
  await copy("flipped-length", (at) => flipBit(join(at, "model.safetensors"), 3));
  await copy("no-tokenizer", (at) => rm(join(at, "tokenizer.json")));
  await copy("bad-tokenizer", (at) => writeFile(join(at, "tokenizer.json"), '{"model": {'));
  await copy("bad-settings", (at) => writeFile(join(at, "generation_config.json"), '{"temperature": "hot"}'));
  await copy("other-kind", (at) => writeFile(join(at, "config.json"), '{"model_type": "llama"}'));

  await cp(join(checkpoints, "step-00000003"), inFolder("flipped-checkpoint"), { recursive: true });
  await flipBit(inFolder("flipped-checkpoint/training.safetensors"), -100);
  await cp(inFolder("shards"), inFolder("cut-shards"), { recursive: true });
  await truncate(inFolder("cut-shards/train-00000.bin"), 1000);
  await cp(inFolder("shards"), inFolder("flipped-shards"), { recursive: true });
  await flipBit(inFolder("flipped-shards/train-00000.bin"), -100);

  await mkdir(inFolder("empty"));
  await mkdir(inFolder("pointers"));
  await writeFile(inFolder("pointers/latest"), "latest\n");
  await writeFile(inFolder("empty.txt"), "");
  await writeFile(inFolder("short.txt"), "ab");
  await writeFile(inFolder("latin.txt"), Buffer.from("caf\xe9 au lait", "latin1"));
  await writeFile(inFolder("bad.jsonl"), '{"text": "fine"}\n{"text": 3}\n');
  await writeFile(inFolder("bad.jsonl.gz"), "not compressed");
  await writeFile(inFolder("bad.parquet"), "PAR1xxxxPAR1");
});

/** Turns one bit of a file around; places below 0 count from its end. */
async function flipBit(path: string, place: number): Promise<void> {
  const bytes = await readFile(path);
  const at = place < 0 ? bytes.length + place : place;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await writeFile(path, bytes);
}

/** Every file, folder and link below the folder, with a hash of what is in it. */
async function contents(): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) found[path] = "folder";
    else if (entry.isSymbolicLink()) found[path] = `-> ${await readlink(path)}`;
    else
      found[path] = createHash("sha256")
        .update(await readFile(path))
        .digest("hex");
  }
  return found;
}

async function refused(words: readonly string[], code: number, message: string): Promise<void> {
  const before = await contents();
  const result = await run(folder, words);
  expect(result.error).toContain(message);
  expect(result.code).toBe(code);
  expect(result.stdout).toBe("");
  // The error is the last thing said: no stack and no second error follows.
  expect(result.stderr.trimEnd().split("\n").at(-1)).toBe(`error: ${result.error}`);
  expect(await contents()).toEqual(before);
}

describe("a model that cannot be used", () => {
  it.each([
    ["nowhere", "nowhere: there is no such model folder, run or checkpoint"],
    ["empty", "holds no model: neither config.json nor checkpoints of a run"],
    ["corpus.txt", "expected a model folder, or a torch checkpoint"],
    ["truncated", "model.safetensors"],
    ["emptied", "model.safetensors: not a safetensors file: it has 0 bytes"],
    ["flipped-data", "does not match its checksum"],
    ["flipped-header", "model.safetensors"],
    ["flipped-length", "model.safetensors: not a safetensors file, or cut short"],
    ["no-tokenizer", "expected tokenizer.json; it is missing"],
    ["bad-tokenizer", "tokenizer.json: not JSON, or cut short"],
    ["bad-settings", 'generation_config.json: temperature must be a number, got "hot"'],
    ["other-kind", 'config.json: expected model_type "sisa", got "llama"'],
    ["pointers/latest", "pointers/latest: expected the name of the run beside it"],
  ])("%s is refused by every command that reads it", async (place, message) => {
    await refused(["generate", place, "Once"], exitCode.badInput, message);
    await refused(["eval", place, "--text", "corpus.txt"], exitCode.badInput, message);
    await refused(["inspect", place], exitCode.badInput, message);
    await refused(["export", place, "--to", "exported"], exitCode.badInput, message);
  });

  it.each([
    [["--tokenizer", "nowhere.json"], "nowhere.json: there is no such tokenizer file"],
    [["--tokenizer", "corpus.txt"], "corpus.txt: not JSON, or cut short"],
    [["--tokenizer", "empty"], "tokenizer.json: cannot be read"],
  ])("%j is refused by the name of the file", async (words, message) => {
    await refused(["generate", "model", "Once", ...words], exitCode.badInput, message);
  });

  it("a tokenizer of another size is refused for a torch checkpoint", async () => {
    const words = ["generate", torchFile, "Once", "--tokenizer", "byte"];
    await refused(words, exitCode.badInput, "they do not belong together");
  });
});

describe("training that cannot begin", () => {
  const train = (...words: readonly string[]): readonly string[] => ["train", "tiny.json", ...words];

  it.each([
    [["--optimizer.learning-rat", "1"], 'did you mean "optimizer.learningRate"?'],
    [["--model.heads", "3"], "heads must divide width"],
    [["--model.stateWidth", "5"], "stateWidth must be even"],
    [["--batch-tokens", "64", "--gradient-accumulation", "2"], "batchTokens and gradientAccumulation contradict"],
    [["--data.shards", "shards"], "data.text and data.shards contradict each other"],
    [["--model.layers", "1e9"], "layers must be a whole number from 1 to 10000, got 1000000000"],
    [["--model.layers", "many"], "layers must be a whole number from 1 to 10000, got many"],
    [["--model.mixers", "5"], "mixers must be a list, got 5"],
    [["--model.width", "1e8", "--model.heads", "4"], "parameters needs at least"],
    [["--model.maximumLength", "1e12"], "maximumLength must be a whole number from 1 to 16777216"],
    [["--micro-batch-size", "1e12"], "choose a smaller model, microBatchSize or sequenceLength"],
    [["--name", ""], "--name: expected the name of a folder"],
    [["--name", "a/b"], "--name: expected the name of a folder"],
    [["--output", "corpus.txt"], "output: expected a folder, or a name that is free, got "],
    [["--output", "corpus.txt/below"], "output: expected a folder, or a name that is free, got "],
    [["--backend", "abacus"], 'backend: expected one of onnxruntime, reference, webgpu, cuda, got "abacus"'],
  ])("%j is a mistake of the command line", async (words, message) => {
    await refused(train(...words), exitCode.usage, message);
  });

  it.each([
    ["empty.txt", "got 0 tokens"],
    ["empty", "got 0 tokens"],
    ["short.txt", "short.txt, training part: expected at least 17 tokens"],
    ["latin.txt", "latin.txt: expected UTF-8 text, got byte 0xe9 at offset 3"],
    ["nowhere", "there is no such file or folder"],
  ])("data in %s cannot be used", async (text, message) => {
    await refused(train("--data.text", text), exitCode.badInput, message);
  });

  it.each([
    ["corpus.txt", "corpus.txt"],
    ["empty", "empty"],
    ["nowhere", "nowhere"],
    ["cut-shards", "train-00000.bin"],
  ])("shards in %s cannot be used", async (shards, message) => {
    const words = ["train", "no-data.json", "--data.shards", shards, "--data.sequence-length", "16"];
    await refused(words, exitCode.badInput, message);
  });

  it.each([
    [["--resume", "nowhere"], "nowhere: expected the folder of a run or a checkpoint to resume, found nothing"],
    [["--resume", "corpus.txt"], "corpus.txt: expected the folder of a run or a checkpoint to resume, found a file"],
    [["--resume", "pointers/latest"], "pointers/latest: expected the name of the run beside it"],
    [["--resume", "model"], "a model folder alone cannot be resumed"],
    [["--resume", "flipped-checkpoint"], "flipped-checkpoint/training.safetensors"],
    [["--resume", "runs/tiny", "--model.width", "16"], "model.width is 8 there and 16 here"],
    [["--resume", "runs/latest", "--seed", "5"], "seed is 0 there and 5 here"],
    [["--resume", "auto", "--data.held-out-fraction", "0.3"], "the data are other tokens"],
    [["--resume", "--name", "new"], "expected a checkpoint to resume, found none"],
  ])("%j finds nothing that fits", async (words, message) => {
    await refused(train(...words), exitCode.badInput, message);
  });
});

afterEach(() => void vi.unstubAllEnvs());

it("a bit of a shard that was turned around ends the run before anything is learned from it", async () => {
  const words = ["train", "no-data.json", "--data.shards", "flipped-shards", "--data.sequence-length", "16"];
  const { code, error } = await run(folder, [...words, "--output", "flipped-runs"]);
  expect(error).toContain("flipped-shards: train-00000.bin does not match its checksum; prepare the data again");
  expect(code).toBe(exitCode.badInput);
  const metrics = await readFile(join(folder, "flipped-runs/no-data/metrics.jsonl"), "utf8");
  expect(metrics).toBe("");
});

it("a folder that cannot be written is refused before anything is computed", async () => {
  const startMs = performance.now();
  // /proc is a folder that takes no files, not even from the superuser; where there is none, nobody may make it.
  await refused(["train", "tiny.json", "--output", "/proc/runs"], exitCode.failed, "output: /proc/runs/tiny cannot be");
  expect(performance.now() - startMs).toBeLessThan(5000);
});

it("an export to a file is a mistake of the command line", async () => {
  const message = "--to: expected a folder, or a name that is free, got ";
  await refused(["export", "model", "--to", "corpus.txt"], exitCode.usage, message);
});

describe("a backend", () => {
  it.each([
    ["webgpu", "webgpu: no GPU was found"],
    ["cuda", "cuda: no "],
  ])("that is not there, %s, is told by every command", async (name, message) => {
    // Where there is a GPU, it is hidden.
    vi.stubEnv("CUDA_VISIBLE_DEVICES", "");
    vi.stubEnv("VK_ICD_FILENAMES", "none");
    const backend = ["--backend", name];
    await refused(["generate", "model", "Once", ...backend], exitCode.failed, message);
    await refused(["eval", "model", "--text", "corpus.txt", ...backend], exitCode.failed, message);
    await refused(["inspect", "model", "--text", "corpus.txt", ...backend], exitCode.failed, message);
    await refused(["train", "tiny.json", ...backend], exitCode.failed, message);
    const golden = new URL("../../../fixtures/sisa-tiny-a.safetensors", import.meta.url).pathname;
    await refused(["verify", golden, ...backend], exitCode.failed, message);
  });

  it("of a name that is none is a mistake of the command line", async () => {
    await refused(["generate", "model", "Once", "--backend", "abacus"], exitCode.usage, 'got "abacus"');
  });

  it("that lacks a precision is one too", async () => {
    const message = "precision bfloat16 and backend onnxruntime contradict each other: it computes in float32 only";
    await refused(["generate", "model", "Once", "--precision", "bfloat16"], exitCode.usage, message);
    await refused(["serve", "model", "--precision", "bfloat16"], exitCode.usage, message);
    await refused(["eval", "model", "--text", "corpus.txt", "--precision", "bfloat16"], exitCode.usage, message);
  });
});

describe("settings out of range", () => {
  it.each([
    [["generate", "model", "Once", "--top-p", "2"], "topP must be above 0 and at most 1, got 2"],
    [["generate", "model", "Once", "--heads", "3"], "--heads is for .pt files"],
    [["generate", "model", "Once", "--threads", "0"], "Expected a whole number >= 1."],
    [
      ["train", "tiny.json", "--backend", "reference", "--threads", "2"],
      "threads: expected none for backend reference, which has none to set, got 2; leave them out",
    ],
    [["eval", "model", "--text", "corpus.txt", "--sequence-length", "65"], "--sequence-length: expected at most 64"],
    [["eval", "model", "--tasks", ""], "--tasks: expected perplexity, perplexity:harness, lambada"],
    [
      ["eval", "model", "--tasks", "lambada"],
      "task lambada needs its items, one JSON object a line; name them: --data FILE",
    ],
  ])("%j", async (words, message) => {
    await refused(words, exitCode.usage, message);
  });
});

describe("text that cannot be prepared", () => {
  it.each([
    [["corpus.txt", "--to", "shards"], "shards: expected a new or empty folder, it has"],
    [["corpus.txt", "--to", "corpus.txt"], "corpus.txt: expected a new or empty folder, got a file"],
    [["latin.txt"], "latin.txt: not UTF-8 at byte"],
    [["corpus.txt", "latin.txt"], "latin.txt: not UTF-8 at byte"],
    [["bad.jsonl"], 'bad.jsonl: line at byte 17: expected a string in field "text"'],
    [["bad.jsonl.gz"], "bad.jsonl.gz: cannot be read to its end"],
    [["bad.parquet"], "bad.parquet: cannot be read as Parquet"],
    [["empty.txt"], "expected text, got none"],
    [["empty"], "empty: holds no .txt"],
    [["nowhere.txt"], "nowhere.txt: there is no such file"],
  ])("%j", async (words, message) => {
    await refused(["prepare", "--to", "new", "--threads", "0", ...words], exitCode.badInput, message);
  });
});
