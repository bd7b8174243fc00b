import { apply, definePrimitive, expectKind, normalAxis } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

interface CumulativeSumAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
  readonly exclusive: boolean;
  readonly reverse: boolean;
}

export const cumulativeSumOp = /* @__PURE__ */ definePrimitive<
  "cumulativeSum",
  { readonly x: Tensor },
  CumulativeSumAttributes
>({
  name: "cumulativeSum",
  inputs: ["x"],
  infer({ x }, { axis }) {
    expectKind("x", x, "float");
    normalAxis(axis, x.shape.length);
    return { value: { dtype: x.dtype, shape: x.shape } };
  },
  reference({ x }, { axis, exclusive, reverse }, { value }) {
    const size = x.shape[axis] ?? 0;
    const inner = x.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const outer = x.shape.slice(0, axis).reduce((a, b) => a * b, 1);
    for (let i = 0; i < outer; i++) {
      for (let j = 0; j < inner; j++) {
        let total = 0;
        for (let step = 0; step < size; step++) {
          const index = (i * size + (reverse ? size - 1 - step : step)) * inner + j;
          const next = total + (x.data[index] ?? 0);
          value.data[index] = exclusive ? total : next;
          total = next;
        }
      }
    }
  },
  vjp({ attributes: { axis, exclusive, reverse }, gradients }) {
    return { x: gradients.value && cumulativeSum(gradients.value, { axis, exclusive, reverse: !reverse }) };
  },
});

/**
 * Running sum along an axis.
 *
 * @param x [..., N, ...] float
 * @param options.axis      that of N, counted from the end where negative
 * @param options.exclusive leave out the element itself; default false
 * @param options.reverse   sum from the end; default false
 * @returns [..., N, ...]
 * @throws ShapeError for an axis that x does not have; DTypeError unless x is a float
 */
export function cumulativeSum(
  x: Tensor,
  options: { readonly axis: number; readonly exclusive?: boolean; readonly reverse?: boolean },
): Tensor {
  const { exclusive = false, reverse = false } = options;
  return apply(
    cumulativeSumOp,
    { x },
    { axis: normalAxis(options.axis, x.shape.length, "cumulativeSum"), exclusive, reverse },
  ).value;
}
