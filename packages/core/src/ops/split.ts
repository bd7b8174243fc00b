import { Dim, type DimLike } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, normalAxis } from "../graph/op.ts";
import type { AnyTensor, Tensor } from "../graph/tensor.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { concat } from "./concat.ts";
import { constant } from "./constant.ts";
import { slice } from "./slice.ts";

interface SplitAttributes {
  readonly [name: string]: unknown;
  readonly axis: number;
  readonly sizes: readonly Dim[];
}

/** Slices side by side, whose gradients are joined; those of slices taken one by one would be padded and added. */
export const splitOp: DefinedOp<
  "split",
  { readonly x: Tensor<Kind> },
  SplitAttributes,
  { readonly [index: string]: Tensor<Kind> }
> = /* @__PURE__ */ defineComposite({
  name: "split",
  inputs: ["x"],
  check({ x }, { axis, sizes }) {
    const total = sizes.reduce((sum, size) => sum.plus(size), Dim.of(0));
    if (!x.shape[axis]?.equals(total)) {
      throw new ShapeError(`expected parts of ${x.shape[axis]} places on axis ${axis}, got ${sizes.join(" + ")}`);
    }
  },
  compose({ x }, { axis, sizes }) {
    let end = Dim.of(0);
    const parts = sizes.map((size) => {
      const start = end;
      end = end.plus(size);
      return slice(x, { axis, start, end });
    });
    return Object.fromEntries(parts.map((part, index) => [String(index), part]));
  },
  vjp({ outputs, attributes: { axis }, gradients }) {
    const parts = Object.entries(outputs).map(([index, part]) => gradients[index] ?? zeros(part));
    return { x: concat(parts, { axis }) };
  },
});

function zeros({ dtype, shape }: AnyTensor): Tensor {
  return broadcastTo(constant(0, dtype), shape) as Tensor;
}

/**
 * Parts of an axis, one after another, that together are all of it.
 *
 * @param x [..., N, ...] of any dtype
 * @param options.axis  that of N, counted from the end where negative
 * @param options.sizes N_1, N_2, ... with N as their sum
 * @returns as many as there are sizes, [..., N_i, ...]
 * @throws ShapeError unless the sizes add up to N
 */
export function split<K extends Kind, const N extends readonly DimLike[]>(
  x: Tensor<K>,
  options: { readonly axis: number; readonly sizes: N },
): { readonly [I in keyof N]: Tensor<K> } {
  const sizes = options.sizes.map((size) => Dim.of(size));
  const axis = normalAxis(options.axis, x.shape.length, "split");
  if (sizes.length === 1 && sizes[0]?.equals(x.shape[axis] ?? 0)) return [x] as { [I in keyof N]: Tensor<K> };
  return Object.values(apply(splitOp, { x }, { axis, sizes })) as { [I in keyof N]: Tensor<K> };
}
