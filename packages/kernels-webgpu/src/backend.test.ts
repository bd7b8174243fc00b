// What is particular to this backend: tensors that are too large, what is refused, kernels and their texts.

import { useTestGpu } from "@sisa/browser-testing/node";
import {
  add,
  decayAttention,
  f32,
  GraphError,
  mean,
  mul,
  type Tensor,
  trace,
  UnsupportedOpError,
  valueAndGrad,
} from "@sisa/core";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type WebgpuBackend, webgpu } from "./backend.ts";
import type { DeviceLimits } from "./device.ts";
import { OutOfMemoryError } from "./errors.ts";
import { lower } from "./lower.ts";

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
