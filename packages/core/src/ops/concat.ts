import { Dim, sameShape, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, expectSameDType, normalAxis } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { slice } from "./slice.ts";

type ConcatInputs = { readonly [index: string]: Tensor<Kind> };

interface ConcatAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
}

export const concatOp = /* @__PURE__ */ definePrimitive<
  "concat",
  ConcatInputs,
  ConcatAttributes,
  { value: Tensor<Kind> }
>({
  name: "concat",
  inputs: "...",
  infer(inputs, { axis }) {
    const [first, ...rest] = Object.values(inputs);
    if (first === undefined) throw new ShapeError("expected at least one tensor, got none");
    let total = first.shape[axis] ?? Dim.of(0);
    for (const other of rest) {
      expectSameDType(first, other);
      const size = other.shape[axis] ?? Dim.of(0);
      const aligned =
        other.shape.length === first.shape.length &&
        sameShape(other.shape.with(axis, total), first.shape.with(axis, total));
      if (!aligned) {
        throw new ShapeError(
          `expected equal shapes except on axis ${axis}, got ${shapeText(first.shape)} and ${shapeText(other.shape)}`,
        );
      }
      total = total.plus(size);
    }
    return { value: { dtype: first.dtype, shape: first.shape.with(axis, total) } };
  },
  reference(inputs, { axis }, { value }) {
    const outer = value.shape.slice(0, axis).reduce((a, b) => a * b, 1);
    const row = value.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const stride = (value.shape[axis] ?? 0) * row;
    let offset = 0;
    for (const { data, shape } of Object.values(inputs)) {
      const length = (shape[axis] ?? 0) * row;
      for (let i = 0; i < outer; i++) value.data.set(data.subarray(i * length, (i + 1) * length), i * stride + offset);
      offset += length;
    }
  },
  vjp({ inputs, attributes: { axis }, gradients, needs }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    let start = Dim.of(0);
    return Object.fromEntries(
      Object.entries(inputs).map(([index, tensor]) => {
        const end = start.plus(tensor.shape[axis] ?? 0);
        const part = needs[index] ? slice(gradient, { axis, start, end }) : undefined;
        start = end;
        return [index, part];
      }),
    );
  },
});

/**
 * Tensors joined along an axis.
 *
 * @param tensors at least one [..., N_i, ...], of one dtype and of equal sizes but for that axis
 * @param options.axis that of N_i, counted from the end where negative
 * @returns [..., N_1 + N_2 + ..., ...]
 * @throws ShapeError where there is no tensor or other sizes differ; DTypeError where the dtypes differ
 */
export function concat<K extends Kind>(tensors: readonly Tensor<K>[], options: { readonly axis: number }): Tensor<K> {
  const { axis } = options;
  const [first, second] = tensors;
  if (first !== undefined && second === undefined) return first;
  if (first === undefined) throw new ShapeError("concat: expected at least one tensor, got none");
  const inputs = Object.fromEntries(tensors.map((tensor, index) => [String(index), tensor]));
  return apply(concatOp, inputs, { axis: normalAxis(axis, first.shape.length, "concat") }).value as Tensor<K>;
}
