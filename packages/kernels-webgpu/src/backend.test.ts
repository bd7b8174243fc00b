// What is particular to this backend: tensors that are too large, what is refused, kernels and their texts.

import { useTestGpu } from "@sisa/browser-testing/node";
import {
  adamw,
  add,
  bool,
  broadcastTo,
  cast,
  decayAttention,
  f32,
  type Graph,
  GraphError,
  matmul,
  mean,
  mul,
  reshape,
  rmsNorm,
  sum,
  type Tensor,
  type TensorSpec,
  trace,
  UnsupportedOpError,
  valueAndGrad,
} from "@sisa/core";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type WebgpuBackend, webgpu } from "./backend.ts";
import type { Capabilities, DeviceLimits } from "./device.ts";
import { OutOfMemoryError } from "./errors.ts";
import { hoist, lower } from "./lower.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

await useTestGpu();

let backend: WebgpuBackend;
beforeAll(async () => {
  backend = await webgpu();
});
afterAll(() => backend.close());

test("a tensor larger than the device can bind is refused by size", () => {
  const elements = backend.limits.maximumTensorBytes / 4 + 1;
  expect(() => backend.tensor(f32(elements))).toThrow(expect.objectContaining({ code: OutOfMemoryError.code }));
});

test("sizes that are not known, and widths that WGSL lacks, are refused by name", async () => {
  const open = trace({ x: f32("T") }, ({ x }) => mul(x, 2));
  await expect(backend.compile(open)).rejects.toSatisfy(
    (error) => GraphError.isInstance(error) && error.message.includes("T"),
  );
  const wide = trace({ x: { dtype: "float64", shape: f32(2).shape } }, ({ x }) => mul(x as Tensor, 2));
  await expect(backend.compile(wide)).rejects.toSatisfy((error) => UnsupportedOpError.isInstance(error));
});

test("SISA attention runs on its own kernels, and no array of theirs has T x T elements", () => {
  const T = 512;
  const specs = {
    ...{ q: f32(1, T, 1, 32), k: f32(1, T, 1, 32), v: f32(1, T, 1, 32) },
    ...{ cRotated: f32(1, T, 1, 8), bRotated: f32(1, T, 1, 8) },
    ...{ gQuery: f32(1, T, 1), gKey: f32(1, T, 1), lambda: f32(1) },
  };
  const loss = trace(specs, (inputs) => mean(decayAttention(inputs)));
  const graph = valueAndGrad(loss, { wrt: Object.keys(specs) as (keyof typeof specs)[] });
  const device = {
    features: new Set<never>(),
    limits: {
      maxStorageBuffersPerShaderStage: 10,
      maxComputeWorkgroupStorageSize: 16384,
      maxComputeInvocationsPerWorkgroup: 256,
      maxComputeWorkgroupsPerDimension: 65535,
    } as DeviceLimits,
  };
  const { kernels } = lower(graph as never, { device, state: [] });
  const labels = kernels.map(({ label }) => label);
  expect(labels).toContain("decayAttention");
  expect(labels).toContain("decayAttentionBackward.queries");
  expect(labels).toContain("decayAttentionBackward.keys");
  expect(Math.max(...kernels.flatMap(({ bindings }) => bindings.map(({ value }) => value.elements)))).toBeLessThan(
    T * T,
  );
});

