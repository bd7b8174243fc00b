// The golden files on WebGPU, over SwiftShader.

import { useTestGpu } from "@sisa/browser-testing/node";
import { beforeAll, expect, it, vi } from "vitest";
import { run } from "../testing.ts";

const fixtures = new URL("../../../../fixtures/", import.meta.url).pathname;

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

beforeAll(useTestGpu);

it.each([
  ["sisa-tiny-a", "exact"],
  ["sisa-tiny-clamped", "sdpa"],
  ["transformer-tiny", "exact"],
  ["mamba2-tiny", "exact"],
  ["jamba-tiny", "exact"],
  ["falcon-h1-tiny", "exact"],
  ["mamba3-tiny-softplus", "exact"],
])("passes %s on webgpu in form %s", async (name, form) => {
  const { code, json } = await run(fixtures, ["verify", `${name}.safetensors`, "--backend", "webgpu", "--form", form]);
  expect(json).toMatchObject({ passed: true, backend: "webgpu", form });
  expect(json?.logits).toBeLessThan(1e-5);
  expect(json?.loss).toBeLessThan(1e-5);
  expect(json?.gradient).toBeLessThan(1e-3);
  expect(code).toBe(0);
});
