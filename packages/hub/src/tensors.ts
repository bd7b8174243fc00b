// Tensors as files hold them: names, dtypes, shapes, and elements in ordinary typed arrays. Shared by safetensors and
// torch checkpoints, so that what reads one reads the other.

import { CheckpointError, type DType } from "@sisa/core";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./half.ts";

/** Element types that files hold: those of graphs, and further integers. */
export type FileDType = DType | "int64" | "uint64" | "uint32" | "int16" | "uint16" | "int8" | "uint8";

/** float16 and bfloat16 are held as their bit patterns, bool as 0 and 1. */
export type TensorArray =
  | Float32Array
  | Float64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array
  | BigInt64Array
  | BigUint64Array;

/** What a file says of a tensor. */
export interface TensorInfo {
  /** As it is stored. */
  readonly dtype: FileDType;
  /** Sizes of the axes, outermost first. */
  readonly shape: readonly number[];
}

/** A tensor that was read. */
export interface HostTensor extends TensorInfo {
  /** Row major. */
  readonly data: TensorArray;
}

/** Tensors in one or several files, each read when asked for. */
export interface TensorSource extends AsyncDisposable {
  /** Where they are, for messages. */
  readonly location: string;
  /** All of them by name, none read yet. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Texts that stand in the file beside the tensors. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Reads one.
   * @throws CheckpointError where the name is unknown or the data damaged; StorageError where it cannot be read
   */
  read(name: string): Promise<HostTensor>;
  /** Gives the files back; `await using` calls it. */
  close(): Promise<void>;
}

type ArrayType = {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, byteOffset: number, length: number): TensorArray;
};

const arrayTypes = {
  float64: Float64Array,
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const satisfies Record<FileDType, ArrayType>;

/** Bytes of one element. */
export function elementBytes(dtype: FileDType): number {
  return arrayTypes[dtype].BYTES_PER_ELEMENT;
}

/** Product of the sizes; 1 for a scalar. May be unsafe or infinite where the sizes come from a hostile file. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The elements in little-endian bytes, which are used in place. */
export function arrayOf(dtype: FileDType, bytes: Uint8Array<ArrayBuffer>): TensorArray {
  const size = elementBytes(dtype);
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new arrayTypes[dtype](aligned.buffer, aligned.byteOffset, aligned.byteLength / size);
}

/** The bytes of an array, in place. */
export function bytesOfArray(data: TensorArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** True where the array has the element type that holds the dtype. */
export function holds(dtype: FileDType, data: TensorArray): boolean {
  return data instanceof arrayTypes[dtype];
}

/**
 * The values of a floating-point tensor in float32; float64 is rounded, narrower types are exact.
 * @param label for the message, for instance the tensor's name
 * @throws CheckpointError for other dtypes
 */
export function toFloat32(tensor: HostTensor, label: string): Float32Array {
  const { dtype, data } = tensor;
  if (dtype === "float32" && data instanceof Float32Array) return data;
  if (dtype === "float64" && data instanceof Float64Array) return Float32Array.from(data);
  if (dtype === "bfloat16" && data instanceof Uint16Array) return bfloat16ToFloat32(data);
  if (dtype === "float16" && data instanceof Uint16Array) return float16ToFloat32(data);
  throw new CheckpointError(`${label}: expected floating-point values, got ${dtype}`);
}

/**
 * The values of an integer tensor in int32, for token ids.
 * @throws CheckpointError for other dtypes and for values that int32 cannot hold
 */
export function toInt32(tensor: HostTensor, label: string): Int32Array {
  const { dtype, data } = tensor;
  if (data instanceof Int32Array) return data;
  if (dtype.startsWith("float") || dtype === "bfloat16" || dtype === "bool") {
    throw new CheckpointError(`${label}: expected integers, got ${dtype}`);
  }
  const values = new Int32Array(data.length);
  for (let index = 0; index < data.length; index++) {
    const value = Number(data[index]);
    values[index] = value;
    if (values[index] !== value) throw new CheckpointError(`${label}: ${value} does not fit into int32`);
  }
  return values;
}

/** float32 values in another floating-point dtype, rounded to nearest, ties to even. */
export function fromFloat32(values: Float32Array, dtype: "float32" | "float16" | "bfloat16"): TensorArray {
  switch (dtype) {
    case "float32":
      return values;
    case "float16":
      return float32ToFloat16(values);
    case "bfloat16":
      return float32ToBfloat16(values);
    default:
      return dtype satisfies never;
  }
}
