import { Dim, type DimLike } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, normalAxis } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { slice } from "./slice.ts";

interface PadAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
  readonly before: Dim;
  readonly after: Dim;
}

export const padOp = /* @__PURE__ */ definePrimitive<
  "pad",
  { readonly x: Tensor<Kind> },
  PadAttributes,
  { value: Tensor<Kind> }
>({
  name: "pad",
  inputs: ["x"],
  infer({ x }, { axis, before, after }) {
    const size = x.shape[axis];
    if (size === undefined || (before.value ?? 0) < 0 || (after.value ?? 0) < 0) {
      throw new ShapeError(`expected paddings >= 0, got ${before} before and ${after} after on axis ${axis}`);
    }
    return { value: { dtype: x.dtype, shape: x.shape.with(axis, size.plus(before).plus(after)) } };
  },
  reference({ x }, { axis, before }, { value }) {
    const outer = x.shape.slice(0, axis).reduce((a, b) => a * b, 1);
    const row = x.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const length = (x.shape[axis] ?? 0) * row;
    const stride = (value.shape[axis] ?? 0) * row;
    const offset = (before.value ?? 0) * row;
    for (let i = 0; i < outer; i++) {
      value.data.set(x.data.subarray(i * length, (i + 1) * length), i * stride + offset);
    }
  },
  vjp({ inputs: { x }, attributes: { axis, before }, gradients }) {
    const size = x.shape[axis];
    if (gradients.value === undefined || size === undefined) return {};
    return { x: slice(gradients.value, { axis, start: before, end: before.plus(size) }) };
  },
});

/**
 * Zeros (false) added before and after along one axis.
 *
 * @param x [..., N, ...] of any dtype
 * @param options.axis   that of N, counted from the end where negative
 * @param options.before how many in front; default 0
 * @param options.after  how many behind; default 0
 * @returns [..., before + N + after, ...]
 * @throws ShapeError for an axis that x does not have, or a padding below 0
 */
export function pad<K extends Kind>(
  x: Tensor<K>,
  options: { readonly axis: number; readonly before?: DimLike; readonly after?: DimLike },
): Tensor<K> {
  const { axis, before = 0, after = 0 } = options;
  const from = Dim.of(before);
  const to = Dim.of(after);
  if (from.equals(0) && to.equals(0)) return x;
  return apply(padOp, { x }, { axis: normalAxis(axis, x.shape.length, "pad"), before: from, after: to })
    .value as Tensor<K>;
}
