import { apply, defineComposite } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { exp } from "./exp.ts";
import { log } from "./log.ts";
import { max } from "./max.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";

const last = { axes: [-1], keepDims: true };

export const logSumExpOp = /* @__PURE__ */ defineComposite<"logSumExp", { readonly x: Tensor }, Record<string, never>>({
  name: "logSumExp",
  inputs: ["x"],
  compose({ x }) {
    const largest = max(x, last);
    return { value: add(largest, log(sum(exp(sub(x, largest)), last))) };
  },
  vjp({ inputs: { x }, outputs: { value }, gradients }) {
    return { x: gradients.value && mul(gradients.value, exp(sub(x, value))) };
  },
});

/** log(sum(e^x)) over the last axis, which stays with size 1. */
export function logSumExp(x: Tensor): Tensor {
  return apply(logSumExpOp, { x }, {}).value;
}
