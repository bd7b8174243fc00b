// Which dtypes of graphs there are here.

import { type DType, DTypeError } from "@sisa/core";
import type { ElementType } from "./model-proto.ts";

/** The element type that holds a dtype here. @throws DTypeError for floats other than float32 */
export function elementType(dtype: DType): ElementType & ("float32" | "int32" | "bool") {
  if (dtype === "float32" || dtype === "int32" || dtype === "bool") return dtype;
  throw new DTypeError(`onnxruntime: expected float32, int32 or bool, got ${dtype}; compile without that precision`);
}
