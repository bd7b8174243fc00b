// Every operation's cases on WebGPU: forward, gradients and random programs, against the reference.

import { useSwiftshader } from "@sisa/browser-testing/node";
import { conformanceSuite } from "@sisa/conformance";
import { vi } from "vitest";
import { webgpu } from "./backend.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

await useSwiftshader();

conformanceSuite("webgpu", () => webgpu(), {
  part: "fast",
  ieee: false,
  unsupported: ["*float16*", "*float64*"],
});
