import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";
import { lessEqual } from "./less-equal.ts";
import { where } from "./where.ts";

export const maximumOp = /* @__PURE__ */ defineBinary<"maximum", "float" | "int">("maximum", {
  kinds: ["float", "int"],
  apply: (a, b) => Math.max(a, b),
  vjp: ({ a, b, gradient }) => ({
    a: () => where(lessEqual(b, a), gradient, 0),
    b: () => where(lessEqual(b, a), 0, gradient),
  }),
});

/** The larger of a and b, NaN where either is NaN; where they are equal the gradient goes to a, element by element. Shapes broadcast; a number takes the other operand's dtype. */
export function maximum<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"maximum", "float" | "int", "float" | "int">(maximumOp, a, b) as Tensor<K>;
}
