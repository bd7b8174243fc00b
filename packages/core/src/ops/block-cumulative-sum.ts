import { Dim, sameShape, shapeText } from "../dim.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { apply, definePrimitive, expectKind, expectSameDType, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

interface BlockInputs {
  readonly [name: string]: Tensor | Tensor<"int"> | undefined;
  readonly x: Tensor;
  readonly before?: Tensor | undefined;
  readonly start?: Tensor<"int"> | undefined;
}

interface BlockAttributes {
  readonly [name: string]: unknown;
  readonly size: number;
  readonly reverse: boolean;
}

export const blockCumulativeSumOp = /* @__PURE__ */ definePrimitive<"blockCumulativeSum", BlockInputs, BlockAttributes>(
  {
    name: "blockCumulativeSum",
    inputs: ["x", "before?", "start?"],
    infer({ x, before, start }, { size, reverse }) {
      expectKind("x", x, "float");
      if (x.shape.length < 2) throw new ShapeError(`x must be [B,T,...], got ${shapeText(x.shape)}`);
      if (!Number.isInteger(size) || size < 1) throw new ShapeError(`expected a block size >= 1, got ${size}`);
      if ((before === undefined) !== (start === undefined)) throw new ShapeError("before and start go together");
      if (start) {
        expectKind("start", start, "int");
        expectShape("start", start, ["B"], { B: x.shape[0] ?? Dim.of(0) });
      }
      if (before) expectSameDType(x, before);
      if (start && reverse) throw new ShapeError("a reverse sum takes no start");
      if (before && !sameShape(before.shape, x.shape.toSpliced(1, 1))) {
        throw new ShapeError(`before must be ${shapeText(x.shape.toSpliced(1, 1))}, got ${shapeText(before.shape)}`);
      }
      return { value: { dtype: x.dtype, shape: x.shape } };
    },
    reference({ x, before, start }, { size, reverse }, { value }) {
      const [batches = 0, length = 0, ...rest] = x.shape;
      const row = rest.reduce((a, b) => a * b, 1);
      for (let batch = 0; batch < batches; batch++) {
        const origin = start?.data[batch] ?? 0;
        for (let i = 0; i < row; i++) {
          let total = before?.data[batch * row + i] ?? 0;
          for (let step = 0; step < length; step++) {
            const t = reverse ? length - 1 - step : step;
            const index = (batch * length + t) * row + i;
            const restarts = reverse ? (t + 1) % size === 0 : (origin + t) % size === 0;
            total = (restarts ? 0 : total) + (x.data[index] ?? 0);
            value.data[index] = total;
          }
        }
      }
    },
    vjp({ inputs: { start }, attributes: { size, reverse }, gradients }) {
      if (start) throw new GraphError("blockCumulativeSum: has no gradient where it continues from a start");
      return { x: gradients.value && blockCumulativeSum({ x: gradients.value }, { size, reverse: !reverse }) };
    },
  },
);

/**
 * Running sum over time that begins anew at every `size`-th position, so that no sum is long.
 * y_t = x_t + (0 where position t is a multiple of `size`, else y_{t-1})
 *
 * @param inputs.x       [B, T, ...] float
 * @param inputs.before  [B, ...] the sum at the position before the first; default zeros
 * @param inputs.start   int32 [B] position of the first row; default zeros. Given together with `before`
 * @param options.size    positions per block
 * @param options.reverse sum from the end of each block; default false
 * @returns [B, T, ...]
 * @throws ShapeError for a size below 1, `before` without `start`, or `start` with `reverse`; DTypeError unless x is a
 *   float
 */
export function blockCumulativeSum(
  inputs: { readonly x: Tensor; readonly before?: Tensor | undefined; readonly start?: Tensor<"int"> | undefined },
  options: { readonly size: number; readonly reverse?: boolean },
): Tensor {
  const { size, reverse = false } = options;
  return apply(blockCumulativeSumOp, { ...inputs }, { size, reverse }).value;
}
