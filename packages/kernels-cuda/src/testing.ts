// What tests need: whether there is a GPU, plans for one that is not there, and what kernels take by their code.

import { BackendUnavailableError, type Graph } from "@sisa/core";
import { cuda } from "./backend.ts";
import { kernelEntry, kernelImages, targetFor } from "./device/kernels.ts";
import { host } from "./device/native.ts";
import { loweringOf } from "./lowerings/index.ts";
import { aliasOf, gatheringOf } from "./lowerings/movement.ts";
import { makePlan, type Plan, type PlanTarget, Storage } from "./plan.ts";

/** Why tests on a device cannot run here; undefined where they can. */
export async function missingDevice(): Promise<string | undefined> {
  try {
    await using backend = await cuda();
    return backend.limits.maximumTensorBytes > 0 ? undefined : "a device without memory";
  } catch (error) {
    if (BackendUnavailableError.isInstance(error)) return error.message;
    throw error;
  }
}

/** A plan that never runs, for an H100 where nothing else is said: products are prepared by nothing. */
export function planWithoutDevice(
  graph: Graph,
  state: readonly (readonly [input: string, output: string])[] = [],
  changes: Partial<PlanTarget> = {},
): Plan {
  let number = 0;
  const target = {
    capability: 90,
    multiprocessors: 132,
    sharedBytes: 227 * 1024,
    clusters: () => 16,
    deterministic: false,
    fault: new Storage(8, "constant"),
    nextFaultNumber: () => ++number,
    prepare: () => ({ run() {} }),
    ...changes,
  };
  return makePlan(graph, state, { ruleOf: (node) => loweringOf(node)?.lower, aliasOf, gatheringOf }, target);
}

/** What a kernel takes, as its machine code says. */
export interface KernelResources {
  /** Of shared memory, beside what a launch asks for. */
  readonly sharedBytes: number;
  /** Of each thread; 0 where the code does not say. */
  readonly registers: number;
}

const known = new Map<string, ReadonlyMap<string, KernelResources>>();

/** @param capability one that there is machine code for */
export function resourcesOf(kernel: string, capability: number): KernelResources {
  const target = targetFor(capability);
  const { file } = kernelEntry(kernel);
  const key = `${file} ${target}`;
  const image = target && kernelImages[file]?.images[target];
  if (image === undefined) throw new Error(`${kernel} has no code for ${capability}`);
  const kernels = known.get(key) ?? readResources(host.decompress(image), target === "sm_90a" ? 1024 : 0);
  known.set(key, kernels);
  return kernels.get(kernel) ?? { sharedBytes: 0, registers: 0 };
}

/**
 * From the section headers of a 64-bit ELF file: the size of `.nv.shared.KERNEL`, and the high byte of the info of
 * `.text.KERNEL`, which is the number of registers up to sm_89.
 * @param reserved bytes that the size holds for the system
 */
function readResources(code: Uint8Array, reserved: number): ReadonlyMap<string, KernelResources> {
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength);
  const start = Number(view.getBigUint64(0x28, true));
  const [headerBytes, count, names] = [0x3a, 0x3c, 0x3e].map((at) => view.getUint16(at, true)) as [
    number,
    number,
    number,
  ];
  const headerAt = (index: number) => start + index * headerBytes;
  const offsetOf = (header: number) => Number(view.getBigUint64(header + 24, true));
  const textAt = (at: number) => new TextDecoder().decode(code.subarray(at, code.indexOf(0, at)));
  const found = new Map<string, KernelResources>();
  for (let index = 0; index < count; index++) {
    const header = headerAt(index);
    const name = textAt(offsetOf(headerAt(names)) + view.getUint32(header, true));
    const [, kind, kernel = ""] = /^\.(text|nv\.shared)\.(\w+)$/.exec(name) ?? [];
    const before = found.get(kernel) ?? { sharedBytes: 0, registers: 0 };
    if (kind === "text") found.set(kernel, { ...before, registers: view.getUint32(header + 44, true) >>> 24 });
    else if (kind)
      found.set(kernel, { ...before, sharedBytes: Number(view.getBigUint64(header + 32, true)) - reserved });
  }
  return found;
}
