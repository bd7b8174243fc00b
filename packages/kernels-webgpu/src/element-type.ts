// How elements lie in GPU memory, and how they get there from the arrays of the host.

import {
  allocate,
  type DType,
  elementsOf,
  sizeOf,
  type TensorSpec,
  type TypedArray,
  toFloat16Bits,
  UnsupportedOpError,
} from "@sisa/core";

/** Types of storage in WGSL. Truth values take a whole word, so that two threads never write one. */
export type StorageType = "f32" | "f16" | "i32" | "u32";

/** Types of values inside shaders. Narrow floats are widened when they are read. */
export type ScalarType = "f32" | "i32" | "bool";

/** @throws UnsupportedOpError for dtypes that WGSL has no storage for */
export function storageType(dtype: DType, hasFloat16: boolean, op: string): StorageType {
  switch (dtype) {
    case "float32":
      return "f32";
    case "int32":
      return "i32";
    case "bool":
      return "u32";
    case "float16":
      if (hasFloat16) return "f16";
      throw new UnsupportedOpError(op, "webgpu", "float16 needs the feature shader-f16, which this device lacks");
    case "float64":
    case "bfloat16":
      throw new UnsupportedOpError(op, "webgpu", `WGSL has no ${dtype}; use float32`);
    default:
      return dtype satisfies never;
  }
}

export function scalarType(dtype: DType): ScalarType {
  return dtype === "bool" ? "bool" : dtype === "int32" ? "i32" : "f32";
}

export function storageBytes(type: StorageType): number {
  return type === "f16" ? 2 : 4;
}

/** Elements of a bound spec. */
export function countOf(spec: TensorSpec): number {
  return sizeOf(elementsOf(spec.shape));
}

/** Bytes to write for an array of the host; a whole number of words, as the queue wants them. */
export function toDevice(spec: TensorSpec, data: TypedArray): Uint8Array<ArrayBuffer> {
  const words = spec.dtype === "bool" ? Uint32Array.from(data, (value) => (value ? 1 : 0)) : data;
  const bytes = new Uint8Array(Math.ceil(words.byteLength / 4) * 4);
  bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
  return bytes;
}

/** The array of the host for bytes from the device. */
export function fromDevice(spec: TensorSpec, bytes: ArrayBuffer): TypedArray {
  const result = allocate(spec.dtype, countOf(spec));
  if (spec.dtype === "bool") result.set(new Uint32Array(bytes, 0, result.length));
  else new Uint8Array(result.buffer).set(new Uint8Array(bytes, 0, result.byteLength));
  return result;
}

/** Numbers as an array of the host holds them; half floats as their bits. */
export function allocatedData(spec: TensorSpec, numbers: ArrayLike<number>): TypedArray {
  const result = allocate(spec.dtype, numbers.length);
  const half = spec.dtype === "float16";
  for (let i = 0; i < numbers.length; i++) result[i] = half ? toFloat16Bits(numbers[i] ?? 0) : (numbers[i] ?? 0);
  return result;
}
