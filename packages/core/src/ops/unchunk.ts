import { Dim, type DimLike, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, normalAxis } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { chunk } from "./chunk.ts";

interface UnchunkAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
  readonly length: Dim;
}

export const unchunkOp = /* @__PURE__ */ definePrimitive<
  "unchunk",
  { readonly x: Tensor<Kind> },
  UnchunkAttributes,
  { value: Tensor<Kind> }
>({
  name: "unchunk",
  inputs: ["x"],
  infer({ x }, { axis, length }) {
    const chunks = x.shape[axis] ?? Dim.of(0);
    const size = x.shape[axis + 1]?.value ?? 0;
    if (size < 1) {
      throw new ShapeError(`expected chunks of a fixed size >= 1 on axis ${axis + 1}, got ${shapeText(x.shape)}`);
    }
    if (!length.ceilDiv(size).equals(chunks)) {
      throw new ShapeError(
        `expected a length with ceilDiv(length, ${size}) = ${chunks}, got ${length} for ${shapeText(x.shape)}`,
      );
    }
    return { value: { dtype: x.dtype, shape: x.shape.toSpliced(axis, 2, length) } };
  },
  reference({ x }, { axis }, { value }) {
    const outer = x.shape.slice(0, axis).reduce((a, b) => a * b, 1);
    const stride = x.shape.slice(axis).reduce((a, b) => a * b, 1);
    const length = value.shape.slice(axis).reduce((a, b) => a * b, 1);
    for (let i = 0; i < outer; i++) value.data.set(x.data.subarray(i * stride, i * stride + length), i * length);
  },
  vjp({ inputs: { x }, attributes: { axis }, gradients }) {
    return { x: gradients.value && chunk(gradients.value, { axis, size: x.shape[axis + 1]?.value ?? 0 }) };
  },
});

/**
 * The inverse of `chunk`: two axes become one, without what the last chunk was filled up with.
 *
 * @param x [..., ceilDiv(length, size), size, ...] of any dtype; the size is bound
 * @param options.axis   the first of the two, counted from the end of x where negative
 * @param options.length of the axis that they become
 * @returns [..., length, ...]
 * @throws ShapeError for an axis that x does not have, or a length that does not need that many chunks
 */
export function unchunk<K extends Kind>(
  x: Tensor<K>,
  options: { readonly axis: number; readonly length: DimLike },
): Tensor<K> {
  const { axis, length } = options;
  const attributes = { axis: normalAxis(axis, x.shape.length, "unchunk"), length: Dim.of(length) };
  return apply(unchunkOp, { x }, attributes).value as Tensor<K>;
}
