import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineBinary } from "./elementwise.ts";

export const andOp = /* @__PURE__ */ defineBinary<"and", "bool">("and", {
  kinds: ["bool"],
  apply: (a, b) => (a && b ? 1 : 0),
  vjp: { reason: "truth values have no gradient" },
});

/**
 * True where both of a and b hold.
 *
 * @param a bool [...]
 * @param b bool [...]
 * @returns bool [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast; DTypeError where the dtypes differ or are not bool
 */
export function and(a: Tensor<"bool">, b: Tensor<"bool">): Tensor<"bool"> {
  return apply(andOp, { a, b }, {}).value;
}
