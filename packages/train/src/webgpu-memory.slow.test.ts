// What a GPU holds while a model is trained and tokens are chosen on it in turns: nothing more from step to step.

import { testGpu } from "@sisa/browser-testing/node";
import { Decoder, initialize, languageModel } from "@sisa/core";
import { webgpu } from "@sisa/kernels-webgpu";
import { expect, test, vi } from "vitest";
import { tinyModel, tinyTrainer } from "../test/tiny.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const gpu = await testGpu();

test("300 steps of training, and a token chosen from a cache after each, take no more memory after the first few", async () => {
  const [steps, capacity] = [300, 16];
  await using backend = await webgpu({ gpu });
  const model = languageModel({ ...tinyModel().config, mixers: ["sisa"], heads: 1 });
  await using trainer = await tinyTrainer(backend, { steps, microBatchSize: 1 }, { model });
  await using decoder = await Decoder.create({ model, parameters: initialize(model, 1), backend, capacity });
  const losses: number[] = [];
  const tokens = [1];
  const bytes: number[] = [];
  for (let step = 0; step < steps; step++) {
    losses.push(...(await trainer.advance(1)).records.map(({ loss }) => loss));
    // From all, or from the likeliest few, which takes a driver that is a program three times as long.
    const choice = { uniform: (step * 0.37) % 1, ...(step % 10 === 0 && { topK: 20, topP: 0.9 }) };
    tokens.push(...(await decoder.next([tokens.slice(-1)], [step % capacity], [choice])));
    bytes.push(backend.memory().deviceBytes);
  }
  expect(losses).toHaveLength(steps);
  expect(losses.at(-1)).toBeLessThan(0.6 * (losses[0] ?? 0));
  expect(new Set(tokens).size).toBeGreaterThan(5);
  expect(new Set(bytes.slice(20)).size).toBe(1);
  expect(bytes[20]).toBeGreaterThan(0);
});
