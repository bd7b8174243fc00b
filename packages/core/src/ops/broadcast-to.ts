import { Dim, type DimLike, type Shape, sameShape, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { broadcastIndex, broadcastsTo, sumTo } from "./elementwise.ts";

interface BroadcastAttributes {
  readonly [name: string]: unknown;
  readonly shape: Shape;
}

export const broadcastToOp = /* @__PURE__ */ definePrimitive<
  "broadcastTo",
  { readonly x: Tensor<Kind> },
  BroadcastAttributes,
  { value: Tensor<Kind> }
>({
  name: "broadcastTo",
  inputs: ["x"],
  infer({ x }, { shape }) {
    if (!broadcastsTo(x.shape, shape)) {
      throw new ShapeError(`expected a shape that ${shapeText(x.shape)} broadcasts to, got ${shapeText(shape)}`);
    }
    return { value: { dtype: x.dtype, shape } };
  },
  reference({ x }, _attributes, { value }) {
    const index = broadcastIndex(x.shape, value.shape);
    for (let i = 0; i < value.data.length; i++) value.data[i] = x.data[index(i)] ?? 0;
  },
  vjp: ({ inputs: { x }, gradients }) => ({ x: gradients.value && sumTo(gradients.value, x.shape) }),
});

/**
 * x repeated along new axes in front and along axes of size 1.
 *
 * @param x     [...] of any dtype
 * @param shape sizes of the result, as many as x has or more
 * @returns [...shape]
 * @throws ShapeError where x does not broadcast to the shape
 */
export function broadcastTo<K extends Kind>(x: Tensor<K>, shape: readonly DimLike[]): Tensor<K> {
  const target = shape.map((size) => Dim.of(size));
  return sameShape(x.shape, target) ? x : (apply(broadcastToOp, { x }, { shape: target }).value as Tensor<K>);
}
