import { CheckpointError, ConfigError, DataError, initialize, languageModel, reference } from "@sisa/core";
import { byteTokenizer, loadModel, memoryStorage, type Storage, StorageError } from "@sisa/hub";
import { beforeAll, describe, expect, it } from "vitest";
import { tinyData, tinyModel, tinySettings } from "../test/tiny.ts";
import { CheckpointMismatchError, openCheckpoint } from "./checkpoint.ts";
import { checkpointName, listCheckpoints } from "./checkpoint-folder.ts";
import { textDocuments } from "./data/text-documents.ts";
import type { MetricsRecord, MetricsSink } from "./metrics/metrics.ts";
import { NotFiniteError } from "./not-finite.ts";
import { subfolder } from "./subfolder.ts";
import { type TrainingRun, type TrainOptions, train } from "./train.ts";

const backend = reference();

function tinyRun(change: Partial<TrainOptions> = {}): Promise<TrainingRun> {
  return train({ model: tinyModel(), backend, data: tinyData(), ...tinySettings, ...change });
}

/** A sink that aborts a signal when a step has come. */
function stopAt(step: number): { signal: AbortSignal; metrics: MetricsSink } {
  const controller = new AbortController();
  const write = (record: MetricsRecord): void => {
    if (record.type === "step" && record.step === step) controller.abort();
  };
  return { signal: controller.signal, metrics: { write } };
}

const lossesOf = (records: readonly MetricsRecord[]): [number, number][] =>
  records.filter((record) => record.type === "step").map(({ step, loss }) => [step, loss]);

async function bytesOf(storage: Storage, name: string): Promise<Uint8Array> {
  await using file = await storage.open(name);
  return await file.read(0, file.size);
}

let straight: TrainingRun;
beforeAll(async () => {
  straight = await tinyRun();
});

