import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";

export const notOp = /* @__PURE__ */ defineUnary<"not", "bool">("not", {
  kinds: ["bool"],
  apply: (x) => (x ? 0 : 1),
  vjp: { reason: "truth values have no gradient" },
});

/**
 * True where x is false.
 *
 * @param x bool [...]
 * @returns bool [...]
 * @throws DTypeError unless x is bool
 */
export function not(x: Tensor<"bool">): Tensor<"bool"> {
  return apply(notOp, { x }, {}).value;
}
