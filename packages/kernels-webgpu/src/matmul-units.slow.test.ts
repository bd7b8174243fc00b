// The text of kernels for matrix units, on every device: the matrices of WGSL's extension are replaced by arrays that the
// first lane of each subgroup holds. What units themselves do is tested in float16.test.ts, where there are any.

import { useTestGpu } from "@sisa/browser-testing/node";
import { f32, fromFloat16Bits, type Graph, matmul, RandomStream, toFloat16Bits, trace } from "@sisa/core";
import { expect, test, vi } from "vitest";
import { create } from "webgpu";
import { lower } from "./lower.ts";
import { matrixUnit } from "./matrix-unit.ts";
import type { Kernel } from "./program.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

await useTestGpu();

const [size, lanes] = [16, 8];
const storage = { storage: 128, copySource: 4, copyTarget: 8, mapRead: 1 } as const;

function kernelsOf(m: number, k: number, n: number, transposeA: boolean, transposeB: boolean): readonly Kernel[] {
  const half = (...shape: readonly number[]) => ({ dtype: "float16" as const, shape: f32(...shape).shape });
  const specs = { a: transposeA ? half(k, m) : half(m, k), b: transposeB ? half(n, k) : half(k, n) };
  const graph = trace(specs, ({ a, b }) => matmul(a, b, { transposeA, transposeB, dtype: "float32" }));
  const { kernels } = lower(graph as unknown as Graph, {
    device: {
      features: new Set(["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"] as const),
      matrixUnit: matrixUnit({ m: size, n: size, k: size, lanes }),
      limits: {
        maxBufferSize: 2 ** 28,
        maxStorageBufferBindingSize: 2 ** 27,
        maxStorageBuffersPerShaderStage: 8,
        maxComputeWorkgroupStorageSize: 2 ** 15,
        maxComputeInvocationsPerWorkgroup: 256,
        maxComputeWorkgroupSizeX: 256,
        maxComputeWorkgroupsPerDimension: 65535,
      },
    },
    state: [],
  });
  return kernels;
}

const count = size * size;
const emulation = `
alias Matrix = array<f32, ${count}>;
fn half_at(word: vec4u, part: u32) -> f32 { return unpack2x16float(word[part / 2u])[part % 2u]; }
${["a", "b"]
  .map(
    (array) => `fn load_${array}(held: ptr<function, Matrix>, place: u32, line: u32, by_row: bool) {
for (var i = 0u; i < ${count}u; i++) {
let row = i / ${size}u;
let column = i % ${size}u;
let at = place * 8u + select(column * line * 8u + row, row * line * 8u + column, by_row);
held[i] = half_at(tile_${array}[at / 8u], at % 8u);
}
}`,
  )
  .join("\n")}
fn multiply_add(left: ptr<function, Matrix>, right: ptr<function, Matrix>, held: ptr<function, Matrix>) {
for (var i = 0u; i < ${count}u; i++) {
for (var j = 0u; j < ${size}u; j++) { held[i] += left[i / ${size}u * ${size}u + j] * right[j * ${size}u + i % ${size}u]; }
}
}
fn store(held: ptr<function, Matrix>, place: u32, line: u32) {
for (var i = 0u; i < ${count}u; i++) { sums[place + i / ${size}u * line + i % ${size}u] = held[i]; }
}
`;

