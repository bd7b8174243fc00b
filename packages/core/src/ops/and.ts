import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineBinary } from "./elementwise.ts";

export const andOp = /* @__PURE__ */ defineBinary<"and", "bool">("and", {
  kinds: ["bool"],
  apply: (a, b) => (a && b ? 1 : 0),
  vjp: { reason: "truth values have no gradient" },
});

/** True where both of a and b hold. Shapes broadcast. */
export function and(a: Tensor<"bool">, b: Tensor<"bool">): Tensor<"bool"> {
  return apply(andOp, { a, b }, {}).value;
}
