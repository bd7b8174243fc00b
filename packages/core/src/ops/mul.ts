import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";

export const mulOp = /* @__PURE__ */ defineBinary<"mul", "float" | "int">("mul", {
  kinds: ["float", "int"],
  apply: (a, b) => a * b,
  applyWhole: Math.imul,
  vjp: ({ a, b, gradient }) => ({ a: () => mul(gradient, b), b: () => mul(gradient, a) }),
});

/** a * b, element by element. Shapes broadcast; a number takes the other operand's dtype. */
export function mul<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"mul", "float" | "int", "float" | "int">(mulOp, a, b) as Tensor<K>;
}
