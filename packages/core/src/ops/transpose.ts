import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

interface TransposeAttributes {
  readonly [name: string]: unknown;
  readonly permutation: readonly number[];
}

export const transposeOp = /* @__PURE__ */ definePrimitive<
  "transpose",
  { readonly x: Tensor<Kind> },
  TransposeAttributes,
  { value: Tensor<Kind> }
>({
  name: "transpose",
  inputs: ["x"],
  infer({ x }, { permutation }) {
    const rank = x.shape.length;
    const seen = new Set(permutation);
    if (permutation.length !== rank || seen.size !== rank || permutation.some((axis) => !x.shape[axis])) {
      throw new ShapeError(`expected a permutation of 0 to ${rank - 1}, got [${permutation}]`);
    }
    return { value: { dtype: x.dtype, shape: permutation.flatMap((axis) => x.shape[axis] ?? []) } };
  },
  reference({ x }, { permutation }, { value }) {
    const strides = new Array<number>(x.shape.length).fill(1);
    for (let axis = x.shape.length - 2; axis >= 0; axis--) {
      strides[axis] = (strides[axis + 1] ?? 1) * (x.shape[axis + 1] ?? 1);
    }
    for (let i = 0; i < value.data.length; i++) {
      let rest = i;
      let index = 0;
      for (let axis = value.shape.length - 1; axis >= 0; axis--) {
        const size = value.shape[axis] ?? 1;
        index += (rest % size) * (strides[permutation[axis] ?? 0] ?? 0);
        rest = Math.floor(rest / size);
      }
      value.data[i] = x.data[index] ?? 0;
    }
  },
  vjp({ attributes: { permutation }, gradients }) {
    const inverse = permutation.map((_, axis) => permutation.indexOf(axis));
    return { x: gradients.value && transpose(gradients.value, inverse) };
  },
});

/**
 * Axes in another order: axis i of the result is axis permutation[i] of x.
 *
 * @param x [...] of any dtype
 * @param permutation every axis of x once
 * @returns [...]
 * @throws ShapeError unless it is a permutation of 0 to rank - 1
 */
export function transpose<K extends Kind>(x: Tensor<K>, permutation: readonly number[]): Tensor<K> {
  return apply(transposeOp, { x }, { permutation }).value as Tensor<K>;
}
