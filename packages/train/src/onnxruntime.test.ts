// What the reference shows of training, on ONNX Runtime with its threads and its alternating buffers.
import { initialize } from "@sisa/core";
import { memoryStorage } from "@sisa/hub";
import { onnxruntime } from "@sisa/onnx";
import { expect, it } from "vitest";
import { stateOf, tinyData, tinyModel, tinySettings, tinyTrainer } from "../test/tiny.ts";
import { train } from "./train.ts";

it("resumes to the same bits as a run that was never stopped", async () => {
  await using backend = await onnxruntime({ threads: 2 });
  const common = { model: tinyModel(), backend, data: tinyData(), ...tinySettings, steps: 12, gradientAccumulation: 2 };
  const straight = await train(common);
  const checkpoints = memoryStorage();
  const controller = new AbortController();
  const stopped = await train({
    ...common,
    checkpoints,
    signal: controller.signal,
    metrics: { write: (record) => void (record.step >= 5 && controller.abort()) },
  });
  expect(stopped.stopped).toBe(true);
  const resumed = await train({ ...common, checkpoints, resume: true });
  expect(resumed.parameters).toEqual(straight.parameters);
  expect(resumed.heldOutLoss).toBe(straight.heldOutLoss);
});

it("leaves the state alone, bit for bit, where a step is not finite", async () => {
  await using backend = await onnxruntime();
  const parameters = initialize(tinyModel(), 0);
  parameters["layers.0.W_V.weight"]?.fill(3e38);
  await using trainer = await tinyTrainer(backend, {}, { parameters });
  const before = await stateOf(trainer);
  const { records, skippedBecause } = await trainer.advance(4);
  expect(records).toMatchObject([{ step: 1, skipped: 1 }]);
  expect(skippedBecause).toContain("in the forward pass, after layers.0.W_V.weight");
  expect(await stateOf(trainer)).toEqual(before);
});

it("holds the same device memory after many steps, and none when closed", async () => {
  await using backend = await onnxruntime();
  const trainer = await tinyTrainer(backend);
  await trainer.advance(4);
  await trainer.evaluate();
  const { deviceBytes } = backend.memory();
  for (let round = 0; round < 30; round++) await trainer.advance(10);
  await trainer.evaluate();
  expect(backend.memory().deviceBytes).toBe(deviceBytes);
  await trainer.close();
  // Sessions are freed in the backend's queue, behind what still runs.
  await expect.poll(() => backend.memory().deviceBytes).toBe(0);
});
