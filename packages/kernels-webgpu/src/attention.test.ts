// SISA attention of the widths that models have, by its kernels: forward, backward and decoding beside float64, and what is
// left out where decay has made it negligible.

import { testGpu } from "@sisa/browser-testing/node";
import {
  type Backend,
  blockCumulativeSum,
  constant,
  decayAttention,
  decayBlock,
  f32,
  type Graph,
  mean,
  mul,
  RandomStream,
  reference,
  slice,
  type Tensor,
  type TensorSpec,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { expect, test, vi } from "vitest";
import { webgpu } from "./backend.ts";
import type { Feature } from "./device.ts";
import { lower } from "./lower.ts";
import { changedGpu } from "./testing.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const gpu = await testGpu();

const names = ["q", "k", "v", "cRotated", "bRotated", "logDecay", "lambda"] as const;
type Inputs = { readonly [name in (typeof names)[number]]: Tensor };

/** Attention of the last `queries` of T tokens to all of them. */
function attended({ logDecay, ...inputs }: Inputs, T: number, queries: number): Tensor {
  const g = blockCumulativeSum({ x: logDecay }, { size: decayBlock });
  const last = (x: Tensor) => slice(x, { axis: 1, start: T - queries, end: T });
  const { q, cRotated } = inputs;
  if (queries === T) return decayAttention({ ...inputs, gQuery: g, gKey: g });
  const queryStart = constant(Int32Array.of(T - queries), "int32") as Tensor<"int">;
  return decayAttention({ ...inputs, q: last(q), cRotated: last(cRotated), gQuery: last(g), gKey: g, queryStart });
}

function inputs(T: number, H: number, D: number, S: number, decay: number) {
  const shapes = { q: [D], k: [D], v: [D], cRotated: [S], bRotated: [S], logDecay: [] };
  const specs: Record<string, TensorSpec<"float">> = { lambda: f32(H) };
  for (const [name, width] of Object.entries(shapes)) specs[name] = f32(1, T, H, ...width);
  const data = Object.fromEntries(
    Object.entries(specs).map(([name, { shape }]) => {
      const normal = new RandomStream(1, name).normal(shape.reduce((total, size) => total * Number(size.value), 1));
      const change = { logDecay: (x: number) => -decay * (1 + Math.abs(x)), lambda: (x: number) => 0.2 + Math.abs(x) };
      return [name, Float32Array.from(normal, change[name as keyof typeof change] ?? ((x) => x))];
    }),
  );
  return { specs: specs as { readonly [name in (typeof names)[number]]: TensorSpec<"float"> }, data };
}

async function run(backend: Backend, graph: Graph, { specs, data }: ReturnType<typeof inputs>) {
  const program = await backend.compile(graph);
  const tensors = names.map((name) => [name, backend.tensor(specs[name], data[name])] as const);
  const outputs = Object.entries(program.run(Object.fromEntries(tensors)));
  return Object.fromEntries(
    await Promise.all(outputs.map(async ([name, tensor]) => [name, await tensor.read()] as const)),
  );
}

/** Largest difference of two arrays by the largest element of the second. */
function difference(a: ArrayLike<number> | undefined, b: ArrayLike<number>): number {
  const values = Array.from(b);
  const largest = Math.max(...values.map(Math.abs));
  return Math.max(...values.map((value, index) => Math.abs((a?.[index] ?? Number.NaN) - value))) / largest;
}

const T = 130;

test.each([
  [32, 4],
  [64, 16],
  [96, 64],
  [128, 128],
])("heads of width %d and states of %d: forward, backward, and a query of a cache", async (D, S) => {
  const given = inputs(T, 2, D, S, 0.02);
  const loss = trace(given.specs, (all) => {
    const value = attended(all, T, T);
    return mean(mul(value, value));
  });
  const graphs = {
    forward: trace(given.specs, (all) => ({ value: attended(all, T, T), decoded: attended(all, T, 1) })),
    backward: valueAndGrad(loss, { wrt: [...names] }),
  };
  await using backend = await webgpu({ gpu });
  await using exact = reference({ mode: "float64" });
  for (const graph of Object.values(graphs) as unknown as Graph[]) {
    const [own, expected] = [await run(backend, graph, given), await run(exact, graph, given)];
    const apart = Object.entries(expected).map(([name, values]) => [name, difference(own[name], values)] as const);
    expect(apart.filter(([, worst]) => !(worst < 2e-5))).toEqual([]);
  }
  const labels = Object.values(graphs).flatMap((graph) => {
    const { features, device } = backend as unknown as { features: Set<Feature>; device: GPUDevice };
    const { kernels } = lower(graph as unknown as Graph, { device: { features, limits: device.limits }, state: [] });
    return kernels.map(({ label }) => label);
  });
  const written = ["", ".blocks", ".join", "Backward.queries", "Backward.keys"].map((part) => `decayAttention${part}`);
  expect(labels).toEqual(expect.arrayContaining(written));
});

test("importance terms of tiles are computed where they matter, and left out where decay leaves nothing of them", async () => {
  // Where the term of an earlier block is computed, the changed kernel adds what nobody can miss.
  const computed = /(if \(block >= firstBlock \|\| .*\) \{\n)/;
  const changedKernel = await changedGpu((device) => {
    const create = device.createShaderModule.bind(device);
    device.createShaderModule = ({ label = "", code }) =>
      create({ label, code: code.replace(computed, "$1if (block < firstBlock) { s0 += vec4f(9.0f); }\n") });
  });
  await using plain = await webgpu({ gpu });
  await using changed = await webgpu({ gpu: changedKernel });
  const change = async (decay: number) => {
    const given = inputs(T, 1, 32, 8, decay);
    const graph = trace(given.specs, (all) => attended(all, T, T)) as unknown as Graph;
    const [own, other] = [await run(plain, graph, given), await run(changed, graph, given)];
    return difference(other.value, own.value ?? []);
  };
  expect(await change(0.02)).toBeGreaterThan(0.1);
  // One token leaves e^-40 at most, even of what is on both sides of the border of two blocks.
  expect(await change(40)).toBe(0);
});
