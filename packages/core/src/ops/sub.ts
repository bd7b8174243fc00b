import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";
import { neg } from "./neg.ts";

export const subOp = /* @__PURE__ */ defineBinary<"sub", "float" | "int">("sub", {
  kinds: ["float", "int"],
  apply: (a, b) => a - b,
  vjp: ({ gradient }) => ({ a: () => gradient, b: () => neg(gradient) }),
});

/** a - b, element by element. Shapes broadcast; a number takes the other operand's dtype. */
export function sub<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"sub", "float" | "int", "float" | "int">(subOp, a, b) as Tensor<K>;
}
