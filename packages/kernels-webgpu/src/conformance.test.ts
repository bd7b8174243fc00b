// Every operation's cases on WebGPU: forward, gradients and random programs, against the reference.

import { useSwiftshader } from "@sisa/browser-testing/node";
import { conformanceSuite } from "@sisa/conformance";
import { webgpu } from "./backend.ts";

await useSwiftshader();

conformanceSuite("webgpu", () => webgpu(), {
  part: "fast",
  ieee: false,
  unsupported: ["*float16*", "*float64*"],
});
