// Training in a browser: the same steps as in Node, on ONNX Runtime's WebAssembly build and on WebGPU.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { launchChromium, modulePage, openPage, serve } from "@sisa/browser-testing/node";
import { onnxruntime } from "@sisa/onnx";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tenSteps } from "../test/ten-steps.ts";

describe("ten steps in Chromium are those of Node", () => {
  let chromium: Awaited<ReturnType<typeof launchChromium>>;
  let expected: Awaited<ReturnType<typeof tenSteps>>;

  beforeAll(async () => {
    await using backend = await onnxruntime();
    expected = await tenSteps(backend);
    expect(expected.losses).toHaveLength(10);
    chromium = await launchChromium();
  });
  afterAll(async () => {
    await chromium?.[Symbol.asyncDispose]();
  });

  /** Takes the steps in a page on the backend that an expression makes, and compares what came of them. */
  async function compare(
    imports: string,
    backend: string,
    { isolated }: { readonly isolated: boolean },
  ): Promise<void> {
    const script = await modulePage(
      `${imports}
      import { tenSteps } from "../test/ten-steps.ts";
      globalThis.result = ${backend}.then(tenSteps);`,
      import.meta.dirname,
    );
    const wasm = "ort-wasm-simd-threaded.wasm";
    const runtime = createRequire(import.meta.url).resolve(`onnxruntime-web/${wasm}`);
    await using server = await serve({ ...script, [wasm]: await readFile(runtime) }, { isolated });
    const { page, errors } = await openPage(chromium, server.url);
    const { losses, heldOut, parameters } = (await page.evaluate("result")) as typeof expected;
    await page.close();
    expect(errors).toEqual([]);
    losses.forEach((loss, step) => {
      expect(loss).toBeCloseTo(expected.losses[step] ?? Number.NaN, 5);
    });
    expect(heldOut).toBeCloseTo(expected.heldOut, 5);
    expect(parameters.length).toBe(expected.parameters.length);
    const worst = parameters.map((value, index) => Math.abs(value - (expected.parameters[index] ?? Number.NaN)));
    expect(Math.max(...worst)).toBeLessThan(1e-4);
  }

  it.each([
    { threads: "one thread", isolated: false },
    { threads: "several threads", isolated: true },
  ])("on WebAssembly, in $threads", async ({ isolated }) => {
    await compare('import { onnxruntime } from "@sisa/onnx";', "onnxruntime()", { isolated });
  });

  it("on WebGPU", async () => {
    await compare('import { webgpu } from "@sisa/kernels-webgpu";', "webgpu()", { isolated: false });
    // A driver that is a program compiles kernels for minutes.
  }, 900_000);
});
