// Backends by word. Only this program knows them by name, and it loads the one that is asked for.
import { type Backend, ConfigError, reference } from "@sisa/core";

interface Choice {
  readonly name: string;
  readonly description: string;
  /** @param device which of several, where the backend tells them apart by number */
  open(device?: number): Promise<Backend>;
  /** Whether `NAME:NUMBER` chooses a device. */
  readonly hasDevices?: boolean;
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
    hasDevices: true,
    async open(device) {
      const { cuda } = await import("@sisa/kernels-cuda");
      return cuda({ device: device ?? 0 });
    },
  },
];

export const defaultBackend = "onnxruntime";

/**
 * A backend by name; `cuda:1` is the second GPU.
 * @throws ConfigError for a name that is none; BackendUnavailableError saying what to install
 */
export async function openBackend(name: string): Promise<Backend> {
  return chosenBackend(name).open(deviceOf(name));
}

function deviceOf(name: string): number | undefined {
  const [, device] = name.split(":");
  return device === undefined ? undefined : Number(device);
}

/** @throws ConfigError for a name that is no backend */
export function chosenBackend(name: string): Choice {
  const [kind, device, ...rest] = name.split(":");
  const found = backendChoices.find((choice) => choice.name === kind);
  const isPlain = device === undefined || (found?.hasDevices === true && /^\d+$/.test(device) && rest.length === 0);
  if (found === undefined || !isPlain) {
    const names = backendChoices.map((choice) => choice.name).join(", ");
    throw new ConfigError(`backend: expected one of ${names}, got "${name}"`);
  }
  return found;
}
