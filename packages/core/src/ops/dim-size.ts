import type { Kind } from "../dtype.ts";
import { apply, definePrimitive, normalAxis } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

interface DimSizeAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
}

export const dimSizeOp = /* @__PURE__ */ definePrimitive<
  "dimSize",
  { readonly x: Tensor<Kind> },
  DimSizeAttributes,
  { value: Tensor<"int"> }
>({
  name: "dimSize",
  inputs: ["x"],
  shapeOnly: true,
  infer({ x }, { axis }) {
    normalAxis(axis, x.shape.length);
    return { value: { dtype: "int32", shape: [] } };
  },
  reference({ x }, { axis }, { value }) {
    value.data[0] = x.shape[axis] ?? 0;
  },
  vjp: { reason: "a size does not depend on the elements" },
});

/**
 * The size of an axis, for arithmetic with sizes that are not bound.
 *
 * @param x [...] of any dtype
 * @param axis counted from the end where negative
 * @returns int32 []
 * @throws ShapeError for an axis that x does not have
 */
export function dimSize(x: Tensor<Kind>, axis: number): Tensor<"int"> {
  return apply(dimSizeOp, { x }, { axis: normalAxis(axis, x.shape.length, "dimSize") }).value;
}
