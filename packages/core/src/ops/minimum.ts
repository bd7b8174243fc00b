import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";
import { lessEqual } from "./less-equal.ts";
import { where } from "./where.ts";

export const minimumOp = /* @__PURE__ */ defineBinary<"minimum", "float" | "int">("minimum", {
  kinds: ["float", "int"],
  apply: (a, b) => Math.min(a, b),
  vjp: ({ a, b, gradient }) => ({
    a: () => where(lessEqual(a, b), gradient, 0),
    b: () => where(lessEqual(a, b), 0, gradient),
  }),
});

/** The smaller of a and b, NaN where either is NaN; where they are equal the gradient goes to a, element by element. Shapes broadcast; a number takes the other operand's dtype. */
export function minimum<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"minimum", "float" | "int", "float" | "int">(minimumOp, a, b) as Tensor<K>;
}
