import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";

export const finiteOp = /* @__PURE__ */ defineUnary<"finite", "float", "bool">("finite", {
  kinds: ["float"],
  apply: (x) => (Number.isFinite(x) ? 1 : 0),
  dtype: () => "bool",
  vjp: { reason: "truth values have no gradient" },
});

/**
 * True where x is neither NaN nor infinite.
 *
 * @param x [...] float
 * @returns bool [...]
 * @throws DTypeError unless x is a float
 */
export function finite(x: Tensor): Tensor<"bool"> {
  return apply(finiteOp, { x }, {}).value;
}
