import { expect, it } from "vitest";
import { deviceText } from "./doctor.ts";

it("lists a GPU under the name that chooses it", () => {
  const size = { multiprocessors: 108, sharedBytes: 166_912, memoryBytes: 85e9 };
  const device = { index: 1, name: "NVIDIA A100", capability: 80, ...size };
  expect(deviceText("cuda", device).replace(/ +/g, " ")).toBe(
    "cuda:1 NVIDIA A100, 85.0 GB, 108 multiprocessors, compute capability 8.0",
  );
});
