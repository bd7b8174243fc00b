// Every operation's cases on WebGPU: forward, gradients and random programs, against the reference.

import { testGpu } from "@sisa/browser-testing/node";
import { conformanceSuite, type SuiteOptions } from "@sisa/conformance";
import { expect, test, vi } from "vitest";
import { webgpu } from "./backend.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const gpu = await testGpu();
const probe = await webgpu({ gpu });
const { features } = probe;
await probe.close();

const options: SuiteOptions = {
  part: "fast",
  ieee: false,
  unsupported: [features.has("shader-f16") ? "*bfloat16*" : "*float16*", "*float64*"],
};

conformanceSuite("webgpu", () => webgpu({ gpu }), options);

/** Operations of few kernels, whose lanes put together what they have. */
const ops = ["globalNorm", "max", "rmsNorm", "sum"];

if (features.has("subgroups")) {
  conformanceSuite("webgpu without subgroups", () => webgpu({ gpu, without: ["subgroups"] }), { ...options, ops });
} else {
  test("sums by subgroups: not run here, since this adapter has no subgroups; all of the above ran without", async () => {
    await using backend = await webgpu({ gpu });
    expect(backend.features).not.toContain("subgroups");
  });
}
