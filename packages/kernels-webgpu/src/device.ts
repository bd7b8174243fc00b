/// <reference types="@webgpu/types" />
// A WebGPU device with everything asked of its adapter that kernels know how to use: the browser's, or Dawn's in Node.

import { BackendUnavailableError } from "@sisa/core";
import { DeviceLostError } from "./errors.ts";
import type { KernelContext } from "./lowering.ts";
import type { MatrixUnit } from "./matrix-unit.ts";

/** Features that kernels have variants for. Whatever an adapter lacks is not used. */
export const knownFeatures = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"] as const;
/** A feature of WebGPU that kernels know how to use. */
export type Feature = (typeof knownFeatures)[number];

/** Limits that are asked for as high as the adapter goes; WebGPU gives low defaults otherwise. */
const raisedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Numbers of the WebGPU specification; Node has no globals for them. */
export const usage = { mapRead: 1, copySource: 4, copyTarget: 8, storage: 128 } as const;
export const mapRead = 1;

/** Which adapter is asked for, and what of it is used. */
export interface DeviceOptions {
  /** Which GPU of several. Default: the system's choice. */
  readonly powerPreference?: "low-power" | "high-performance";
  /** What to ask for adapters, such as `create([...])` of package webgpu. Default: the browser's own, or Dawn's. */
  readonly gpu?: unknown;
  /**
   * Features not to use although the adapter has them, so that their plain variants can be tested and compared. Default
   * none.
   */
  readonly without?: readonly Feature[];
}

/** Limits by their names in the WebGPU specification, whose own types are not everywhere. */
export type DeviceLimits = { readonly [name in (typeof raisedLimits)[number]]: number };

/** Ways to compute the same, by name: each dispatches kernels. */
export type Ways = ReadonlyMap<string, (context: KernelContext) => void>;

/** What kernels choose their variants by. */
export interface Capabilities {
  /** Features in use. */
  readonly features: ReadonlySet<Feature>;
  /** By their names in the WebGPU specification. */
  readonly limits: DeviceLimits;
  /** What halves are multiplied by, where the feature is in use. */
  readonly matrixUnit?: MatrixUnit | undefined;
  /**
   * The way that took the least time for the products of a class; undefined where none has been timed.
   * @internal
   */
  readonly fastest?: (context: KernelContext, what: string, ways: Ways) => ReturnType<Ways["get"]>;
}

export interface OpenDevice extends Capabilities {
  /** Held as long as the device: Dawn stops its threads with the last reference to it. */
  readonly gpu: GPU;
  readonly device: GPUDevice;
  /** Such as "NVIDIA H100" or "SwiftShader driver 5.0.0". */
  readonly description: string;
  /** Set once the device is gone, unless it was destroyed on purpose. */
  readonly lost: () => DeviceLostError | undefined;
  readonly destroy: () => void;
}

/** @throws BackendUnavailableError where there is no WebGPU, no adapter or no device */
export async function openDevice({ powerPreference, without = [], gpu: given }: DeviceOptions): Promise<OpenDevice> {
  const gpu = given === undefined ? await findGpu() : (given as GPU);
  const adapter = await gpu.requestAdapter(powerPreference ? { powerPreference } : {});
  if (adapter === null) {
    throw new BackendUnavailableError(
      "webgpu: no GPU was found; install a driver for Vulkan, Metal or Direct3D 12, or use another backend",
    );
  }
  const features = new Set(knownFeatures.filter((name) => adapter.features.has(name) && !without.includes(name)));
  const matrixUnit = knownFeatures.every((name) => features.has(name))
    ? (await import("./matrix-unit.ts")).matrixUnitOf(adapter.info)
    : undefined;
  if (!matrixUnit) features.delete("chromium-experimental-subgroup-matrix");
  const requiredLimits: Record<string, number> = {};
  for (const name of raisedLimits) requiredLimits[name] = adapter.limits[name];
  const device = await adapter
    .requestDevice({ requiredFeatures: [...features] as GPUFeatureName[], requiredLimits })
    .catch((error: unknown) => {
      throw new BackendUnavailableError(`webgpu: the adapter gives no device: ${messageOf(error)}`, { cause: error });
    });
  let lost: DeviceLostError | undefined;
  let destroyed = false;
  void device.lost.then(({ message, reason }) => {
    if (destroyed) return;
    lost = new DeviceLostError(`webgpu: the device was lost (${reason}): ${message}; make a new backend with webgpu()`);
  });
  const { description, device: model, architecture, vendor } = adapter.info;
  return {
    gpu,
    device,
    description: description || model || `${vendor} ${architecture}`.trim() || "a GPU that does not say its name",
    features,
    limits: device.limits,
    matrixUnit,
    lost: () => lost,
    destroy() {
      destroyed = true;
      device.destroy();
    },
  };
}

// Dawn keeps halves back on NVIDIA's GPUs unless asked; the conformance cases pass with them there.
const dawnFlags = ["enable-dawn-features=vulkan_enable_f16_on_nvidia"];

/** What package `webgpu` exports. */
interface DawnModule {
  create(flags: readonly string[]): GPU;
}

async function findGpu(): Promise<GPU> {
  const { navigator } = globalThis as { readonly navigator?: { readonly gpu?: GPU } };
  if (navigator?.gpu) return navigator.gpu;
  if (!("process" in globalThis)) {
    throw new BackendUnavailableError("webgpu: this browser has no WebGPU; use a newer one, or another backend");
  }
  // Not a literal: bundlers for browsers must not look for it.
  const name = "webgpu";
  try {
    const dawn: DawnModule = await import(/* @vite-ignore */ name);
    return dawn.create(dawnFlags);
  } catch (error) {
    throw new BackendUnavailableError(
      `webgpu: package "webgpu" cannot be loaded; install it with: npm install webgpu (${messageOf(error)})`,
      { cause: error },
    );
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
