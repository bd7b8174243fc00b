import { checkSizes, Dim, type DimLike, elementsOf, type Shape, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

interface ReshapeAttributes {
  readonly [name: string]: unknown;
  readonly shape: Shape;
}

export const reshapeOp = /* @__PURE__ */ definePrimitive<
  "reshape",
  { readonly x: Tensor<Kind> },
  ReshapeAttributes,
  { value: Tensor<Kind> }
>({
  name: "reshape",
  inputs: ["x"],
  infer({ x }, { shape }) {
    checkSizes(shape);
    if (!elementsOf(x.shape).equals(elementsOf(shape))) {
      throw new ShapeError(
        `expected ${elementsOf(x.shape)} elements for ${shapeText(x.shape)}, got ${elementsOf(shape)} in ${shapeText(shape)}`,
      );
    }
    return { value: { dtype: x.dtype, shape } };
  },
  reference({ x }, _attributes, { value }) {
    value.data.set(x.data);
  },
  vjp: ({ inputs: { x }, gradients }) => ({ x: gradients.value && reshape(gradients.value, x.shape) }),
});

/**
 * The same elements, row major, in another shape.
 *
 * @param x [...] of any dtype
 * @param shape sizes whose product is that of x's
 * @returns [...shape]
 * @throws ShapeError where the number of elements differs
 */
export function reshape<K extends Kind>(x: Tensor<K>, shape: readonly DimLike[]): Tensor<K> {
  const target = shape.map((size) => Dim.of(size));
  const same = target.length === x.shape.length && target.every((size, axis) => x.shape[axis]?.equals(size));
  return same ? x : (apply(reshapeOp, { x }, { shape: target }).value as Tensor<K>);
}
