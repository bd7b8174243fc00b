// Kernels of matrix products that are chosen by their times: every one that can be chosen is right, and what was chosen is kept.

import { testGpu } from "@sisa/browser-testing/node";
import { f32, type Graph, matmul, RandomStream, reference, trace } from "@sisa/core";
import { expect, test, vi } from "vitest";
import { webgpu } from "./backend.ts";
import type { Capabilities, DeviceLimits, Ways } from "./device.ts";
import { lower } from "./lower.ts";
import type { TuningCache } from "./tuner.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const gpu = await testGpu();

/** A product, its operands, and its result in float64 with the terms of each sum without their signs. */
async function product(m: number, k: number, n: number, transposeA: boolean, transposeB: boolean) {
  const specs = { a: transposeA ? f32(k, m) : f32(m, k), b: transposeB ? f32(n, k) : f32(k, n) };
  const graph = trace(specs, ({ a, b }) => matmul(a, b, { transposeA, transposeB }));
  const data = {
    a: Float32Array.from(new RandomStream(1, "a").normal(m * k)),
    b: Float32Array.from(new RandomStream(1, "b").normal(k * n)),
  };
  await using exact = reference({ mode: "float64" });
  const program = await exact.compile(graph);
  const resultOf = async (change: (value: number) => number) => {
    const inputs = { a: exact.tensor(specs.a, data.a.map(change)), b: exact.tensor(specs.b, data.b.map(change)) };
    return await program.run(inputs).value.read();
  };
  return { graph, specs, data, k, expected: await resultOf((value) => value), terms: await resultOf(Math.abs) };
}

/** The names of everything that there is to choose from, with the limits that SwiftShader has. */
function namesOf(graph: unknown): string[] {
  const names: string[] = [];
  const limits = {
    maxStorageBuffersPerShaderStage: 10,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupsPerDimension: 65535,
  } as DeviceLimits;
  const fastest: Capabilities["fastest"] = (_context, _what, ways: Ways) => {
    names.push(...ways.keys());
    return undefined;
  };
  lower(graph as Graph, { device: { features: new Set(), limits, fastest }, state: [] });
  return names;
}

/** Computes a product on a backend of its own; gives what was compiled and how often the GPU was waited for. */
async function computed({ graph, specs, data }: Awaited<ReturnType<typeof product>>, autotune?: TuningCache) {
  await using backend = await webgpu({ gpu, ...(autotune && { autotune }) });
  const { device } = backend as unknown as { readonly device: GPUDevice };
  const compile = vi.spyOn(device, "createComputePipelineAsync");
  const wait = vi.spyOn(device.queue, "onSubmittedWorkDone");
  const program = await backend.compile(graph);
  const values = await program
    .run({ a: backend.tensor(specs.a, data.a), b: backend.tensor(specs.b, data.b) })
    .value.read();
  return { values, labels: compile.mock.calls.map(([{ label }]) => label), timings: wait.mock.calls.length };
}

test.each([
  ["odd sizes", 35, 67, 37, false, true],
  ["a long sum, which may be cut into parts", 33, 518, 36, true, false],
] as const)("%s: every kernel that can be chosen gives the product", async (_name, m, k, n, transposeA, transposeB) => {
  const given = await product(m, k, n, transposeA, transposeB);
  const names = namesOf(given.graph);
  expect(names).toEqual(expect.arrayContaining(["128x128", "64x64", "32x32"]));
  for (const name of names) {
    const set = vi.fn();
    const { values, labels, timings } = await computed(given, { get: () => name, set });
    expect(labels[0]).toBe(`matmul.${name}`);
    expect([timings, set.mock.calls]).toEqual([0, []]);
    // The error that float32 sums of k terms have at most.
    const worst = Array.from(values, (value, i) => Math.abs(value - (given.expected[i] ?? 0)) / (given.terms[i] ?? 0));
    expect(Math.max(...worst), name).toBeLessThan(k * 2 ** -24);
  }
});

test("what was the fastest is kept and taken; what means nothing is timed again", async () => {
  const given = await product(35, 67, 37, false, true);
  const names = namesOf(given.graph);
  const cache = new Map<string, string>();

  const first = await computed(given, cache);
  expect(first.timings).toBeGreaterThan(names.length);
  const [[name = "", chosen = ""] = []] = cache;
  expect(name).toContain("matmul");
  expect(names).toContain(chosen);

  const second = await computed(given, cache);
  expect(second.timings).toBe(0);
  expect(second.labels[0]).toBe(`matmul.${chosen}`);

  cache.set(name, "let me = 1; in();");
  const third = await computed(given, cache);
  expect(third.timings).toBe(first.timings);
  expect([...cache.keys()]).toEqual([name]);
  expect(names).toContain(cache.get(name));
});

test("where nobody asks for it, nothing is timed", async () => {
  const given = await product(35, 67, 37, false, true);
  expect((await computed(given)).timings).toBe(0);
});