test("more workgroups than one dimension of a dispatch may have", async () => {
  const [rows, width] = [70_000, 4];
  const graph = trace({ x: f32(rows, width), w: f32(width) }, ({ x, w }) => ({
    norms: rmsNorm(x, w),
    many: broadcastTo(reshape(sum(x, { axes: [1] }), [rows, 1]), [rows, 256]),
  }));
  const { features, device } = backend as unknown as Capabilities & { readonly device: GPUDevice };
  const { kernels } = lower(graph as never, { device: { features, limits: device.limits }, state: [] });
  const wide = kernels.filter(({ workgroups: [x, y] }) => x <= 65_535 && x * y >= rows);
  expect(wide.map(({ label }) => label)).toEqual(expect.arrayContaining(["rmsNorm", "broadcastTo"]));
  const program = await backend.compile(graph);
  const x = Float32Array.from({ length: rows * width }, (_, place) => (Math.floor(place / width) % 1000) + 1);
  const w = Float32Array.of(1, 2, 3, 4);
  const { norms, many } = program.run({ x: backend.tensor(f32(rows, width), x), w: backend.tensor(f32(width), w) });
  const [normed, all] = [await norms.read(), await many.read()];
  // Every row has one value four times, which its norm makes one.
  expect(normed.findIndex((value, place) => !(Math.abs(value - (w[place % width] ?? 0)) < 1e-5))).toBe(-1);
  expect(all.findIndex((value, place) => value !== 4 * (x[Math.floor(place / 256) * width] ?? 0))).toBe(-1);
  program.close();
});

test("a run is one submission that nothing is read back in; only read waits", async () => {
  const loss = trace({ x: f32(8, 16), w: f32(16, 16) }, ({ x, w }) => mean(mul(matmul(x, w), 2)));
  const program = await backend.compile(valueAndGrad(loss, { wrt: ["w"] }));
  const [x, w] = [backend.tensor(f32(8, 16)), backend.tensor(f32(16, 16))];
  const { device } = backend as unknown as { readonly device: GPUDevice };
  const submit = vi.spyOn(device.queue, "submit");
  const wait = vi.spyOn(device.queue, "onSubmittedWorkDone");
  const create = vi.spyOn(device, "createBuffer");
  let { value } = program.run({ x, w });
  const before = create.mock.calls.length;
  for (let step = 1; step < 5; step++) ({ value } = program.run({ x, w }));
  expect([submit.mock.calls.map(([buffers]) => [...buffers].length), wait.mock.calls.length]).toEqual([
    [1, 1, 1, 1, 1],
    0,
  ]);
  expect(create.mock.calls.length).toBe(before);
  expect([...(await value.read())]).toEqual([0]);
  expect(submit.mock.calls.length).toBe(6);
  vi.restoreAllMocks();
  program.close();
});

test("AdamW over many parameters takes a launch for as many as one may bind", () => {
  const [parameters, bindings] = [20, 10];
  const names = Array.from({ length: parameters }, (_, index) => `p${index}`);
  const scalars = ["learningRate", "firstCorrection", "secondCorrection", "gradientScale"] as const;
  const specs: Record<string, TensorSpec> = { proceed: bool() };
  for (const name of scalars) specs[name] = f32();
  for (const name of names) for (const part of ["", ".grad", ".m", ".v"]) specs[`${name}${part}`] = f32(8, 8);
  const graph = trace(specs, (inputs) => {
    const of = (name: string) => inputs[name] as Tensor;
    const rest = Object.fromEntries(scalars.map((name) => [name, of(name)])) as Record<
      (typeof scalars)[number],
      Tensor
    >;
    return Object.fromEntries(
      names.flatMap((name) => {
        const moments = { firstMoment: of(`${name}.m`), secondMoment: of(`${name}.v`) };
        const proceed = inputs.proceed as unknown as Tensor<"bool">;
        const next = adamw({ parameter: of(name), gradient: of(`${name}.grad`), ...moments, ...rest, proceed });
        return [
          [name, next.parameter],
          [`${name}.m`, next.firstMoment],
          [`${name}.v`, next.secondMoment],
        ];
      }),
    );
  });
  const limits = { maxStorageBuffersPerShaderStage: bindings, maxComputeWorkgroupsPerDimension: 65535 } as DeviceLimits;
  const state = Object.keys(graph.outputs).map((name) => [name, name] as const);
  const { kernels } = lower(graph as never, { device: { features: new Set(), limits }, state });
  // The numbers of the step once; then four arrays of each parameter, beside the numbers.
  expect(kernels).toHaveLength(1 + parameters / Math.floor((bindings - 1) / 4));
});