/** Without the extension, so that every device runs it. */
function emulated(code: string): string {
  if (!code.includes("subgroupMatrix")) return code;
  const first = `if (lane % ${lanes}u == 0u)`;
  return code
    .replace(/^(enable|diagnostic).*\n/gm, "")
    .replace(", @builtin(subgroup_id) subgroup_id: u32", "")
    .replace("let block =", `let subgroup_id = lane / ${lanes}u;\nlet block =`)
    .replace(
      /let (\w+) = subgroupMatrixLoad<.*?>, (row|col)_major>\(&tile_([ab]), (.*), (\d+u)\);/g,
      (_, name, order, array, place, line) =>
        `var ${name} = Matrix();\n${first} { load_${array}(&${name}, ${place}, ${line}, ${order === "row"}); }`,
    )
    .replace(
      /(\w+) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), \1\);/g,
      (_, sum, left, right) => `${first} { multiply_add(&${left}, &${right}, &${sum}); }`,
    )
    .replace(
      /subgroupMatrixStore<row_major>\(&sums, (.*), (\w+), (\d+u)\);/g,
      (_, place, held, line) => `${first} { store(&${held}, ${place}, ${line}); }`,
    )
    .replaceAll(`subgroup_matrix_result<f32, ${size}, ${size}>`, "Matrix")
    .replace("@compute", `${emulation}@compute`);
}

async function run(
  kernels: readonly Kernel[],
  a: Uint16Array<ArrayBuffer>,
  b: Uint16Array<ArrayBuffer>,
  elements: number,
) {
  const gpu = create([]);
  const adapter = await gpu.requestAdapter();
  const maxComputeWorkgroupStorageSize = adapter?.limits.maxComputeWorkgroupStorageSize ?? 0;
  const device = await adapter?.requestDevice({ requiredLimits: { maxComputeWorkgroupStorageSize } });
  if (!device) throw new Error("expected a device, got none");
  const buffers = new Map<unknown, GPUBuffer>();
  const encoder = device.createCommandEncoder();
  for (const { code, bindings, workgroups } of kernels) {
    const module = device.createShaderModule({ code: emulated(code) });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
    const entries = bindings.map(({ value }, binding) => {
      const usage = storage.storage | storage.copySource | storage.copyTarget;
      const buffer = buffers.get(value) ?? device.createBuffer({ size: value.bytes, usage });
      buffers.set(value, buffer);
      if (value.role.kind === "input") device.queue.writeBuffer(buffer, 0, value.role.name === "a" ? a : b);
      return { binding, resource: { buffer } };
    });
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(...workgroups);
    pass.end();
  }
  const last = kernels.at(-1)?.bindings.at(-1)?.value;
  const result = device.createBuffer({ size: elements * 4, usage: storage.mapRead | storage.copyTarget });
  encoder.copyBufferToBuffer(buffers.get(last) as GPUBuffer, 0, result, 0, elements * 4);
  device.queue.submit([encoder.finish()]);
  await result.mapAsync(storage.mapRead);
  const values = new Float32Array(result.getMappedRange().slice(0));
  device.destroy();
  return values;
}

test.each([
  ["one tile", 56, 72, 64, false, false, "units64x64"],
  ["b transposed, an odd height", 55, 72, 61, false, true, "units64x64"],
  ["a transposed, in parts", 64, 520, 56, true, false, "units64x64.split2"],
  ["both transposed, several tiles", 120, 40, 103, true, true, "units64x64"],
] as const)("%s", async (_name, m, k, n, transposeA, transposeB, label) => {
  const numbers = (name: string, total: number) =>
    Uint16Array.from(new RandomStream(1, name).normal(total), (value) => toFloat16Bits(Math.round(4 * value) / 4));
  const [a, b] = [numbers("a", m * k), numbers("b", k * n)];
  const kernels = kernelsOf(m, k, n, transposeA, transposeB);
  expect(kernels[0]?.label).toBe(`matmul.${label}`);
  const values = await run(kernels, a, b, m * n);
  const [x, y] = [Array.from(a, fromFloat16Bits), Array.from(b, fromFloat16Bits)];
  // Quarters add up without rounding.
  const expected = Array.from({ length: m * n }, (_, index) => {
    const [i, j] = [Math.floor(index / n), index % n];
    let sum = 0;
    for (let l = 0; l < k; l++)
      sum += (x[transposeA ? l * m + i : i * k + l] ?? 0) * (y[transposeB ? j * k + l : l * n + j] ?? 0);
    return sum;
  });
  expect(Array.from(values)).toEqual(expected);
});