describe("train", () => {
  it("trains, measures, samples and saves", async () => {
    expect(straight).toMatchObject({ step: 8, stopped: false, skipped: 0 });
    expect(straight.heldOutLoss).toBeLessThan(Math.log(257));
    expect(straight.bitsPerByte).toBeGreaterThan(straight.heldOutLoss / Math.LN2);
    expect(lossesOf(straight.records).map(([step]) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const text = await straight.sample("line", { maxTokens: 5, temperature: 0 });
    expect(await straight.sample("line", { maxTokens: 5, temperature: 0 })).toBe(text);
    expect(byteTokenizer().encode(text).length).toBeGreaterThan(0);

    const folder = memoryStorage();
    await straight.save(folder);
    const loaded = await loadModel(folder);
    expect(loaded.parameters).toEqual(straight.parameters);
    expect(loaded.tokenizer.size).toBe(257);
  });

  it("gives the same result for the same seed, another for another", async () => {
    expect((await tinyRun()).parameters).toEqual(straight.parameters);
    const other = await tinyRun({ seed: 1, steps: 1, optimizer: { warmupSteps: 0 } });
    expect(other.records[0]).not.toEqual(straight.records[0]);
  });

  it("evaluates and samples when asked, and always at the end", async () => {
    const { records } = await tinyRun({
      steps: 5,
      evaluateEvery: 2,
      sampleEvery: 3,
      samplePrompts: ["line", ""],
      sampleTokens: 3,
    });
    const steps = (type: string): number[] => records.filter((r) => r.type === type).map((r) => r.step);
    expect(steps("evaluation")).toEqual([2, 4, 5]);
    expect(steps("sample")).toEqual([3, 3, 5, 5]);
    const last = await tinyRun({ steps: 3, evaluateEvery: -1 });
    expect(last.records.filter((r) => r.type === "evaluation").map((r) => r.step)).toEqual([3]);
  });

  it("measures lambda and half-life by layer and head", async () => {
    const heads = await straight.heads();
    expect(heads?.layers).toEqual(["0"]);
    expect(heads?.lambda[0]).toHaveLength(2);
    expect(heads?.lambda[0]?.[0]).toBeCloseTo(0.3133, 1);
    for (const value of heads?.measuredHalfLife?.[0] ?? [0]) expect(value).toBeGreaterThan(50);
  });

  it.each<[string, Partial<TrainOptions>, typeof ConfigError, string]>([
    ["no steps", { steps: 0 }, ConfigError, "steps: expected a whole number >= 1, got 0"],
    ["an unknown setting", { stpes: 3 } as unknown as Partial<TrainOptions>, ConfigError, 'did you mean "steps"?'],
    [
      "sequences too long for the model",
      { sequenceLength: 64 },
      ConfigError,
      "sequenceLength: expected at most the model's maximumLength (32), got 64",
    ],
    [
      "data that are too short",
      { data: textDocuments(["short"], byteTokenizer(), { heldOutFraction: 0.4 }) },
      DataError,
      "training part: expected at least 9 tokens",
    ],
    [
      "ids that the model does not have",
      { data: { ...tinyData(), vocabularySize: 300 } },
      ConfigError,
      "the data has token ids up to 299, the model a vocabulary of 257",
    ],
    [
      "a vocabulary that its tokenizer could not be saved with",
      { model: languageModel({ ...tinyModel().config, vocabularySize: 300 }) },
      ConfigError,
      "the data's tokenizer has 257 tokens, the model a vocabulary of 300",
    ],
    ["to resume from nowhere", { resume: "auto" }, ConfigError, "resume needs a folder of checkpoints"],
  ])("refuses %s", async (_, change, type, message) => {
    const attempt = tinyRun(change);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toSatisfy((error) => type.isInstance(error));
  });

  it("ends where steps are not finite again and again, and names the first operation", async () => {
    const parameters = initialize(tinyModel(), 0);
    parameters["layers.0.W_V.weight"]?.fill(3e38);
    const records: MetricsRecord[] = [];
    const attempt = tinyRun({
      parameters,
      maximumSkippedSteps: 2,
      metrics: { write: (record) => void records.push(record) },
    });
    await expect(attempt).rejects.toSatisfy((error) => NotFiniteError.isInstance(error));
    await expect(attempt).rejects.toThrow(/2 steps in a row were not finite, up to step 2: .* after layers\.0\.W_V/);
    expect(records.filter(({ type }) => type === "warning")).toHaveLength(1);
    expect(records.filter(({ type }) => type === "step")).toHaveLength(2);
  });

  it("goes on where metrics cannot be written, and says so once", async () => {
    const heard: MetricsRecord[] = [];
    const broken: MetricsSink = {
      write() {
        throw new Error("ENOSPC: no space left on device");
      },
    };
    const run = await tinyRun({ steps: 3, metrics: [broken, { write: (record) => void heard.push(record) }] });
    expect(run.step).toBe(3);
    expect(heard.filter(({ type }) => type === "warning")).toEqual([
      { type: "warning", step: 1, message: "metrics could not be written: ENOSPC: no space left on device" },
    ]);
  });
});

describe("checkpoints", () => {
  it("are model folders too, the newest are kept", async () => {
    const checkpoints = memoryStorage();
    await tinyRun({ checkpoints, saveEvery: 2, keepCheckpoints: 2 });
    expect(await listCheckpoints(checkpoints)).toEqual([6, 8]);
    const loaded = await loadModel(subfolder(checkpoints, checkpointName(8)));
    expect(loaded.parameters).toEqual(straight.parameters);
  });

  it("keep the best held-out loss where asked", async () => {
    const checkpoints = memoryStorage();
    // So high a rate makes the loss worse after a while.
    const { records } = await tinyRun({
      checkpoints,
      keepBest: true,
      evaluateEvery: 1,
      saveEvery: 4,
      keepCheckpoints: 1,
      optimizer: { learningRate: 3, warmupSteps: 2 },
    });
    const losses = records.filter((record) => record.type === "evaluation");
    const best = losses.reduce((a, b) => (b.heldOutLoss < a.heldOutLoss ? b : a));
    expect(best.step).toBeLessThan(8);
    expect(await listCheckpoints(checkpoints)).toEqual([best.step, 8]);
  });

  it("let a stopped run go on bit by bit as if it had not stopped", async () => {
    const checkpoints = memoryStorage();
    const stopped = await tinyRun({ checkpoints, saveEvery: -1, ...stopAt(3) });
    expect(stopped).toMatchObject({ stopped: true });
    expect(await listCheckpoints(checkpoints)).toEqual([stopped.step]);
    expect(stopped.step).toBeLessThan(8);
    const started: number[] = [];
    const resumed = await tinyRun({
      checkpoints,
      resume: "auto",
      metrics: { start: (step) => void started.push(step), write() {} },
    });
    expect(started).toEqual([stopped.step]);
    expect([...lossesOf(stopped.records), ...lossesOf(resumed.records)]).toEqual(lossesOf(straight.records));
    expect(resumed.parameters).toEqual(straight.parameters);
    expect(resumed.heldOutLoss).toBe(straight.heldOutLoss);

    const whole = memoryStorage();
    await tinyRun({ checkpoints: whole });
    const file = `${checkpointName(8)}/model.safetensors`;
    expect(await bytesOf(checkpoints, file)).toEqual(await bytesOf(whole, file));
  });

  it("let a run that was stopped right before a held-out loss measure it when it goes on, and keep it as the best", async () => {
    const common = { saveEvery: -1, keepBest: true, evaluateEvery: 2, logEvery: 1 } as const;
    const measured = ({ records }: TrainingRun): [number, number][] =>
      records.filter((record) => record.type === "evaluation").map(({ step, heldOutLoss }) => [step, heldOutLoss]);
    const whole = await tinyRun(common);
    const checkpoints = memoryStorage();
    const stopped = await tinyRun({ checkpoints, ...common, ...stopAt(4) });
    expect(measured(stopped)).toEqual(measured(whole).slice(0, 1));
    const again = await tinyRun({ checkpoints, resume: true, ...common, ...stopAt(5) });
    expect(measured(again)).toEqual(measured(whole).slice(1, 2));
    await using best = await openCheckpoint(subfolder(checkpoints, checkpointName(4)));
    expect(best.metadata.best).toEqual({ step: 4, heldOutLoss: measured(whole)[1]?.[1] });
    const resumed = await tinyRun({ checkpoints, resume: true, ...common });
    expect(measured(resumed)).toEqual(measured(whole).slice(2));
  });

  it("let a run go on with layers computed again, to the same bits", async () => {
    const checkpoints = memoryStorage();
    const stopped = await tinyRun({ checkpoints, saveEvery: -1, ...stopAt(3) });
    expect(stopped).toMatchObject({ stopped: true });
    const resumed = await tinyRun({ checkpoints, resume: true, rematerialize: "layers" });
    expect(resumed.step).toBe(8);
    expect(resumed.parameters).toEqual(straight.parameters);
  });

  it("are not overwritten by a run that begins anew", async () => {
    const checkpoints = memoryStorage();
    await tinyRun({ checkpoints, steps: 2, saveEvery: -1 });
    await expect(tinyRun({ checkpoints, steps: 2 })).rejects.toThrow("already holds checkpoints, up to step 2");
    expect(await listCheckpoints(checkpoints)).toEqual([2]);
  });

  it("are resumed at their end by measuring only", async () => {
    const checkpoints = memoryStorage();
    await tinyRun({ checkpoints });
    const again = await tinyRun({ checkpoints, resume: true });
    expect(lossesOf(again.records)).toEqual([]);
    expect(again.heldOutLoss).toBe(straight.heldOutLoss);
  });

  it("are asked for by resume: true, and may be missing for auto", async () => {
    await expect(tinyRun({ checkpoints: memoryStorage(), resume: true })).rejects.toThrow(
      "expected a checkpoint to resume, found none",
    );
    expect((await tinyRun({ checkpoints: memoryStorage(), resume: "auto", steps: 2 })).step).toBe(2);
  });
});

describe("a checkpoint that does not fit", () => {
  let checkpoints: Storage;
  let files: Map<string, Uint8Array>;
  beforeAll(async () => {
    checkpoints = memoryStorage();
    await tinyRun({ checkpoints, saveEvery: 4 });
    files = new Map();
    for (const name of await checkpoints.list()) files.set(name, await bytesOf(checkpoints, name));
  });

  /** A copy of the checkpoints with one file changed. */
  function changed(name: string, change: (bytes: Uint8Array) => Uint8Array | undefined): Storage {
    const copy = new Map(files);
    const result = change((files.get(name) ?? new Uint8Array()).slice());
    if (result === undefined) copy.delete(name);
    else copy.set(name, result);
    return memoryStorage(Object.fromEntries(copy));
  }

  it.each<[string, Partial<TrainOptions>]>([
    ["model.width is 8 there and 16 here", { model: tinyModel({ width: 16 }) }],
    ["optimizer.learningRate is 0.01 there and 0.02 here", { optimizer: { learningRate: 2e-2, warmupSteps: 1 } }],
    ["steps is 8 there and 9 here", { steps: 9 }],
    ["seed is 0 there and 3 here", { seed: 3 }],
    ["the data are other tokens", { data: textDocuments(["other text ".repeat(99)], byteTokenizer()) }],
  ])("is refused by what differs: %s", async (message, change) => {
    for (const resume of ["auto", true, subfolder(checkpoints, checkpointName(8))] as const) {
      const attempt = tinyRun({ checkpoints, resume, ...change });
      await expect(attempt).rejects.toThrow(message);
      await expect(attempt).rejects.toSatisfy((error) => CheckpointMismatchError.isInstance(error));
    }
  });

  it("may differ in what does not touch the result", async () => {
    const run = await tinyRun({ checkpoints, resume: true, logEvery: 3, saveEvery: 2, evaluateEvery: -1 });
    expect(run.parameters).toEqual(straight.parameters);
  });

  const newest = checkpointName(8);
  const damages: [string, string, (bytes: Uint8Array) => Uint8Array | undefined][] = [
    ["cut short", "model.safetensors", (bytes) => bytes.slice(0, -10)],
    ["cut short", "training.safetensors", (bytes) => bytes.slice(0, -10)],
    ["emptied", "training.safetensors", () => new Uint8Array()],
    ["with a flipped bit", "model.safetensors", (bytes) => bytes.with(bytes.length - 5, (bytes.at(-5) ?? 0) ^ 4)],
    ["with a flipped bit", "training.safetensors", (bytes) => bytes.with(bytes.length - 5, (bytes.at(-5) ?? 0) ^ 4)],
    ["with a flipped bit in the header", "training.safetensors", (bytes) => bytes.with(40, (bytes[40] ?? 0) ^ 1)],
    ["missing", "model.safetensors", () => undefined],
  ];

  it.each(damages)("%s, is refused where it was asked for: %s", async (_, file, damage) => {
    const storage = changed(`${newest}/${file}`, damage);
    const attempt = tinyRun({ resume: subfolder(storage, newest) });
    await expect(attempt).rejects.toSatisfy((error) => CheckpointError.isInstance(error));
    await expect(attempt).rejects.toThrow(newest);
  });

  it.each(damages)("%s, is passed over by auto, with a warning: %s", async (_, file, damage) => {
    const storage = changed(`${newest}/${file}`, damage);
    const run = await tinyRun({ checkpoints: storage, resume: "auto" });
    expect(run.records[0]).toMatchObject({ type: "warning", step: 4 });
    expect(lossesOf(run.records)).toEqual(lossesOf(straight.records).slice(4));
    expect(run.parameters).toEqual(straight.parameters);
    await using saved = await openCheckpoint(subfolder(storage, newest));
    expect(saved.metadata.step).toBe(8);
  });

  it("is refused where weights and optimizer are of two saves", async () => {
    const older = files.get(`${checkpointName(4)}/model.safetensors`);
    const storage = changed(`${newest}/model.safetensors`, () => older);
    await expect(tinyRun({ resume: subfolder(storage, newest) })).rejects.toThrow("are of two different saves");
  });

  it("is refused where all are damaged, rather than to begin anew", async () => {
    const only = new Map([...files].filter(([name]) => name.startsWith(newest)));
    only.set(`${newest}/training.safetensors`, Uint8Array.of(1, 2, 3));
    const storage = memoryStorage(Object.fromEntries(only));
    await expect(tinyRun({ checkpoints: storage, resume: "auto" })).rejects.toThrow(
      "none of 1 checkpoints can be read",
    );
  });

  it("is refused where it is only a model", async () => {
    const storage = memoryStorage();
    await straight.save(storage);
    await expect(tinyRun({ resume: storage })).rejects.toThrow("a model folder alone cannot be resumed");
  });

  it("is refused as an earlier one of a folder that holds later ones", async () => {
    const resume = subfolder(checkpoints, checkpointName(4));
    await expect(tinyRun({ checkpoints, resume })).rejects.toThrow("holds later checkpoints than the one to resume");
    expect((await tinyRun({ checkpoints: memoryStorage(), resume })).parameters).toEqual(straight.parameters);
  });
});

describe("a disk that is full", () => {
  /** A storage in memory that has no room for a second checkpoint until it is given some. */
  async function nearlyFull(): Promise<{ storage: Storage; fill(full: boolean): void }> {
    const inner = memoryStorage();
    let isFull = false;
    const storage: Storage = {
      ...inner,
      async write(name, content) {
        if (isFull && name.endsWith("training.safetensors"))
          throw new StorageError("full", `${name}: the disk is full`);
        await inner.write(name, content);
      },
    };
    const fill = (full: boolean): void => {
      isFull = full;
    };
    return { storage, fill };
  }

  it("keeps the best of the checkpoints that are there", async () => {
    const { storage, fill } = await nearlyFull();
    const metrics: MetricsSink = {
      write(record) {
        if (record.type === "step") fill(record.step === 2);
      },
    };
    // So high a rate makes the loss worse after a while.
    const optimizer = { learningRate: 3, warmupSteps: 5 };
    const saved = { keepBest: true, evaluateEvery: 1, saveEvery: 4, keepCheckpoints: 1 };
    const { records } = await tinyRun({ checkpoints: storage, metrics, logEvery: 1, optimizer, ...saved });
    const losses = records.filter((record) => record.type === "evaluation");
    const inOrder = losses.toSorted((a, b) => a.heldOutLoss - b.heldOutLoss).map(({ step }) => step);
    expect(inOrder.slice(0, 2)).toEqual([2, 1]);
    expect(await listCheckpoints(storage)).toEqual([1, 8]);
  });

  it("keeps the old checkpoint, says so, and saves again when there is room", async () => {
    const { storage, fill } = await nearlyFull();
    const run = await tinyRun({
      checkpoints: storage,
      saveEvery: 2,
      metrics: {
        write(record) {
          if (record.type === "step") fill(record.step === 3 || record.step === 4);
        },
      },
    });
    expect(run.records.filter(({ type }) => type === "warning")).toMatchObject([
      { step: 4, message: expect.stringContaining("earlier ones are still there: ") },
    ]);
    expect(await listCheckpoints(storage)).toEqual([2, 6, 8]);
    expect((await storage.list()).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("is an error at the last step, with the old checkpoints still there", async () => {
    const { storage, fill } = await nearlyFull();
    const attempt = tinyRun({
      checkpoints: storage,
      saveEvery: 6,
      metrics: { write: (record) => fill(record.step > 6) },
    });
    await expect(attempt).rejects.toSatisfy((error) => StorageError.isInstance(error));
    expect(await listCheckpoints(storage)).toEqual([6]);
    fill(false);
    const resumed = await tinyRun({ checkpoints: storage, resume: true });
    expect(resumed.parameters).toEqual(straight.parameters);
  });
});
