// Chromium and SwiftShader as tests get them: they start, compute, report errors, and are gone afterwards.

import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { launchChromium, modulePage, openPage, screenshot, serve, useSwiftshader, useTestGpu } from "./node.ts";

afterEach(() => {
  vi.unstubAllEnvs();
});

/** Squares numbers on the first WebGPU adapter; gives the numbers and the adapter's architecture. */
const squareOnDevice = `
  async function squareOnDevice(gpu, usage, mapRead) {
    const adapter = await gpu.requestAdapter();
    if (!adapter) throw new Error("expected a WebGPU adapter, got none");
    const device = await adapter.requestDevice();
    const module = device.createShaderModule({ code: \`
      @group(0) @binding(0) var<storage, read_write> x: array<f32>;
      @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) { x[id.x] = x[id.x] * x[id.x]; }\` });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
    const x = device.createBuffer({ size: 16, usage: usage.STORAGE | usage.COPY_SRC | usage.COPY_DST });
    const result = device.createBuffer({ size: 16, usage: usage.MAP_READ | usage.COPY_DST });
    device.queue.writeBuffer(x, 0, Float32Array.of(1, 2, 3, 4));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer: x } }],
    }));
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(x, 0, result, 0, 16);
    device.queue.submit([encoder.finish()]);
    await result.mapAsync(mapRead);
    const squares = [...new Float32Array(result.getMappedRange())];
    const { architecture } = adapter.info;
    device.destroy();
    return { architecture, squares };
  }`;

const expected = { architecture: "swiftshader", squares: [1, 4, 9, 16] };

describe("Chromium", () => {
  let chromium: Awaited<ReturnType<typeof launchChromium>>;
  beforeAll(async () => {
    chromium = await launchChromium();
  });
  afterAll(async () => {
    await chromium[Symbol.asyncDispose]();
  });

  test("computes on WebGPU in a bundled page", async () => {
    const files = await modulePage(
      `${squareOnDevice}
      globalThis.result = squareOnDevice(navigator.gpu, GPUBufferUsage, GPUMapMode.READ);`,
      import.meta.dirname,
    );
    await using server = await serve(files);
    const { page, errors } = await openPage(chromium, server.url);
    expect(await page.evaluate("result")).toEqual(expected);
    expect(errors).toEqual([]);
    await page.close();
  });

  test("collects what goes wrong on a page", async () => {
    await using server = await serve({
      "index.html": `<img src="missing.png"><script>console.error("said"); null.of;</script>`,
    });
    const { page, errors } = await openPage(chromium, server.url);
    expect(errors.join("\n")).toMatch(/missing\.png: status 404/);
    expect(errors.join("\n")).toMatch(/^said$/m);
    expect(errors.join("\n")).toMatch(/TypeError: Cannot read properties of null/);
    await page.close();
  });

  test("shows a folder, isolated where asked, and takes its picture", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "sisa-served-"));
    await writeFile(path.join(folder, "index.html"), "<h1>Shown</h1>");
    for (const isolated of [false, true]) {
      await using server = await serve(folder, { isolated });
      const { page } = await openPage(chromium, server.url);
      expect(await page.evaluate("crossOriginIsolated")).toBe(isolated);
      expect(existsSync(await screenshot(page, "served-folder"))).toBe(true);
      expect((await fetch(`${server.url}..%2f..%2fetc/passwd`)).status).toBe(404);
      await page.close();
    }
    await rm(folder, { recursive: true });
  });
});

test("Chromium without WebGPU has none, and is gone once closed", async () => {
  const chromium = await launchChromium({ webgpu: false });
  const { pid } = chromium.process() ?? {};
  await using server = await serve({ "index.html": "" });
  const { page } = await openPage(chromium, server.url);
  expect(await page.evaluate("navigator.gpu.requestAdapter()")).toBeNull();
  await chromium[Symbol.asyncDispose]();
  expect(() => process.kill(pid ?? 0, 0)).toThrow("ESRCH");
});

test("a driver for tests that is not there is named", async () => {
  vi.stubEnv("SISA_TEST_VULKAN_DRIVER", "/none/icd.json");
  await expect(useTestGpu()).rejects.toThrow("SISA_TEST_VULKAN_DRIVER: expected the ICD file");
});

test("Dawn in Node computes on SwiftShader", async () => {
  await useSwiftshader();
  const { create, globals } = await import("webgpu");
  const squares = new Function(`${squareOnDevice}; return squareOnDevice;`)();
  const { GPUBufferUsage, GPUMapMode } = globals as Record<string, Record<string, number>>;
  expect(await squares(create([]), GPUBufferUsage, GPUMapMode?.READ)).toEqual(expected);
});
