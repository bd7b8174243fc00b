import {
  type Backend,
  ConfigError,
  type DeviceTensor,
  type Executable,
  type GraphInputs,
  type GraphOutputs,
  initialize,
  reference,
  roundTo,
} from "@sisa/core";
import { describe, expect, it } from "vitest";
import { stateOf, tinyModel, tinyTrainer } from "../test/tiny.ts";
import { meanOf } from "./evaluation/task.ts";
import { Trainer } from "./trainer.ts";

/** A backend on which the sums of one step turn out as NaN. */
function spoiled(inner: Backend, spoiledStep: number): Backend {
  let step = 0;
  return {
    name: inner.name,
    limits: inner.limits,
    tensor: (spec, data) => inner.tensor(spec, data),
    write: (tensor, data) => inner.write(tensor, data),
    memory: () => inner.memory(),
    close: () => inner.close(),
    [Symbol.asyncDispose]: () => inner.close(),
    async compile(graph, options) {
      const executable = await inner.compile(graph, options);
      if (!("ids" in graph.inputs && "gradient.final_norm.weight" in graph.outputs)) return executable;
      const run = (inputs: Readonly<Record<string, DeviceTensor>>) => {
        const outputs = (executable as unknown as Executable<GraphInputs, GraphOutputs>).run(inputs);
        const { "gradient.final_norm.weight": gradient } = outputs;
        if (step++ === spoiledStep && gradient) inner.write(gradient, new Float32Array(8).fill(Number.NaN));
        return outputs;
      };
      return { run, close: () => executable.close() } as unknown as typeof executable;
    },
  };
}