test("elementwise operations become one kernel", () => {
  const graph = trace({ x: f32(4, 3), y: f32(3) }, ({ x, y }) => mul(add(x, y), 2));
  const device = {
    features: new Set<never>(),
    limits: { maxStorageBuffersPerShaderStage: 8, maxComputeWorkgroupsPerDimension: 65535 } as DeviceLimits,
  };
  const { kernels } = lower(graph as never, { device, state: [] });
  expect(kernels.map(({ code }) => code)).toMatchInlineSnapshot(`
    [
      "@group(0) @binding(0) var<storage, read> x0: array<f32>;
    @group(0) @binding(1) var<storage, read> x1: array<f32>;
    @group(0) @binding(2) var<storage, read_write> out: array<f32>;


    @compute @workgroup_size(256)
    fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
    let i = (group.y * groups.x + group.x) * 256u + lane;
    if (i >= 12u) { return; }
    let v0 = x0[i];
    let v1 = i % 3u;
    let v2 = x1[v1];
    let v3 = v0 + v2;
    let v4 = v3 * 2f;
    out[i] = v4;
    }
    ",
    ]
  `);
});

test("programs of the same weights hold them once, and what kernels read of them; closed ones give them back", async () => {
  const [rows, width] = [64, 512];
  const graph = (count: number) =>
    trace({ x: f32(count, width), w: f32(width, width), scale: f32(width) }, ({ x, w, scale }) =>
      mul(matmul(x, mul(w, 2)), scale),
    );
  const constants = {
    w: Float32Array.from({ length: width * width }, (_, index) => (index % 7) - 3),
    scale: new Float32Array(width).fill(0.5),
  };
  await using own = await webgpu();
  const bytes = 4 * width * width;
  const programs = [];
  for (let count = 1; count <= rows; count *= 2) programs.push(await own.compile(graph(count), { constants }));
  // Once what the product reads; the array itself is read no more, and its buffer is kept for reuse.
  expect(own.memory().deviceBytes).toBeLessThan(2.5 * bytes);
  const x = own.tensor(f32(1, width), new Float32Array(width).fill(1));
  const value = await programs[0]?.run({ x }).value.read();
  const expected = Array.from({ length: width }, (_, column) => {
    return Array.from({ length: width }, (_, row) => constants.w[row * width + column] ?? 0).reduce((a, b) => a + b);
  });
  expect([...(value ?? [])]).toEqual(expected);
  for (const program of programs) program.close();
  const { deviceBytes } = own.memory();
  // What was given back serves what comes next.
  const tensors = [1, 2].map(() => own.tensor(f32(width, width)));
  expect(own.memory().deviceBytes).toBe(deviceBytes);
  for (const tensor of tensors) tensor.dispose();
});

test("weights in another width are no part of a step: kernels read what was computed once", async () => {
  const half = { dtype: "float16" as const, shape: f32(8, 4).shape };
  const graph = trace({ x: half, w: f32(4, 4), scale: f32(4) }, ({ x, w, scale }) =>
    mul(cast(matmul(x, cast(w, "float16")), "float32"), add(scale, 1)),
  ) as unknown as Graph;
  const limits = {
    maxStorageBuffersPerShaderStage: 10,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupsPerDimension: 65535,
  } as DeviceLimits;
  const device = { features: new Set(["shader-f16"] as const), limits };
  const { once, main } = hoist(graph, ["w", "scale"], { device });
  expect(Object.keys(once?.inputs ?? {})).toEqual(["w"]);
  expect(Object.keys(main.inputs)).toEqual(["x", "scale", "constant.0"]);
  expect(lower(main, { device, state: [] }).kernels.map(({ label }) => label.replace(/\..*/, ""))).toEqual(["matmul"]);
});
