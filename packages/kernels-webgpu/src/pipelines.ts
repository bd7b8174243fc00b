// Compiled kernels, one for each text. Layouts are made from what kernels declare, so that a binding that a kernel does not
// use after all is no error.

import { DeviceError } from "@sisa/core";
import type { Binding, Kernel } from "./program.ts";

const computeStage = 4;

export class Pipelines {
  readonly #device: GPUDevice;
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** @throws DeviceError with what the device has against the kernel */
  get(kernel: Kernel): Promise<GPUComputePipeline> {
    const known = this.#pipelines.get(kernel.code);
    if (known) return known;
    const pipeline = this.#compile(kernel);
    this.#pipelines.set(kernel.code, pipeline);
    return pipeline;
  }

  layout(bindings: readonly Binding[]): GPUBindGroupLayout {
    const key = bindings.map(({ access }) => access).join();
    const known = this.#layouts.get(key);
    if (known) return known;
    const layout = this.#device.createBindGroupLayout({
      entries: bindings.map(({ access }, binding) => ({
        binding,
        visibility: computeStage,
        buffer: { type: access === "read" ? "read-only-storage" : "storage" },
      })),
    });
    this.#layouts.set(key, layout);
    return layout;
  }

  async #compile({ label, code, bindings }: Kernel): Promise<GPUComputePipeline> {
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ label, code });
    const scope = this.#device.popErrorScope();
    const layout = this.#device.createPipelineLayout({ label, bindGroupLayouts: [this.layout(bindings)] });
    try {
      const pipeline = this.#device.createComputePipelineAsync({
        label,
        layout,
        compute: { module, entryPoint: "main" },
      });
      return await pipeline;
    } catch (error) {
      const wrong = (await scope)?.message ?? (error instanceof Error ? error.message : String(error));
      throw new DeviceError(`${label}: the device refuses the kernel: ${wrong}`, { cause: error });
    }
  }
}
