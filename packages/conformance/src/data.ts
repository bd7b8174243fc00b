// Makes the inputs of cases, and turns arrays of the reference into those of backends and back.

import {
  allocate,
  type DType,
  fromBfloat16Bits,
  fromFloat16Bits,
  kindOf,
  type NdArray,
  RandomStream,
  roundTo,
  type Shape,
  sizesOf,
  type TensorSpec,
  type TypedArray,
  toBfloat16Bits,
  toFloat16Bits,
} from "@sisa/core";
import type { InputRecipe, Sizes, Values } from "./case.ts";

/** Seed of every case's inputs; a case's own name sets it apart from the others. */
const seed = 1;

export function boundShape(shape: Shape, sizes: Sizes): number[] {
  return sizesOf(shape.map((size) => size.bind(sizes)));
}

/** An array of a dtype from any numbers, rounded as the dtype holds them. */
export function arrayOf(dtype: DType, shape: readonly number[], elements: ArrayLike<number>): NdArray {
  const kind = kindOf(dtype);
  if (kind === "int") return { shape, data: Int32Array.from(elements) };
  if (kind === "bool") return { shape, data: Uint8Array.from(elements) };
  return { shape, data: Float64Array.from(elements, (value) => roundTo(dtype, value)) };
}

/** The same inputs every time, for a label such as "matmul/symbolic". */
export function makeInputs(label: string, recipes: { readonly [name: string]: InputRecipe }, sizes: Sizes): Values {
  return Object.fromEntries(
    Object.entries(recipes).map(([name, recipe]) => {
      const shape = boundShape(recipe.spec.shape, sizes);
      const count = shape.reduce((a, b) => a * b, 1);
      const elements = recipe.fill(new RandomStream(seed, `${label}/${name}`), count);
      return [name, arrayOf(recipe.spec.dtype, shape, elements)];
    }),
  );
}

/** What a backend takes for an array. */
export function toTyped({ dtype }: TensorSpec, { data }: NdArray): TypedArray {
  const typed = allocate(dtype, data.length);
  const convert =
    dtype === "float16" ? toFloat16Bits : dtype === "bfloat16" ? toBfloat16Bits : (value: number) => value;
  for (let i = 0; i < data.length; i++) typed[i] = convert(data[i] ?? 0);
  return typed;
}

/** The numbers that a backend gave. */
export function fromTyped({ dtype }: TensorSpec, typed: TypedArray): ArrayLike<number> {
  if (dtype === "float16") return Float64Array.from(typed, fromFloat16Bits);
  if (dtype === "bfloat16") return Float64Array.from(typed, fromBfloat16Bits);
  return typed;
}

/** True where both hold the same bits. */
export function sameBits(a: TypedArray, b: TypedArray): boolean {
  const bytes = (array: TypedArray) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  const left = bytes(a);
  const right = bytes(b);
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}
