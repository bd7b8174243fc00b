// Everything @sisa/kernels-webgpu offers: the backend, its errors, and what lowerings of third parties are made of.

export { type WebgpuBackend, type WebgpuOptions, webgpu } from "./backend.ts";
export { Place, type Scope } from "./codegen/index-space.ts";
export type { ShaderParts, Slot } from "./codegen/shader.ts";
export { type Capabilities, type DeviceOptions, type Feature, knownFeatures } from "./device.ts";
export type { StorageType } from "./element-type.ts";
export { DeviceLostError, OutOfMemoryError } from "./errors.ts";
export type { Lowerings } from "./lower.ts";
export {
  type EmittedExpression,
  type Finish,
  type Joint,
  type KernelContext,
  type KernelLowering,
  kernel,
  type Lowering,
  type Pointwise,
  pointwise,
  type View,
  type ViewContext,
  view,
} from "./lowering.ts";
export type { MatrixSize, MatrixUnit } from "./matrix-unit.ts";
export type { Binding, Value } from "./program.ts";
export type { Check } from "./run-status.ts";
export type { TuningCache } from "./tuner.ts";
