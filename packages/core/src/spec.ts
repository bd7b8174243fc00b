// What a tensor looks like from outside: its dtype and shape.

import { type DimLike, type Shape, shapeOf, shapeText } from "./dim.ts";
import type { Kind } from "./dtype.ts";

/** The dtypes that belong to a kind. */
export type DTypeOfKind<K extends Kind> = K extends "float"
  ? "float32" | "float64" | "float16" | "bfloat16"
  : K extends "int"
    ? "int32"
    : "bool";

/** dtype and shape of a tensor. Sizes may be symbolic. */
export interface TensorSpec<K extends Kind = Kind> {
  /** Type of the elements. */
  readonly dtype: DTypeOfKind<K>;
  /** Sizes of the axes, outermost first. */
  readonly shape: Shape;
}

/** The kind that a spec's dtype belongs to. */
export type KindOfSpec<S extends TensorSpec> = S["dtype"] extends "int32"
  ? "int"
  : S["dtype"] extends "bool"
    ? "bool"
    : "float";

/** float32 tensor: `f32("T", 8)`. A string is one symbol. */
export function f32(...shape: readonly DimLike[]): TensorSpec<"float"> {
  return { dtype: "float32", shape: shapeOf(shape) };
}

/** int32 tensor, for token ids, positions and lengths. */
export function i32(...shape: readonly DimLike[]): TensorSpec<"int"> {
  return { dtype: "int32", shape: shapeOf(shape) };
}

/** Tensor of truth values, for masks. */
export function bool(...shape: readonly DimLike[]): TensorSpec<"bool"> {
  return { dtype: "bool", shape: shapeOf(shape) };
}

/** A spec as messages show it: "float32[B,T,64]". */
export function specText(spec: Pick<TensorSpec, "dtype" | "shape">): string {
  return `${spec.dtype}${shapeText(spec.shape)}`;
}
