import type { Tensor } from "../graph/tensor.ts";
import { cast } from "./cast.ts";
import { constant } from "./constant.ts";
import { dimSize } from "./dim-size.ts";
import { div } from "./div.ts";
import { mul } from "./mul.ts";
import { reduceAttributes } from "./reduce.ts";
import { type SumOptions, sum } from "./sum.ts";

/**
 * Mean over axes.
 *
 * @param x [...] float
 * @param options.axes     counted from the end where negative; default all
 * @param options.keepDims keep reduced axes with size 1; default false
 * @param options.dtype    dtype of the sums, for floats; default that of x
 * @returns [...] without the reduced axes; [] where all are
 * @throws ShapeError for an axis that x does not have; DTypeError unless x is a float
 */
export function mean(x: Tensor, options: SumOptions = {}): Tensor {
  const { axes } = reduceAttributes("mean", x.shape.length, options);
  return div(sum(x, options), countOf(x, axes, options.dtype));
}

/** How many elements lie along these axes, as a scalar of x's dtype. */
export function countOf(
  x: Tensor<"float" | "int">,
  axes: readonly number[],
  dtype: Tensor["dtype"] = floatOf(x),
): Tensor {
  const fixed = axes.flatMap((axis) => x.shape[axis]?.value ?? []).reduce((a, b) => a * b, 1);
  const open = axes.filter((axis) => x.shape[axis]?.value === undefined);
  const count = constant(fixed, dtype) as Tensor;
  return open.reduce((product, axis) => mul(product, cast(dimSize(x, axis), dtype) as Tensor), count);
}

function floatOf(x: Tensor<"float" | "int">): Tensor["dtype"] {
  return x.dtype === "int32" ? "float32" : x.dtype;
}
