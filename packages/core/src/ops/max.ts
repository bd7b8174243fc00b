import { apply, definePrimitive, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { cast } from "./cast.ts";
import { div } from "./div.ts";
import { equal } from "./equal.ts";
import { mul } from "./mul.ts";
import {
  keptShape,
  type ReduceAttributes,
  type ReduceOptions,
  reduceAttributes,
  reducedShape,
  reduceIndex,
} from "./reduce.ts";
import { reshape } from "./reshape.ts";
import { sum } from "./sum.ts";

export const maxOp = /* @__PURE__ */ definePrimitive<
  "max",
  { readonly x: Tensor },
  ReduceAttributes,
  { value: Tensor }
>({
  name: "max",
  inputs: ["x"],
  infer({ x }, attributes) {
    expectKind("x", x, "float");
    return { value: { dtype: x.dtype, shape: reducedShape(x.shape, attributes) } };
  },
  reference({ x }, attributes, { value }) {
    const index = reduceIndex(x.shape, attributes);
    value.data.fill(Number.NEGATIVE_INFINITY);
    for (let i = 0; i < x.data.length; i++) {
      const target = index(i);
      value.data[target] = Math.max(value.data[target] ?? 0, x.data[i] ?? 0);
    }
  },
  vjp({ inputs: { x }, attributes, outputs, gradients }) {
    if (gradients.value === undefined) return {};
    const shape = keptShape(x.shape, attributes);
    const isMax = cast(equal(x, reshape(outputs.value, shape)), x.dtype) as Tensor;
    const share = div(reshape(gradients.value, shape), sum(isMax, { axes: attributes.axes, keepDims: true }));
    return { x: mul(isMax, share) };
  },
});

/**
 * Largest element over axes, NaN where one is NaN, -Infinity of nothing. Equal maxima share the gradient.
 *
 * @param x [...] float
 * @param options.axes     counted from the end where negative; default all
 * @param options.keepDims keep reduced axes with size 1; default false
 * @returns [...] without the reduced axes; [] where all are
 * @throws ShapeError for an axis that x does not have; DTypeError unless x is a float
 */
export function max(x: Tensor, options: ReduceOptions = {}): Tensor {
  return apply(maxOp, { x }, reduceAttributes("max", x.shape.length, options)).value;
}
