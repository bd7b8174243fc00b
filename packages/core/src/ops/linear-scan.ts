import { Dim, sameShape, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, expectKind, expectSameDType } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { concat } from "./concat.ts";
import { mul } from "./mul.ts";
import { pad } from "./pad.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";

interface ScanInputs {
  readonly [name: string]: Tensor | undefined;
  readonly a: Tensor;
  readonly b: Tensor;
  readonly h0?: Tensor | undefined;
}

interface ScanAttributes {
  readonly [name: string]: unknown;
  readonly reverse: boolean;
}

export const linearScanOp = /* @__PURE__ */ definePrimitive<"linearScan", ScanInputs, ScanAttributes>({
  name: "linearScan",
  inputs: ["a", "b", "h0?"],
  infer({ a, b, h0 }) {
    expectKind("a", a, "float");
    expectSameDType(a, b);
    if (a.shape.length < 2 || !sameShape(a.shape, b.shape)) {
      throw new ShapeError(`a and b must both be [B,T,...], got ${shapeText(a.shape)} and ${shapeText(b.shape)}`);
    }
    if (h0) expectSameDType(a, h0);
    if (h0 && !sameShape(h0.shape, a.shape.toSpliced(1, 1))) {
      throw new ShapeError(`h0 must be ${shapeText(a.shape.toSpliced(1, 1))}, got ${shapeText(h0.shape)}`);
    }
    return { value: { dtype: a.dtype, shape: a.shape } };
  },
  reference({ a, b, h0 }, { reverse }, { value }) {
    const [batches = 0, length = 0, ...rest] = a.shape;
    const row = rest.reduce((x, y) => x * y, 1);
    for (let batch = 0; batch < batches; batch++) {
      for (let i = 0; i < row; i++) {
        let h = h0?.data[batch * row + i] ?? 0;
        for (let step = 0; step < length; step++) {
          const index = (batch * length + (reverse ? length - 1 - step : step)) * row + i;
          h = (a.data[index] ?? 0) * h + (b.data[index] ?? 0);
          value.data[index] = h;
        }
      }
    }
  },
  vjp({ inputs: { a, h0 }, attributes: { reverse }, outputs: { value }, gradients, needs }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    // The gradient runs the other way with the coefficients moved by one: dh_t = g_t + a_{t+1} dh_{t+1}.
    const length = a.shape[1] ?? Dim.of(0);
    // Padded before it is cut, so that no steps at all are no special case.
    const neighbour = (x: Tensor, forward: boolean) =>
      forward
        ? slice(pad(x, { axis: 1, after: 1 }), { axis: 1, start: 1 })
        : slice(pad(x, { axis: 1, before: 1 }), { axis: 1, end: length });
    const db = linearScan({ a: neighbour(a, !reverse), b: gradient }, { reverse: !reverse });
    const first = (x: Tensor) =>
      reverse
        ? slice(pad(x, { axis: 1, before: 1 }), { axis: 1, start: length })
        : slice(pad(x, { axis: 1, after: 1 }), { axis: 1, end: 1 });
    const previous = () => {
      if (h0 === undefined) return neighbour(value, reverse);
      const initial = reshape(h0, h0.shape.toSpliced(1, 0, Dim.of(1)));
      return reverse
        ? slice(concat([value, initial], { axis: 1 }), { axis: 1, start: 1 })
        : slice(concat([initial, value], { axis: 1 }), { axis: 1, end: length });
    };
    return {
      a: needs.a ? mul(db, previous()) : undefined,
      b: needs.b ? db : undefined,
      h0: h0 && needs.h0 ? reshape(mul(first(a), first(db)), h0.shape) : undefined,
    };
  },
});

/**
 * Linear recurrence over time: h_t = a_t * h_{t-1} + b_t.
 *
 * @param inputs.a  [B, T, ...] factors
 * @param inputs.b  [B, T, ...] what is added
 * @param inputs.h0 [B, ...] state before the first step; default zeros
 * @param options.reverse run from the last step to the first; default false
 * @returns [B, T, ...] all states
 * @throws ShapeError unless a and b have one shape and h0 that shape without T; DTypeError where the dtypes differ
 */
export function linearScan(
  inputs: { readonly a: Tensor; readonly b: Tensor; readonly h0?: Tensor | undefined },
  options: { readonly reverse?: boolean } = {},
): Tensor {
  const { reverse = false } = options;
  return apply(linearScanOp, { ...inputs }, { reverse }).value;
}
