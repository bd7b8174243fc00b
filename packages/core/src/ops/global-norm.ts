import { ShapeError } from "../errors.ts";
import { apply, defineComposite } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { cast } from "./cast.ts";
import { div } from "./div.ts";
import { minimum } from "./minimum.ts";
import { mul } from "./mul.ts";
import { sqrt } from "./sqrt.ts";
import { sum } from "./sum.ts";

type GlobalNormInputs = { readonly [index: string]: Tensor };

export const globalNormOp = /* @__PURE__ */ defineComposite<"globalNorm", GlobalNormInputs, Record<string, never>>({
  name: "globalNorm",
  inputs: "...",
  compose(inputs) {
    const squares = Object.values(inputs).map((x) => {
      const wide = x.dtype === "float64" ? x : cast(x, "float32");
      return sum(mul(wide, wide));
    });
    const [first, ...rest] = squares;
    if (first === undefined) throw new ShapeError("expected at least one tensor, got none");
    return { value: sqrt(rest.reduce((a, b) => add(a, b), first)) };
  },
});

/**
 * Euclidean norm of all elements of all tensors together, summed in float32 at least.
 *
 * @param tensors at least one, float, each of any shape [...]
 * @returns []
 * @throws ShapeError where there is no tensor
 */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  return apply(globalNormOp, Object.fromEntries(tensors.map((tensor, index) => [String(index), tensor])), {}).value;
}

/**
 * Factor that brings gradients of this norm to at most `maximum`: min(1, maximum / (norm + 1e-6)).
 *
 * @param norm [] what `globalNorm` gives
 * @param maximum above 0, in units of the norm
 * @returns []
 * Source: torch.nn.utils.clip_grad_norm_.
 */
export function clipFactor(norm: Tensor, maximum: number): Tensor {
  return minimum(div(maximum, add(norm, 1e-6)), 1);
}
