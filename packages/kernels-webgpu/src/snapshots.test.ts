// The text of written kernels for a few fixed cases: a change of a kernel shows here. After one that is meant,
// `npx vitest run packages/kernels-webgpu/src/snapshots.test.ts -u` writes the files of ../snapshots again.

import {
  apply,
  attention,
  decayAttention,
  decayAttentionBackwardOp,
  f32,
  type Graph,
  i32,
  linearCrossEntropyOp,
  matmul,
  rmsNorm,
  type TensorSpec,
  trace,
} from "@sisa/core";
import { expect, test } from "vitest";
import type { Capabilities, DeviceLimits, Feature } from "./device.ts";
import { lower } from "./lower.ts";
import { matrixUnit } from "./matrix-unit.ts";

/** A device with the limits that every adapter has, but for arrays that a kernel binds: most have ten. */
function device(...features: readonly Feature[]): Capabilities {
  return {
    features: new Set(features),
    limits: {
      maxBufferSize: 2 ** 28,
      maxStorageBufferBindingSize: 2 ** 27,
      maxStorageBuffersPerShaderStage: 10,
      maxComputeWorkgroupStorageSize: 16384,
      maxComputeInvocationsPerWorkgroup: 256,
      maxComputeWorkgroupSizeX: 256,
      maxComputeWorkgroupsPerDimension: 65535,
    } satisfies DeviceLimits,
  };
}

const withUnits: Capabilities = {
  ...device("shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"),
  matrixUnit: matrixUnit({ m: 16, n: 16, k: 16, lanes: 32 }),
};

function text(graph: unknown, on = device()): string {
  const { kernels } = lower(graph as Graph, { device: on, state: [] });
  return kernels
    .map(({ label, workgroups, code }) => `// ${label}: ${workgroups.join(" x ")} workgroups\n${code}`)
    .join("\n");
}

const half = (...shape: readonly number[]) => ({ dtype: "float16" as const, shape: f32(...shape).shape });
const product = (a: TensorSpec<"float">, b: TensorSpec<"float">, transposeB = false) =>
  trace({ a, b }, (inputs) => matmul(inputs.a, inputs.b, { transposeB }));
const [B, H, D, S] = [1, 2, 32, 8];
const attended = (T: number, C: number) => ({ q: f32(B, T, H, D), k: f32(B, C, H, D), v: f32(B, C, H, D) });
const decaying = (T: number, C: number) => ({
  ...attended(T, C),
  ...{ cRotated: f32(B, T, H, S), bRotated: f32(B, C, H, S) },
  ...{ gQuery: f32(B, T, H), gKey: f32(B, C, H), lambda: f32(H) },
});
const decode = trace(decaying(1, 128), (inputs) => decayAttention(inputs));
const backward = trace(
  { ...decaying(128, 128), value: f32(B, 128, H, D), logSumExp: f32(B, H, 128), gradient: f32(B, 128, H, D) },
  (inputs) => apply(decayAttentionBackwardOp, inputs, { scale: 0.25 }),
);
const norm = trace({ x: f32(5, 512), weight: f32(512) }, ({ x, weight }) => rmsNorm(x, weight));
const loss = trace({ x: f32(8, 16), weight: f32(40, 16), targets: i32(8) }, (inputs) =>
  apply(linearCrossEntropyOp, inputs, { chunk: 40 }),
);

test.each([
  ["matmul-tiles", text(product(f32(128, 64), f32(64, 128)))],
  ["matmul-tiles-float16", text(product(half(128, 64), half(64, 128)), device("shader-f16"))],
  ["matmul-units-float16", text(product(half(96, 80), half(60, 80), true), withUnits)],
  ["matmul-odd-tiles", text(product(f32(35, 67), f32(37, 67), true))],
  ["matmul-rows", text(product(f32(1, 512), f32(96, 512), true))],
  ["matmul-rows-subgroups", text(product(f32(1, 512), f32(96, 512), true), device("subgroups"))],
  ["matmul-small", text(product(f32(5, 7), f32(7, 3)))],
  ["rms-norm", text(norm)],
  ["rms-norm-subgroups", text(norm, device("subgroups"))],
  ["linear-cross-entropy", text(loss)],
  ["attention", text(trace(attended(128, 128), (inputs) => attention(inputs)))],
  ["decay-attention", text(trace(decaying(128, 128), (inputs) => decayAttention(inputs)))],
  ["decay-attention-backward", text(backward)],
  ["decay-attention-decode", text(decode)],
  ["decay-attention-decode-subgroups", text(decode, device("subgroups"))],
])("%s", async (name, code) => {
  await expect(code).toMatchFileSnapshot(`../snapshots/${name}.wgsl`);
});