describe("Trainer", () => {
  it("lowers the loss, by the schedule, and counts steps and tokens", async () => {
    await using backend = reference();
    await using trainer = await tinyTrainer(backend, { steps: 30 });
    const { records } = await trainer.advance(30);
    expect(records).toHaveLength(30);
    expect(records.map(({ step }) => step)).toEqual(Array.from({ length: 30 }, (_, index) => index + 1));
    expect(records[0]).toMatchObject({ learningRate: 0, tokens: 16, skipped: 0 });
    expect(records[1]?.learningRate).toBeCloseTo(1e-2, 12);
    expect(records[0]?.loss).toBeCloseTo(Math.log(257), 1);
    expect(records.at(-1)?.loss).toBeLessThan((records[0]?.loss ?? 0) - 0.5);
    expect(trainer.progress).toMatchObject({ step: 30, skipped: 0 });
  });

  it.each(["bfloat16", "float16"])(
    "trains in %s with parameters in float32, and goes on to the same bits from a saved state",
    async (precision) => {
      await using backend = reference();
      const settings = { precision, steps: 20, gradientAccumulation: 2 };
      await using straight = await tinyTrainer(backend, settings);
      const { records } = await straight.advance(6);
      await using plain = await tinyTrainer(backend, { ...settings, precision: "float32" });
      const wide = (await plain.advance(6)).records;
      records.forEach(({ loss }, step) => {
        expect(Math.abs(loss - (wide[step]?.loss ?? 0))).toBeLessThan(0.02);
      });
      const saved = await stateOf(straight);
      await using resumed = await tinyTrainer(backend, settings);
      await resumed.restore(straight.progress, async (name) => saved[name] ?? new Float32Array());
      expect((await resumed.advance(3)).records.map(({ loss }) => loss)).toEqual(
        (await straight.advance(3)).records.map(({ loss }) => loss),
      );
      expect(await stateOf(resumed)).toEqual(await stateOf(straight));
      expect((await straight.evaluate()).heldOutLoss).toBeGreaterThan(0);
    },
  );

  /** Puts a trainer in float16 back to its beginning, with another scale of its loss. */
  async function rescale(trainer: Trainer, scale: number, steps: number): Promise<void> {
    const state = await stateOf(trainer);
    const progress = { step: 0, skipped: 0, elapsedSeconds: 0, lossScale: { scale, steps } };
    await trainer.restore(progress, async (name) => state[name] ?? new Float32Array());
  }

  it("halves the scale of the loss in float16 where gradients overflow, and goes on where it left off", async () => {
    await using backend = spoiled(reference(), 2);
    await using trainer = await tinyTrainer(backend, { precision: "float16", steps: 20 });
    await rescale(trainer, 1024, 0);
    const { records, skippedBecause } = await trainer.advance(5);
    expect(records.map(({ skipped }) => skipped)).toEqual([0, 0, 1]);
    expect(skippedBecause).toBe(
      "gradients of the loss times 1024 are beyond float16; it is scaled by 512 from here on",
    );
    expect(trainer.progress).toMatchObject({ step: 3, skipped: 1, lossScale: { scale: 512, steps: 0 } });
    await trainer.advance(3);
    expect(trainer.progress).toMatchObject({ step: 6, skipped: 1, lossScale: { scale: 512, steps: 3 } });
  });

  it("finds a scale at which float16 holds the gradients, and doubles it after 2000 steps", async () => {
    await using backend = reference();
    await using trainer = await tinyTrainer(backend, { precision: "float16", steps: 60 });
    await rescale(trainer, 2 ** 30, 0);
    let skips = 0;
    while ((await trainer.advance(1)).skippedBecause !== undefined) skips++;
    expect(skips).toBeGreaterThan(5);
    expect(trainer.progress.lossScale).toEqual({ scale: 2 ** (30 - skips), steps: 1 });

    await rescale(trainer, 1024, 1998);
    await trainer.advance(2);
    expect(trainer.progress.lossScale).toEqual({ scale: 2048, steps: 0 });
    await trainer.advance(1);
    expect(trainer.progress.lossScale).toEqual({ scale: 2048, steps: 1 });
  });

  it("explains a loss that no scale of it could save", async () => {
    await using backend = reference();
    const settings = { precision: "float16", steps: 20 };
    const first = await tinyTrainer(backend, settings);
    const parameters = await first.parameters();
    await first.close();
    parameters["layers.0.W_Q.weight"]?.fill(Number.NaN);
    await using trainer = await tinyTrainer(backend, settings, { parameters });
    expect((await trainer.advance(1)).skippedBecause).toContain("layers.0.W_Q.weight");
  });

  it("keeps parameters and moments in bfloat16 in precision paper, so that small updates are lost", async () => {
    await using backend = reference();
    const optimizer = { learningRate: 1e-3, warmupSteps: 1 };
    const settings = { precision: "paper", optimizer, steps: 20, gradientAccumulation: 2 };
    await using trainer = await tinyTrainer(backend, settings);
    const before = await stateOf(trainer);
    await trainer.advance(3);
    const after = await stateOf(trainer);
    for (const [name, values] of Object.entries(after)) {
      if (name.endsWith("lambda_raw")) expect(values, name).not.toEqual(before[name]);
      else expect(values, name).toEqual(values.map((x) => roundTo("bfloat16", x)));
    }
    // An update of 1e-3 is less than half of what lies between neighbours at -5.
    expect(after["layers.0.alpha_proj.bias"]).toEqual(before["layers.0.alpha_proj.bias"]);
    expect(after["layers.0.W_Q.weight"]).not.toEqual(before["layers.0.W_Q.weight"]);
  });

  it("gives one result however many steps are taken between two looks at the loss", async () => {
    await using backend = reference();
    await using one = await tinyTrainer(backend);
    await using other = await tinyTrainer(backend);
    const { records } = await one.advance(6);
    const single = [];
    for (let step = 0; step < 6; step++) single.push(...(await other.advance(1)).records);
    expect(single.map(({ loss, gradNorm }) => [loss, gradNorm])).toEqual(
      records.map(({ loss, gradNorm }) => [loss, gradNorm]),
    );
    expect(await stateOf(other)).toEqual(await stateOf(one));
  });

  it("accumulates gradients: two micro-batches of two are one of four", async () => {
    await using backend = reference();
    await using whole = await tinyTrainer(backend, { microBatchSize: 4 });
    await using parts = await tinyTrainer(backend, { microBatchSize: 2, gradientAccumulation: 2 });
    const expected = (await whole.advance(3)).records;
    const found = (await parts.advance(3)).records;
    found.forEach((record, index) => {
      expect(record.tokens).toBe(expected[index]?.tokens);
      expect(record.loss).toBeCloseTo(expected[index]?.loss ?? 0, 5);
      expect(record.gradNorm / (expected[index]?.gradNorm ?? 0)).toBeCloseTo(1, 4);
    });
  });

  // In bfloat16 the feed-forward is filled up inside, from 8 channels to 64.
  it.each(["float32", "bfloat16"])("in %s goes on from a saved state as if it had never stopped", async (precision) => {
    await using backend = reference();
    await using straight = await tinyTrainer(backend, { precision });
    const { records } = await straight.advance(6);
    let milliseconds = 0;
    const now = (): number => {
      milliseconds += 500;
      return milliseconds;
    };
    await using before = await tinyTrainer(backend, { precision }, { now });
    await before.advance(3);
    const saved = await stateOf(before);
    const { progress } = before;
    expect(progress.elapsedSeconds).toBeGreaterThan(0);
    await using after = await tinyTrainer(backend, { precision }, { now, parameters: initialize(tinyModel(), 99) });
    await after.restore(progress, async (name) => saved[name] ?? new Float32Array());
    const rest = (await after.advance(3)).records;
    expect(rest.map(({ step, loss, gradNorm }) => [step, loss, gradNorm])).toEqual(
      records.slice(3).map(({ step, loss, gradNorm }) => [step, loss, gradNorm]),
    );
    expect(await stateOf(after)).toEqual(await stateOf(straight));
    expect(await after.evaluate()).toEqual(await straight.evaluate());
    expect(rest[0]?.elapsedSeconds).toBeGreaterThan(progress.elapsedSeconds);
  });

  it("holds the same memory after many steps", async () => {
    await using backend = reference();
    await using trainer = await tinyTrainer(backend);
    await trainer.advance(2);
    await trainer.evaluate();
    const { deviceBytes } = backend.memory();
    for (let round = 0; round < 10; round++) await trainer.advance(2);
    await trainer.evaluate();
    expect(backend.memory().deviceBytes).toBe(deviceBytes);
    await trainer.close();
    expect(backend.memory().deviceBytes).toBe(0);
  });

  it("measures the held-out loss in nats a token and bits a byte", async () => {
    await using backend = reference();
    await using trainer = await tinyTrainer(backend);
    const { heldOutLoss, bitsPerByte, batchLosses } = await trainer.evaluate();
    expect(heldOutLoss).toBeCloseTo(Math.log(257), 1);
    // Of the 32 held-out targets, at least one is an end-of-text, which is no byte of text.
    expect(bitsPerByte).toBeGreaterThan(heldOutLoss / Math.LN2);
    expect(bitsPerByte).toBeLessThan((heldOutLoss / Math.LN2) * 1.2);
    expect(meanOf(batchLosses).value).toBeCloseTo(heldOutLoss, 12);
    expect(await trainer.evaluate()).toEqual({ heldOutLoss, bitsPerByte, batchLosses });
  });

  it("refuses sequences longer than the model, and parameters that are missing", async () => {
    await using backend = reference();
    await expect(tinyTrainer(backend, { sequenceLength: 33 })).rejects.toThrow(
      "sequenceLength: expected at most the model's maximumLength (32), got 33",
    );
    await expect(tinyTrainer(backend, {}, { parameters: {} })).rejects.toThrow(ConfigError);
  });
});

