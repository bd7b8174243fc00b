import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";

export const divOp = /* @__PURE__ */ defineBinary<"div", "float">("div", {
  kinds: ["float"],
  apply: (a, b) => a / b,
  vjp: ({ b, value, gradient }) => ({ a: () => div(gradient, b), b: () => neg(div(mul(gradient, value), b)) }),
});

/** a / b, element by element. Shapes broadcast; a number takes the other operand's dtype. */
export function div(a: Operand<"float">, b: Operand<"float">): Tensor {
  return applyOperands(divOp, a, b);
}
