// Training in a browser, on ONNX Runtime's WebAssembly build: the same steps as in Node.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { launchChromium, modulePage, openPage, serve } from "@sisa/browser-testing/node";
import { onnxruntime } from "@sisa/onnx";
import { expect, it } from "vitest";
import { tenSteps } from "../test/ten-steps.ts";

it("takes ten steps in Chromium as in Node, in one thread and in several", async () => {
  await using backend = await onnxruntime();
  const expected = await tenSteps(backend);
  expect(expected.losses).toHaveLength(10);

  const script = await modulePage(
    `import { onnxruntime } from "@sisa/onnx";
    import { tenSteps } from "../test/ten-steps.ts";
    globalThis.result = onnxruntime().then(tenSteps);`,
    import.meta.dirname,
  );
  const wasm = "ort-wasm-simd-threaded.wasm";
  const runtime = createRequire(import.meta.url).resolve(`onnxruntime-web/${wasm}`);
  const files = { ...script, [wasm]: await readFile(runtime) };
  await using chromium = await launchChromium();
  for (const isolated of [false, true]) {
    await using server = await serve(files, { isolated });
    const { page, errors } = await openPage(chromium, server.url);
    const { losses, heldOut, parameters } = (await page.evaluate("result")) as typeof expected;
    expect(errors).toEqual([]);
    losses.forEach((loss, step) => {
      expect(loss).toBeCloseTo(expected.losses[step] ?? Number.NaN, 5);
    });
    expect(heldOut).toBeCloseTo(expected.heldOut, 5);
    expect(parameters.length).toBe(expected.parameters.length);
    const worst = parameters.map((value, index) => Math.abs(value - (expected.parameters[index] ?? Number.NaN)));
    expect(Math.max(...worst)).toBeLessThan(1e-4);
  }
});
