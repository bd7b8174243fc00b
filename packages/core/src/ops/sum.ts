import { apply, definePrimitive, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { DTypeOfKind } from "../spec.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { cast } from "./cast.ts";
import {
  keptShape,
  type ReduceAttributes,
  type ReduceOptions,
  reduceAttributes,
  reducedShape,
  reduceIndex,
} from "./reduce.ts";
import { reshape } from "./reshape.ts";

interface SumAttributes extends ReduceAttributes {
  /** dtype of the sums, for floats; that of x where left out. */
  readonly dtype?: DTypeOfKind<"float"> | undefined;
}

/** Over which axes, what becomes of them, and how wide the sums are. */
export interface SumOptions extends ReduceOptions {
  /** dtype of the sums, for floats; default that of x. */
  readonly dtype?: DTypeOfKind<"float"> | undefined;
}

export const sumOp = /* @__PURE__ */ definePrimitive<
  "sum",
  { readonly x: Tensor<"float" | "int"> },
  SumAttributes,
  { value: Tensor<"float" | "int"> }
>({
  name: "sum",
  inputs: ["x"],
  infer({ x }, attributes) {
    expectKind("x", x, "float", "int");
    if (attributes.dtype !== undefined) expectKind("x, summed in another dtype,", x, "float");
    return { value: { dtype: attributes.dtype ?? x.dtype, shape: reducedShape(x.shape, attributes) } };
  },
  reference({ x }, attributes, { value }) {
    const index = reduceIndex(x.shape, attributes);
    for (let i = 0; i < x.data.length; i++) {
      const target = index(i);
      value.data[target] = (value.data[target] ?? 0) + (x.data[i] ?? 0);
    }
  },
  vjp({ inputs: { x }, attributes, gradients }) {
    if (gradients.value === undefined) return {};
    const gradient = cast(gradients.value, x.dtype) as Tensor;
    return { x: broadcastTo(reshape(gradient, keptShape(x.shape, attributes)), x.shape) };
  },
});

/**
 * Sum over axes. The sum of nothing is 0.
 *
 * @param x [...] float or int
 * @param options.axes     counted from the end where negative; default all
 * @param options.keepDims keep reduced axes with size 1; default false
 * @param options.dtype    dtype of the sums, for floats; default that of x
 * @returns [...] without the reduced axes; [] where all are
 * @throws ShapeError for an axis that x does not have; DTypeError unless x is a float or an int
 */
export function sum<K extends "float" | "int" = "float">(x: Tensor<K>, options: SumOptions = {}): Tensor<K> {
  const { dtype } = options;
  const own = dtype === undefined || dtype === x.dtype ? {} : { dtype };
  return apply(sumOp, { x }, { ...reduceAttributes("sum", x.shape.length, options), ...own }).value as Tensor<K>;
}
