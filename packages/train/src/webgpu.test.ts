// Training on WebGPU in Node, over SwiftShader: ten steps of the official PyTorch code, taken again.

import { useTestGpu } from "@sisa/browser-testing/node";
import { webgpu } from "@sisa/kernels-webgpu";
import { beforeAll, expect, it, vi } from "vitest";
import { goldenRun } from "../test/golden.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

beforeAll(useTestGpu);

it.each(["sisa-train-10-steps", "transformer-train-10-steps"])("ten steps of %s", async (name) => {
  await using backend = await webgpu();
  const differences = await goldenRun(name, backend);
  expect(differences.steps).toBe(10);
  expect(differences.loss).toBeLessThan(1e-5);
  expect(differences.gradNorm).toBeLessThan(1e-4);
  expect(differences.parameter).toBeLessThan(1e-4);
});
