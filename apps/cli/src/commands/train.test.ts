import { existsSync } from "node:fs";
import { mkdir, open, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { loadModel } from "@sisa/hub/node";
import { readMetrics } from "@sisa/train/node";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { makeRunFolder } from "../run-folder.ts";
import { run, temporaryFolder, tinyConfig, tinyText } from "../testing.ts";

let folder: string;
beforeEach(async () => {
  folder = await temporaryFolder();
  await writeFile(join(folder, "corpus.txt"), tinyText);
  await writeConfig(tinyConfig);
});
afterEach(() => {
  vi.restoreAllMocks();
});

async function writeConfig(config: unknown): Promise<void> {
  await writeFile(join(folder, "tiny.config.json"), JSON.stringify(config));
}

const train = (words: readonly string[], options?: Parameters<typeof run>[2]) =>
  run(folder, ["train", "tiny.config.json", ...words], options);

describe("sisa train", () => {
  it("writes a run with model, metrics and report, and says what to try next", async () => {
    const { code, stdout, stderr } = await train([], { env: { npm_lifecycle_event: "sisa" } });
    expect(code).toBe(0);
    expect(stderr).toContain("step 6/6 (100%)");
    expect(stdout).toContain("  npm run sisa -- generate runs/tiny ");
    expect((await readdir(join(folder, "runs/tiny"))).sort()).toEqual([
      "checkpoints",
      "metrics.jsonl",
      "report.html",
      "run.json",
    ]);
    expect(await readlink(join(folder, "runs/latest"))).toBe("tiny");
    const records = readMetrics(join(folder, "runs/tiny/metrics.jsonl"));
    expect(records.filter(({ type }) => type === "step")).toHaveLength(6);
    expect(await readFile(join(folder, "runs/tiny/report.html"), "utf8")).toContain("Lambda");
  });

  it("never writes into the folder of another run", async () => {
    await train(["--steps", "2"]);
    const before = await readFile(join(folder, "runs/tiny/metrics.jsonl"));
    const { json } = await train(["--steps", "2", "--json"]);
    expect(json).toMatchObject({ run: join(folder, "runs/tiny-2"), step: 2, skipped: 0 });
    expect(await readFile(join(folder, "runs/tiny/metrics.jsonl"))).toEqual(before);
    expect(await readlink(join(folder, "runs/latest"))).toBe("tiny-2");
  });

  it("gives each of several runs that begin at once a folder of its own", async () => {
    const all = await Promise.all([1, 2, 3].map((seed) => train(["--seed", String(seed), "--json"])));
    expect(all.map(({ code, error }) => error ?? code)).toEqual([0, 0, 0]);
    const folders = all.map(({ json }) => String(json?.run));
    expect(folders.toSorted()).toEqual(["tiny", "tiny-2", "tiny-3"].map((name) => join(folder, "runs", name)));
    for (const [index, path] of folders.entries()) {
      expect(JSON.parse(await readFile(join(path, "run.json"), "utf8")).config.seed).toBe(index + 1);
      const steps = readMetrics(join(path, "metrics.jsonl")).filter(({ type }) => type === "step");
      expect(steps).toHaveLength(6);
    }
    expect(await readdir(join(folder, "runs"))).toEqual(["latest", "tiny", "tiny-2", "tiny-3"]);
  });

  it("has folders for several runs that find the same one free", async () => {
    const output = join(folder, "deep/runs");
    const made = await Promise.all([1, 2, 3].map(() => makeRunFolder(output, "tiny")));
    const names = ["tiny", "tiny-2", "tiny-3"];
    expect(made.map((one) => one.folder).toSorted()).toEqual(names.map((name) => join(output, name)));
    await writeFile(join(output, "tiny-2/run.json"), "{}");
    for (const one of made) await one[Symbol.asyncDispose]();
    expect(await readdir(output)).toEqual(["tiny-2"]);
    await using free = await makeRunFolder(join(folder, "other"), "tiny");
    await free[Symbol.asyncDispose]();
    expect(existsSync(join(folder, "other"))).toBe(false);
  });

  it("executes a TypeScript configuration, which finds @sisa/cli/config from anywhere", async () => {
    await writeFile(
      join(folder, "typed.config.ts"),
      `import { defineConfig, preset } from "@sisa/cli/config";
       const vocabularySize: number = 257;
       const sizes = { layers: 1, width: 8, heads: 2, stateWidth: 2, feedForwardWidth: 8, maximumLength: 16 } as const;
       export default defineConfig({
         model: preset("sisa", "1m", { vocabularySize, ...sizes }),
         data: { text: "corpus.txt", sequenceLength: 16 },
         steps: 1, microBatchSize: 1,
       });`,
    );
    const { code, json } = await run(folder, ["train", "typed.config.ts", "--json", "--report=false"]);
    expect(code).toBe(0);
    expect(json).toMatchObject({ run: join(folder, "runs/typed"), step: 1 });
    expect(existsSync(join(folder, "runs/typed/report.html"))).toBe(false);
  });

  it("saves at Ctrl-C, says how to go on, and gives then what an unbroken run gives", async () => {
    await train(["--name", "straight"]);
    const stopped = await train(["--name", "broken", "--log-every", "1"], {
      onProgress: (text, interrupt) => {
        if (text.includes("step 1/6")) interrupt("SIGINT");
      },
    });
    expect(stopped.code).toBe(130);
    const [, again = ""] = /to go on: sisa (.*)$/.exec(stopped.error ?? "") ?? [];
    expect(again).toBe("train tiny.config.json --name broken --log-every 1 --resume auto");
    const half = await loadModel(join(folder, "runs/broken/checkpoints/latest"));

    const resumed = await run(folder, again.split(" "));
    expect(resumed.code).toBe(0);
    expect(resumed.stderr).toMatch(/Going on from step [1-5]\./);
    const final = await loadModel(join(folder, "runs/broken/checkpoints/latest"));
    const straight = await loadModel(join(folder, "runs/straight/checkpoints/latest"));
    expect(final.parameters).toEqual(straight.parameters);
    expect(final.parameters).not.toEqual(half.parameters);
  });

  it("starts anew with --resume auto where there is nothing, and asks for a checkpoint with --resume", async () => {
    const missing = await train(["--resume"]);
    expect(missing.code).toBe(3);
    expect(missing.error).toContain("expected a checkpoint to resume, found none");
    expect((await train(["--resume", "auto"])).code).toBe(0);
  });

  it("goes on from a run that is named", async () => {
    await train(["--name", "one", "--steps", "6"]);
    await rm(join(folder, "runs/one/checkpoints/step-00000006"), { recursive: true });
    const { code, stderr } = await run(folder, ["train", "tiny.config.json", "--resume", "runs/latest"]);
    expect(code).toBe(0);
    expect(stderr).toContain("Going on from step 4.");
    expect(await readdir(join(folder, "runs"))).toEqual(["latest", "one"]);
  });

  it("passes over a damaged checkpoint, and says so", async () => {
    await train([]);
    const weights = join(folder, "runs/tiny/checkpoints/step-00000006/model.safetensors");
    const bytes = await readFile(weights);
    bytes[bytes.length - 9] = (bytes[bytes.length - 9] ?? 0) ^ 1;
    await writeFile(weights, bytes);
    const { code, stderr } = await train(["--resume", "auto"]);
    expect(code).toBe(0);
    expect(stderr).toContain("damaged checkpoint is passed over");
    expect(stderr).toContain("Going on from step 4.");
  });

  it("keeps earlier checkpoints where the disk is full, and ends with one clear line", async () => {
    await train(["--steps", "6", "--name", "full"]);
    await rm(join(folder, "runs/full/checkpoints/step-00000006"), { recursive: true });
    const handle = await open(join(folder, "corpus.txt"));
    const prototype = Object.getPrototypeOf(handle);
    await handle.close();
    vi.spyOn(prototype, "write").mockImplementation(async () => {
      throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC", syscall: "write" });
    });
    const { code, error } = await train(["--resume", "auto", "--name", "full"]);
    vi.restoreAllMocks();
    expect(code).toBe(1);
    expect(error).toContain("the disk is full");
    expect(await readdir(join(folder, "runs/full/checkpoints"))).toEqual(expect.arrayContaining(["step-00000004"]));
    expect((await train(["--resume", "auto", "--name", "full"])).code).toBe(0);
  });

  it("lists every field in its help", async () => {
    const { code, stdout } = await run(folder, ["train", "--help"]);
    expect(code).toBe(0);
    for (const flag of ["--optimizer.learning-rate", "--data.text", "--steps", "--resume"]) {
      expect(stdout).toContain(flag);
    }
    expect(stdout).toContain("$ sisa train sisa.config.ts --steps 2000 --resume auto");
  });
});

describe("sisa train refuses, in one line and without leaving a folder,", () => {
  afterEach(() => {
    expect(existsSync(join(folder, "runs"))).toBe(false);
  });

  it.each([
    [["--stepz", "3"], '"stepz" is not a field of the configuration; did you mean "steps"?'],
    [["--steps", "few"], 'steps: expected a whole number >= 1, got "few"'],
    [["--steps"], "--steps: expected a value after it"],
    [["--model.width", "9"], "heads must divide width"],
    [["--model.stateWidth", "3"], "stateWidth must be even"],
    [["--model.heads", "0"], "heads must be a whole number from 1 to"],
    [["--model.depth", "3"], '"model.depth" is not a field of the configuration'],
    [["--model.vocabularySize", "50277"], "model.vocabularySize: expected that of the tokenizer, 257, got 50277"],
    [["--data.sequence-length", "128"], "sequenceLength: expected at most the model's maximumLength (64), got 128"],
    [["--batch-tokens", "100"], "batchTokens: expected a multiple of"],
    [["--batch-tokens", "64", "--gradient-accumulation", "2"], "batchTokens and gradientAccumulation contradict"],
    [["--data.shards", "x"], "data.text and data.shards contradict each other"],
    [["--backend", "tpu"], 'backend: expected one of onnxruntime, reference, webgpu, cuda, got "tpu"'],
    [["--precision", "bfloat16"], "precision bfloat16 and backend onnxruntime contradict"],
    [["other.json"], 'expected one configuration file, got "tiny.config.json" and "other.json"'],
    [["--name", "../up"], "--name: expected the name of a folder"],
    [["--name", "latest"], "--name: expected the name of a folder"],
  ])("%j", async (words, message) => {
    const { code, error, stdout } = await train(words);
    expect(error).toContain(message);
    expect(code).toBe(2);
    expect(stdout).toBe("");
  });

  it("an unknown field in the file", async () => {
    await writeConfig({ ...tinyConfig, optimizer: { learning_rate: 1 } });
    const { code, error } = await train([]);
    expect(error).toBe(
      '"optimizer.learning_rate" is not a field of the configuration; did you mean "optimizer.learningRate"?',
    );
    expect(code).toBe(2);
  });

  it.each([
    ["missing.json", undefined, "there is no such configuration file"],
    ["bad.json", "{", "bad.json: not JSON"],
    ["bad.yaml", "a: 1", "expected a configuration in .json or .ts"],
    ["throws.ts", "throw new Error('no luck')", "throws.ts: cannot be executed: no luck"],
    ["empty.ts", "export const a = 1", 'expected "export default defineConfig'],
    ["syntax.ts", "export default {", "syntax.ts: cannot be executed"],
  ])("the configuration file %s", async (name, content, message) => {
    if (content !== undefined) await writeFile(join(folder, name), content);
    const { code, error } = await run(folder, ["train", name]);
    expect(error).toContain(message);
    expect(code).toBe(2);
  });

  it("a configuration without model or data", async () => {
    await writeConfig({ ...tinyConfig, model: undefined });
    expect(await train([])).toMatchObject({ code: 2, error: expect.stringContaining("model: expected a model") });
    await writeConfig({ ...tinyConfig, data: { sequenceLength: 16 } });
    expect(await train([])).toMatchObject({
      code: 2,
      error: expect.stringContaining("data: expected text, shards or synthetic"),
    });
  });

  it.each([
    ["empty", "", "got 0 tokens"],
    ["too short", "ab", "expected at least"],
    ["not UTF-8", Uint8Array.of(0x63, 0xe9, 0x61), "expected UTF-8 text, got byte 0xe9 at offset 1"],
  ])("text that is %s", async (_, content, message) => {
    await writeFile(join(folder, "corpus.txt"), content);
    const { code, error } = await train([]);
    expect(error).toContain(message);
    expect(code).toBe(3);
  });

  it("a folder without text, and one that is not there", async () => {
    await mkdir(join(folder, "empty"));
    expect(await train(["--data.text", "empty"])).toMatchObject({ code: 3, error: expect.stringContaining("empty") });
    const missing = await train(["--data.text", "nowhere"]);
    expect(missing).toMatchObject({ code: 3, error: expect.stringContaining("there is no such file or folder") });
    const shards = await run(folder, [
      "train",
      "--data.shards",
      "empty",
      "--model.preset",
      "sisa",
      "--model.size",
      "1m",
    ]);
    expect(shards.code).toBe(3);
  });
});

it("refuses to go on from a checkpoint of another run, by what differs, and leaves it alone", async () => {
  await train([]);
  const before = await readdir(join(folder, "runs/tiny/checkpoints"));
  const { code, error } = await train(["--resume", "auto", "--model.width", "16", "--seed", "5"]);
  expect(code).toBe(3);
  expect(error).toContain("model.width is 8 there and 16 here");
  expect(error).toContain("seed is 0 there and 5 here");
  await writeFile(join(folder, "corpus.txt"), `${tinyText} More.`);
  const other = await train(["--resume", "auto"]);
  expect(other).toMatchObject({ code: 3, error: expect.stringContaining("the data are other tokens") });
  expect(await readdir(join(folder, "runs/tiny/checkpoints"))).toEqual(before);
});
