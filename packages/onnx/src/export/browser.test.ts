// The exported decoder in a browser that has none of our packages: onnxruntime-web (WebAssembly) in headless Chromium.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { launchChromium, modulePage, openPage, serve } from "@sisa/browser-testing/node";
import { languageModel } from "@sisa/core";
import { expect, test } from "vitest";
import { exportOnnx } from "../index.ts";
import { largeParameters, models, trainerLogits } from "./testing.ts";

const page = `
  import * as ort from "onnxruntime-web/wasm";
  import { growingDifference } from "./testing.ts";

  async function run() {
    ort.env.wasm.wasmPaths = "/ort/";
    ort.env.wasm.numThreads = 1;
    const expected = (await (await fetch("expected.json")).json()).map((row) => Float32Array.from(row));
    const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
    return growingDifference(ort, session, expected);
  }
  globalThis.difference = run();
`;

test("gives the trainer's logits in Chromium", async () => {
  const model = languageModel(models.mixed);
  const parameters = largeParameters(model);
  const files = await exportOnnx({ model, parameters });
  const expected = await trainerLogits(model, parameters);
  const dist = dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
  const runtime = ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
  const runtimeFiles = await Promise.all(
    runtime.map(async (file) => [`ort/${file}`, await readFile(join(dist, file))]),
  );
  await using server = await serve({
    ...(await modulePage(page, import.meta.dirname)),
    ...Object.fromEntries(runtimeFiles),
    "model.onnx": files["onnx/model.onnx"] ?? new Uint8Array(),
    "expected.json": JSON.stringify(expected.map((row) => [...row])),
  });
  await using browser = await launchChromium();
  const { page: tab, errors } = await openPage(browser, server.url);
  expect(await tab.evaluate("difference")).toBeLessThan(2e-5);
  expect(errors).toEqual([]);
});
