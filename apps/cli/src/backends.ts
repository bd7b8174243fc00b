// Backends by word. Only this program knows them by name, and it loads the one that is asked for.
import { type Backend, ConfigError, type Precision, reference } from "@sisa/core";
import type { DeviceInfo } from "@sisa/kernels-cuda";
import { checkPrecision } from "@sisa/train";

interface Choice {
  readonly name: string;
  readonly description: string;
  open(how: Opening): Promise<Backend>;
  /** What `NAME:NUMBER` chooses from, by number. @throws BackendUnavailableError saying what to install */
  devices?(): Promise<readonly DeviceInfo[]>;
  /** Whether `--threads` says how many it takes. */
  readonly hasThreads?: boolean;
}

interface Opening {
  /** Which of several, where the backend tells them apart by number. */
  readonly device?: number | undefined;
  readonly threads?: number | undefined;
}

/** How commands and configurations name what runs a model. */
export interface BackendOptions {
  /** Such as "onnxruntime" and "cuda:1". */
  readonly backend: string;
  /** Within one operation, where the backend runs on the CPU; default one for each core. */
  readonly threads?: number | undefined;
  /** Checked before the backend is opened; default "float32". */
  readonly precision?: Precision;
}

export const backendChoices: readonly Choice[] = [
  {
    name: "onnxruntime",
    description: "CPU, through ONNX Runtime, on every core or with as many threads as --threads says",
    hasThreads: true,
    async open({ threads }) {
      const { onnxruntime } = await import("@sisa/onnx");
      return onnxruntime(threads === undefined ? {} : { threads });
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
    async open({ device }) {
      const { cuda } = await import("@sisa/kernels-cuda");
      return cuda({ device: device ?? 0 });
    },
    async devices() {
      const { cudaDevices } = await import("@sisa/kernels-cuda");
      return cudaDevices();
    },
  },
];

export const defaultBackend = "onnxruntime";

/**
 * A backend by name; `cuda:1` is the second GPU.
 * @throws ConfigError for a name that is none, for threads where it has none, and for a precision that it lacks;
 *         BackendUnavailableError saying what to install
 */
export async function openBackend({ backend: name, threads, precision = "float32" }: BackendOptions): Promise<Backend> {
  const choice = chosenBackend(name);
  checkPrecision(name, precision);
  if (threads !== undefined && choice.hasThreads !== true) {
    throw new ConfigError(
      `threads: expected none for backend ${name}, which has none to set, got ${threads}; leave them out`,
    );
  }
  return choice.open({ device: deviceOf(name), threads });
}

function deviceOf(name: string): number | undefined {
  const [, device] = name.split(":");
  return device === undefined ? undefined : Number(device);
}

/** @throws ConfigError for a name that is no backend */
export function chosenBackend(name: string): Choice {
  const [kind, device, ...rest] = name.split(":");
  const found = backendChoices.find((choice) => choice.name === kind);
  const isPlain = device === undefined || (found?.devices !== undefined && /^\d+$/.test(device) && rest.length === 0);
  if (found === undefined || !isPlain) {
    const names = backendChoices.map((choice) => choice.name).join(", ");
    throw new ConfigError(`backend: expected one of ${names}, got "${name}"`);
  }
  return found;
}
