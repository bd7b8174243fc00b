import { Dim } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, normalAxis } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { unchunk } from "./unchunk.ts";

interface ChunkAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
  readonly size: number;
}

export const chunkOp = /* @__PURE__ */ definePrimitive<
  "chunk",
  { readonly x: Tensor<Kind> },
  ChunkAttributes,
  { value: Tensor<Kind> }
>({
  name: "chunk",
  inputs: ["x"],
  infer({ x }, { axis, size }) {
    if (!Number.isInteger(size) || size < 1) throw new ShapeError(`expected a chunk size >= 1, got ${size}`);
    const length = x.shape[axis] ?? Dim.of(0);
    return { value: { dtype: x.dtype, shape: x.shape.toSpliced(axis, 1, length.ceilDiv(size), Dim.of(size)) } };
  },
  reference({ x }, { axis }, { value }) {
    const outer = x.shape.slice(0, axis).reduce((a, b) => a * b, 1);
    const length = x.shape.slice(axis).reduce((a, b) => a * b, 1);
    const stride = value.shape.slice(axis).reduce((a, b) => a * b, 1);
    for (let i = 0; i < outer; i++) value.data.set(x.data.subarray(i * length, (i + 1) * length), i * stride);
  },
  vjp({ inputs: { x }, attributes: { axis }, gradients }) {
    return { x: gradients.value && unchunk(gradients.value, { axis, length: x.shape[axis] ?? Dim.of(0) }) };
  },
});

/**
 * An axis split into chunks; the last chunk is filled up with zeros (false).
 *
 * @param x [..., T, ...] of any dtype
 * @param options.axis that of T, counted from the end where negative
 * @param options.size of a chunk, at least 1
 * @returns [..., ceilDiv(T, size), size, ...]
 * @throws ShapeError for an axis that x does not have, or a size below 1
 */
export function chunk<K extends Kind>(
  x: Tensor<K>,
  options: { readonly axis: number; readonly size: number },
): Tensor<K> {
  const { axis, size } = options;
  return apply(chunkOp, { x }, { axis: normalAxis(axis, x.shape.length, "chunk"), size }).value as Tensor<K>;
}
