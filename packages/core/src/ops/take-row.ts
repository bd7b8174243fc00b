import { Dim, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { type Attributes, apply, definePrimitive, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { cacheWrite } from "./cache-write.ts";
import { constant } from "./constant.ts";
import { checkId } from "./gather.ts";
import { reshape } from "./reshape.ts";

export const takeRowOp = /* @__PURE__ */ definePrimitive<
  "takeRow",
  { readonly x: Tensor<Kind>; readonly row: Tensor<"int"> },
  Attributes,
  { value: Tensor<Kind> }
>({
  name: "takeRow",
  inputs: ["x", "row"],
  infer({ x, row }) {
    expectKind("row", row, "int");
    const batch = x.shape[0];
    if (batch === undefined || x.shape.length < 2)
      throw new ShapeError(`x must be [B,T,...], got ${shapeText(x.shape)}`);
    expectShape("row", row, ["B"], { B: batch });
    return { value: { dtype: x.dtype, shape: x.shape.toSpliced(1, 1) } };
  },
  reference({ x, row }, _attributes, { value }) {
    const [batches = 0, rows = 0, ...rest] = x.shape;
    const size = rest.reduce((a, b) => a * b, 1);
    for (let batch = 0; batch < batches; batch++) {
      const index = row.data[batch] ?? 0;
      checkId("takeRow", index, rows);
      const start = (batch * rows + index) * size;
      value.data.set(x.data.subarray(start, start + size), batch * size);
    }
  },
  vjp({ inputs: { x, row }, gradients }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    const zeros = broadcastTo(constant(0, gradient.dtype) as Tensor, x.shape);
    return { x: cacheWrite(zeros, reshape(gradient, gradient.shape.toSpliced(1, 0, Dim.of(1))), row) };
  },
});

/**
 * One row of each batch entry: value[b] = x[b, row[b]].
 *
 * @param x   [B, T, ...]
 * @param row int32 [B], from 0 to T - 1
 * @returns [B, ...]
 * @throws ShapeError unless x has two axes and row is [B]; DTypeError unless row is int32
 */
export function takeRow<K extends Kind>(x: Tensor<K>, row: Tensor<"int">): Tensor<K> {
  return apply(takeRowOp, { x, row }, {}).value as Tensor<K>;
}
