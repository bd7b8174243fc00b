// What the device holds while tokens are chosen one after another.

import { useTestGpu } from "@sisa/browser-testing/node";
import { Decoder, initialize, languageModel } from "@sisa/core";
import { expect, test, vi } from "vitest";
import { webgpu } from "./backend.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

await useTestGpu();

test("300 tokens, chosen on the device one after another, take no more memory", async () => {
  const [steps, capacity] = [300, 16];
  const model = languageModel({
    mixers: ["sisa"],
    ...{ vocabularySize: 23, width: 8, heads: 2, feedForwardWidth: 8, stateWidth: 4, maximumLength: capacity },
    ...{ form: "exact", ropeBase: 1e4, normEpsilon: 1e-6 },
  });
  await using backend = await webgpu();
  await using decoder = await Decoder.create({ model, parameters: initialize(model, 1), backend, capacity });
  const held = new Set<number>();
  const tokens = [1];
  for (let step = 0; step < steps; step++) {
    const choice = { uniform: (step * 0.37) % 1, topK: 20, topP: 0.9 };
    tokens.push(...(await decoder.next([tokens.slice(-1)], [step % capacity], [choice])));
    // The first tokens may compile and allocate.
    if (step >= 2) held.add(backend.memory().deviceBytes);
  }
  expect(new Set(tokens).size).toBeGreaterThan(5);
  expect(held.size).toBe(1);
});
