// Training on WebGPU in Node, on the driver of tests: ten steps of the official PyTorch code, taken again.

import { testGpu } from "@sisa/browser-testing/node";
import { UnsupportedOpError } from "@sisa/core";
import { webgpu } from "@sisa/kernels-webgpu";
import { expect, it, vi } from "vitest";
import { goldenRun } from "../test/golden.ts";
import { stateOf, tinyTrainer } from "../test/tiny.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const gpu = await testGpu();
const probe = await webgpu({ gpu });
const hasHalves = probe.features.has("shader-f16");
await probe.close();

it.each(["sisa-train-10-steps", "transformer-train-10-steps"])("ten steps of %s", async (name) => {
  await using backend = await webgpu({ gpu });
  const differences = await goldenRun(name, backend);
  expect(differences.steps).toBe(10);
  expect(differences.loss).toBeLessThan(1e-5);
  expect(differences.gradNorm).toBeLessThan(1e-4);
  expect(differences.parameter).toBeLessThan(1e-4);
});

it(`float16 ${hasHalves ? "learns as float32 does" : "was not run here, since this adapter has no shader-f16; it is refused by name"}`, async () => {
  await using backend = await webgpu({ gpu });
  const steps = 50;
  const lossesIn = async (precision: string) => {
    await using trainer = await tinyTrainer(backend, { precision, steps });
    // A scale from which no step is skipped, so that both take the same steps.
    const lossScale = precision === "float16" ? { lossScale: { scale: 1024, steps: 0 } } : {};
    const initial = await stateOf(trainer);
    const progress = { step: 0, skipped: 0, elapsedSeconds: 0, ...lossScale };
    await trainer.restore(progress, async (name) => initial[name] ?? new Float32Array());
    const { records } = await trainer.advance(steps);
    expect(trainer.progress).toMatchObject({ step: steps, skipped: 0 });
    return records.map(({ loss }) => loss);
  };
  if (!hasHalves) {
    const isNamed = (error: unknown) => UnsupportedOpError.isInstance(error) && String(error).includes("shader-f16");
    await expect(lossesIn("float16")).rejects.toSatisfy(isNamed);
    return;
  }
  const [narrow, wide] = [await lossesIn("float16"), await lossesIn("float32")];
  expect(Math.max(...narrow.map((loss, step) => Math.abs(loss - (wide[step] ?? 0))))).toBeLessThan(0.05);
});
