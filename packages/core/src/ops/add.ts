import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";

export const addOp = /* @__PURE__ */ defineBinary<"add", "float" | "int">("add", {
  kinds: ["float", "int"],
  apply: (a, b) => a + b,
  vjp: ({ gradient }) => ({ a: () => gradient, b: () => gradient }),
});

/** a + b, element by element. Shapes broadcast; a number takes the other operand's dtype. */
export function add<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"add", "float" | "int", "float" | "int">(addOp, a, b) as Tensor<K>;
}
