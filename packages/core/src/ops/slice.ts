import { Dim, type DimLike } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, normalAxis } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { pad } from "./pad.ts";

interface SliceAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
  readonly start: Dim;
  readonly end: Dim;
}

export const sliceOp = /* @__PURE__ */ definePrimitive<
  "slice",
  { readonly x: Tensor<Kind> },
  SliceAttributes,
  { value: Tensor<Kind> }
>({
  name: "slice",
  inputs: ["x"],
  infer({ x }, { axis, start, end }) {
    const size = x.shape[axis];
    const values = [start.value ?? 0, end.value ?? Number.MAX_SAFE_INTEGER, size?.value ?? Number.MAX_SAFE_INTEGER];
    const [from = 0, to = 0, limit = 0] = values;
    if (size === undefined || from < 0 || from > to || (end.value !== undefined && to > limit)) {
      throw new ShapeError(`expected 0 <= start <= end <= ${size}, got start ${start} and end ${end} on axis ${axis}`);
    }
    return { value: { dtype: x.dtype, shape: x.shape.with(axis, end.minus(start)) } };
  },
  reference({ x }, { axis, start }, { value }) {
    const before = value.shape.slice(0, axis).reduce((a, b) => a * b, 1);
    const row = value.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const length = (value.shape[axis] ?? 0) * row;
    const stride = (x.shape[axis] ?? 0) * row;
    const offset = (start.value ?? 0) * row;
    for (let i = 0; i < before; i++) {
      value.data.set(x.data.subarray(i * stride + offset, i * stride + offset + length), i * length);
    }
  },
  vjp({ inputs: { x }, attributes: { axis, start, end }, gradients }) {
    const size = x.shape[axis];
    if (gradients.value === undefined || size === undefined) return {};
    return { x: pad(gradients.value, { axis, before: start, after: size.minus(end) }) };
  },
});

/**
 * Some places of one axis.
 *
 * @param x [..., N, ...] of any dtype
 * @param options.axis  that of N, counted from the end where negative
 * @param options.start first place; default 0
 * @param options.end   the place after the last; default N
 * @returns [..., end - start, ...]
 * @throws ShapeError unless 0 <= start <= end <= N
 */
export function slice<K extends Kind>(
  x: Tensor<K>,
  options: { readonly axis: number; readonly start?: DimLike; readonly end?: DimLike },
): Tensor<K> {
  const { axis, start = 0, end } = options;
  const normal = normalAxis(axis, x.shape.length, "slice");
  const size = x.shape[normal] ?? Dim.of(0);
  const from = Dim.of(start);
  const to = Dim.of(end ?? size);
  if (from.equals(0) && to.equals(size)) return x;
  return apply(sliceOp, { x }, { axis: normal, start: from, end: to }).value as Tensor<K>;
}
