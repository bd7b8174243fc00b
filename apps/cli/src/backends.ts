// Backends by word. Only this program knows them by name, and it loads the one that is asked for.
import { type Backend, ConfigError, reference } from "@sisa/core";

interface Choice {
  readonly name: string;
  readonly description: string;
  open(): Promise<Backend>;
}

export const backendChoices: readonly Choice[] = [
  {
    name: "onnxruntime",
    description: "CPU, all cores, through ONNX Runtime",
    async open() {
      const { onnxruntime } = await import("@sisa/onnx");
      return onnxruntime();
    },
  },
  {
    name: "reference",
    description: "CPU, plain loops that define what is right; slow",
    open: async () => reference(),
  },
  {
    name: "webgpu",
    description: "GPUs of all makers, in browsers and Node",
    async open() {
      const { webgpu } = await import("@sisa/kernels-webgpu");
      return webgpu({ powerPreference: "high-performance" });
    },
  },
  {
    name: "cuda",
    description: "NVIDIA GPUs",
    async open() {
      const { cuda } = await import("@sisa/kernels-cuda");
      return cuda();
    },
  },
];

export const defaultBackend = "onnxruntime";

/**
 * A backend by name.
 * @throws ConfigError for a name that is none; BackendUnavailableError saying what to install
 */
export async function openBackend(name: string): Promise<Backend> {
  return chosenBackend(name).open();
}

/** @throws ConfigError for a name that is no backend */
export function chosenBackend(name: string): Choice {
  const found = backendChoices.find((choice) => choice.name === name);
  if (found === undefined) {
    const names = backendChoices.map((choice) => choice.name).join(", ");
    throw new ConfigError(`backend: expected one of ${names}, got "${name}"`);
  }
  return found;
}
