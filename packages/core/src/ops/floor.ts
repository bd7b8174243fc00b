import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";

export const floorOp = /* @__PURE__ */ defineUnary<"floor", "float">("floor", {
  kinds: ["float"],
  apply: Math.floor,
  vjp: { reason: "it is constant almost everywhere" },
});

/**
 * The largest whole number that is not above x, element by element.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function floor(x: Tensor): Tensor {
  return apply(floorOp, { x }, {}).value;
}
