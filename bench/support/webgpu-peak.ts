/// <reference types="../../packages/kernels-webgpu/node_modules/@webgpu/types" />
// What an adapter can do at most: float32 multiply-adds that need no memory, and copies that need nothing else.

export interface Peak {
  /** Floating-point operations a second, two for each multiply-add. */
  readonly gflops: number;
  /** Bytes read and written a second, in units of 10^9. */
  readonly gigabytes: number;
}

const invocations = 256;
const groups = 8192;
const steps = 512;
/** Independent chains of each invocation, as vectors of four. */
const chains = 8;

const multiplyAdds = `@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(${invocations})
fn main(@builtin(global_invocation_id) id: vec3u) {
let m = vec4f(f32(id.x % 7u) * 1e-6 + 0.999999);
${Array.from({ length: chains }, (_, n) => `var x${n} = vec4f(f32(id.x + ${n}u));`).join("\n")}
for (var i = 0u; i < ${steps}u; i++) {
${Array.from({ length: chains }, (_, n) => `x${n} = fma(x${n}, m, m);`).join("\n")}
}
let total = ${Array.from({ length: chains }, (_, n) => `x${n}`).join(" + ")};
if (total.x + total.y + total.z + total.w == -1.0) { out[id.x] = 1.0; }
}`;

const elements = 2 ** 24;
const copies = `@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4f>;
@compute @workgroup_size(${invocations})
fn main(@builtin(global_invocation_id) id: vec3u) { out[id.x] = x[id.x] * 2.0; }`;

/** The best of some rounds. */
export async function measurePeak(gpu: GPU, rounds = 5): Promise<Peak> {
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("no adapter");
  const device = await adapter.requestDevice();
  const storage = 128;
  const buffer = (size: number) => device.createBuffer({ size, usage: storage });
  const time = async (code: string, buffers: readonly GPUBuffer[], workgroups: number, repeats: number) => {
    const module = device.createShaderModule({ code });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
    const entries = buffers.map((one, binding) => ({ binding, resource: { buffer: one } }));
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round <= rounds; round++) {
      const start = performance.now();
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      for (let i = 0; i < repeats; i++) pass.dispatchWorkgroups(workgroups);
      pass.end();
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
      if (round > 0) best = Math.min(best, (performance.now() - start) / repeats);
    }
    return best / 1000;
  };
  const seconds = await time(multiplyAdds, [buffer(4 * invocations * groups)], groups, 20);
  const arrays = [buffer(4 * elements), buffer(4 * elements)];
  const copySeconds = await time(copies, arrays, elements / 4 / invocations, 50);
  device.destroy();
  return {
    gflops: (2 * 4 * chains * steps * invocations * groups) / seconds / 1e9,
    gigabytes: (8 * elements) / copySeconds / 1e9,
  };
}
