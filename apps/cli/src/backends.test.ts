import { expect, it } from "vitest";
import { openBackend } from "./backends.ts";

it("hands threads to the backend that takes them", async () => {
  // What ONNX Runtime's backend refuses, it was given.
  const refusal = openBackend({ backend: "onnxruntime", threads: 0.5 });
  await expect(refusal).rejects.toThrow("onnxruntime: threads must be a whole number >= 1, got 0.5");
  await using backend = await openBackend({ backend: "onnxruntime", threads: 1 });
  expect(backend.name).toBe("onnxruntime");
});
