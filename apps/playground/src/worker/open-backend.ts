// What the models run on. WebGPU comes first; where it is missing, ONNX Runtime on the CPU.

import { type Backend, BackendUnavailableError } from "@sisa/core";

export type BackendChoice = "automatic" | "webgpu" | "cpu";

export interface OpenBackend {
  readonly backend: Backend;
  /** For people, such as "CPU (WebAssembly, 1 thread)". */
  readonly label: string;
  /** Why it is not WebGPU, where it is not. */
  readonly reason?: string;
}

/** GPUs that are emulated: on SwiftShader a training step took fifty times as long as on WebAssembly. */
const software = /swiftshader|llvmpipe|lavapipe|basic render/i;

/** @throws BackendUnavailableError where what was asked for does not start, or not even the CPU backend does */
export async function openBackend(choice: BackendChoice): Promise<OpenBackend> {
  if (choice === "cpu") return await openCpu("Asked for by the address of this page.");
  const { webgpu } = await import("@sisa/kernels-webgpu");
  try {
    const backend = await webgpu({ powerPreference: "high-performance" });
    if (choice === "webgpu" || !software.test(backend.description)) {
      return { backend, label: `WebGPU (${backend.description})` };
    }
    await backend.close();
    return await openCpu(
      `The only WebGPU adapter here is itself a program on the CPU (${backend.description}), and slower than this.`,
    );
  } catch (error) {
    if (choice === "webgpu" || !BackendUnavailableError.isInstance(error)) throw error;
    return await openCpu(
      "gpu" in navigator
        ? "This browser has no WebGPU adapter for this machine, so training is slower."
        : "This browser has no WebGPU, so training is slower. Current Chrome, Edge, Safari and Firefox have it.",
    );
  }
}

async function openCpu(reason: string): Promise<OpenBackend> {
  const { onnxruntime } = await import("@sisa/onnx");
  const backend = await onnxruntime();
  const threads = crossOriginIsolated ? "several threads" : "1 thread";
  return { backend, label: `CPU (WebAssembly, ${threads})`, reason };
}
