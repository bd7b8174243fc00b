// Element types as kernels and cuBLASLt number them.

import type { DType } from "@sisa/core";

/** Order of ElementType in kernels/common.cuh. */
export const elementType = {
  float32: 0,
  float64: 1,
  float16: 2,
  bfloat16: 3,
  int32: 4,
  bool: 5,
} as const satisfies Record<DType, number>;

/** The type in which a kernel computes with elements of a dtype: the suffix of its name. */
export type ComputeSuffix = "f" | "d" | "i";

export function suffixOf(dtype: DType): ComputeSuffix {
  if (dtype === "float64") return "d";
  return dtype === "int32" || dtype === "bool" ? "i" : "f";
}
