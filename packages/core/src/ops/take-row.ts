import { Dim, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { type Attributes, apply, definePrimitive, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { cacheWrite } from "./cache-write.ts";
import { constant } from "./constant.ts";
import { checkId } from "./gather.ts";
import { reshape } from "./reshape.ts";

export const takeRowOp = /* @__PURE__ */ definePrimitive<
  "takeRow",
  { readonly x: Tensor<Kind>; readonly row: Tensor<"int">; readonly pages?: Tensor<"int"> | undefined },
  Attributes,
  { value: Tensor<Kind> }
>({
  name: "takeRow",
  inputs: ["x", "row", "pages?"],
  infer({ x, row, pages }) {
    expectKind("row", row, "int");
    const [batch] = x.shape;
    if (batch === undefined || x.shape.length < 2) {
      throw new ShapeError(`x must be [${pages ? "N,P" : "B,T"},...], got ${shapeText(x.shape)}`);
    }
    if (!pages) {
      expectShape("row", row, ["B"], { B: batch });
      return { value: { dtype: x.dtype, shape: x.shape.toSpliced(1, 1) } };
    }
    expectKind("pages", pages, "int");
    const sizes = expectShape("pages", pages, ["B", "M"], expectShape("row", row, ["B"]));
    return { value: { dtype: x.dtype, shape: x.shape.toSpliced(0, 2, sizes.B ?? batch) } };
  },
  reference({ x, row, pages }, _attributes, { value }) {
    const [count = 0, rows = 0, ...rest] = x.shape;
    const size = rest.reduce((a, b) => a * b, 1);
    const perSequence = pages ? (pages.shape[1] ?? 0) : 1;
    row.data.forEach((index, batch) => {
      checkId("takeRow", index, perSequence * rows);
      const place = batch * perSequence + Math.floor(index / rows);
      const page = pages ? (pages.data[place] ?? 0) : place;
      checkId("takeRow", page, count);
      const start = (page * rows + (index % rows)) * size;
      value.data.set(x.data.subarray(start, start + size), batch * size);
    });
  },
  vjp({ inputs: { x, row, pages }, gradients }) {
    if (pages) throw new GraphError("takeRow: has no gradient where it reads a cache (pages)");
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    const zeros = broadcastTo(constant(0, gradient.dtype) as Tensor, x.shape);
    return { x: cacheWrite(zeros, reshape(gradient, gradient.shape.toSpliced(1, 0, Dim.of(1))), row) };
  },
});

/**
 * One row of each batch entry: value[b] = x[b, row[b]], or that row of sequence b in pages (see `cacheWrite`).
 *
 * @param x     [B, T, ...], or [N, P, ...] in pages
 * @param row   int32 [B], from 0 to T - 1 (M P - 1 in pages)
 * @param pages int32 [B, M], from 0 to N - 1; default none
 * @returns [B, ...]
 * @throws ShapeError unless x has two axes, row is [B] and pages [B, M]; DTypeError unless those are int32
 */
export function takeRow<K extends Kind>(x: Tensor<K>, row: Tensor<"int">, pages?: Tensor<"int">): Tensor<K> {
  return apply(takeRowOp, { x, row, pages }, {}).value as Tensor<K>;
}
