import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";

export const lessOp = /* @__PURE__ */ defineBinary<"less", "float" | "int", "bool">("less", {
  kinds: ["float", "int"],
  apply: (a, b) => (a < b ? 1 : 0),
  dtype: "bool",
  vjp: { reason: "a comparison is constant almost everywhere" },
});

/** a < b, element by element; false where either is NaN. Shapes broadcast. */
export function less<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<"bool"> {
  return applyOperands<"less", "float" | "int", "bool">(lessOp, a, b);
}