describe("a step that is not finite", () => {
  it("changes nothing, bit for bit, and is counted", async () => {
    await using backend = spoiled(reference(), 2);
    await using trainer = await tinyTrainer(backend);
    await trainer.advance(2);
    const before = await stateOf(trainer);
    const { records, skippedBecause } = await trainer.advance(3);
    expect(records).toHaveLength(1);
    expect(records[0]).toMatchObject({ step: 3, skipped: 1, gradNorm: Number.NaN });
    expect(skippedBecause).toContain("the norm of all gradients");
    expect(await stateOf(trainer)).toEqual(before);
  });

  it("leaves the steps after it as they would be, however many were queued behind it", async () => {
    await using one = spoiled(reference(), 2);
    await using other = spoiled(reference(), 2);
    await using queued = await tinyTrainer(one);
    await using single = await tinyTrainer(other);
    const records = [];
    while (queued.progress.step < 6) records.push(...(await queued.advance(6 - queued.progress.step)).records);
    for (let step = 0; step < 6; step++) await single.advance(1);
    expect(records.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(records.map(({ skipped }) => skipped)).toEqual([0, 0, 1, 1, 1, 1]);
    expect(await stateOf(queued)).toEqual(await stateOf(single));
  });

  it("is explained by the first operation that was not finite", async () => {
    await using backend = reference();
    const parameters = initialize(tinyModel(), 0);
    parameters["layers.1.ffn.w_up.weight"]?.fill(3e38);
    await using trainer = await tinyTrainer(backend, {}, { parameters });
    const { records, skippedBecause } = await trainer.advance(4);
    expect(records).toMatchObject([{ step: 1, skipped: 1 }]);
    expect(skippedBecause).toMatch(/in the forward pass, after layers\.1\.ffn\.w_(up|gate)\.weight, is the first/);
  });

  it("is explained by a parameter that is itself not finite", async () => {
    await using backend = reference();
    const parameters = initialize(tinyModel(), 0);
    parameters["layers.0.lambda_raw"]?.fill(Number.NaN);
    await using trainer = await tinyTrainer(backend, {}, { parameters });
    const { skippedBecause } = await trainer.advance(1);
    expect(skippedBecause).toBe("the parameter layers.0.lambda_raw is not finite itself (2 of its values)");
  });
});

it("is disposed of twice without harm", async () => {
  await using backend = reference();
  const trainer = await tinyTrainer(backend);
  await trainer.close();
  await trainer.close();
  expect(trainer).toBeInstanceOf(Trainer);
});
