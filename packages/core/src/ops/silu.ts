import { apply, defineComposite } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { mul } from "./mul.ts";
import { sigmoid } from "./sigmoid.ts";

export const siluOp = /* @__PURE__ */ defineComposite<"silu", { readonly x: Tensor }, Record<string, never>>({
  name: "silu",
  inputs: ["x"],
  compose: ({ x }) => ({ value: mul(x, sigmoid(x)) }),
  source: "Elfwing et al. 2017, arXiv:1702.03118",
});

/**
 * x * sigmoid(x), element by element.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 * Source: Elfwing et al. 2017, arXiv:1702.03118.
 */
export function silu(x: Tensor): Tensor {
  return apply(siluOp, { x }, {}).value;
}
