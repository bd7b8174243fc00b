// What the models run on. WebGPU comes first; where it is missing, ONNX Runtime on the CPU.

import type { Backend } from "@sisa/core";

export type BackendChoice = "automatic" | "cpu";

export interface OpenBackend {
  readonly backend: Backend;
  /** For people, such as "CPU (WebAssembly, 1 thread)". */
  readonly label: string;
  /** Why it is not WebGPU, where it is not. */
  readonly reason?: string;
}

/** @throws BackendUnavailableError where not even the CPU backend starts */
export async function openBackend(choice: BackendChoice): Promise<OpenBackend> {
  return await openCpu(choice === "cpu" ? "Asked for by the address of this page." : await reasonWithoutWebgpu());
}

async function openCpu(reason: string): Promise<OpenBackend> {
  const { onnxruntime } = await import("@sisa/onnx");
  const backend = await onnxruntime();
  const threads = crossOriginIsolated ? "several threads" : "1 thread";
  return { backend, label: `CPU (WebAssembly, ${threads})`, reason };
}

async function reasonWithoutWebgpu(): Promise<string> {
  const { gpu } = navigator as { readonly gpu?: { requestAdapter(): Promise<unknown> } };
  if (gpu === undefined) {
    return "This browser has no WebGPU, so training is slower. Current Chrome, Edge, Safari and Firefox have it.";
  }
  if ((await gpu.requestAdapter()) === null) {
    return "This browser has no WebGPU adapter for this machine, so training is slower.";
  }
  return "The WebGPU backend is not part of this page yet.";
}
