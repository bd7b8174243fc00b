import { Dim, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { type Attributes, apply, definePrimitive, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

export const argmaxOp = /* @__PURE__ */ definePrimitive<
  "argmax",
  { readonly x: Tensor },
  Attributes,
  { value: Tensor<"int"> }
>({
  name: "argmax",
  inputs: ["x"],
  infer({ x }) {
    expectKind("x", x, "float");
    if ((x.shape.at(-1) ?? Dim.of(0)).equals(0)) {
      throw new ShapeError(`expected a last axis that is not empty, got ${shapeText(x.shape)}`);
    }
    return { value: { dtype: "int32", shape: x.shape.slice(0, -1) } };
  },
  reference({ x }, _attributes, { value }) {
    const size = x.shape.at(-1) ?? 1;
    for (let row = 0; row < value.data.length; row++) {
      let best = 0;
      for (let i = 1; i < size; i++) {
        if ((x.data[row * size + i] ?? 0) > (x.data[row * size + best] ?? 0)) best = i;
      }
      value.data[row] = best;
    }
  },
  vjp: { reason: "a place is not a quantity" },
});

/**
 * Place of the largest element along the last axis; the first of equal ones.
 *
 * @param x [..., V] float
 * @returns int32 [...], from 0 to V - 1
 * @throws ShapeError where V is 0; DTypeError unless x is a float
 */
export function argmax(x: Tensor): Tensor<"int"> {
  return apply(argmaxOp, { x }, {}).value;
}
