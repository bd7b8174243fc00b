import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineBinary } from "./elementwise.ts";

export const orOp = /* @__PURE__ */ defineBinary<"or", "bool">("or", {
  kinds: ["bool"],
  apply: (a, b) => (a || b ? 1 : 0),
  vjp: { reason: "truth values have no gradient" },
});

/**
 * True where either of a and b holds.
 *
 * @param a bool [...]
 * @param b bool [...]
 * @returns bool [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast; DTypeError where the dtypes differ or are not bool
 */
export function or(a: Tensor<"bool">, b: Tensor<"bool">): Tensor<"bool"> {
  return apply(orOp, { a, b }, {}).value;
}
