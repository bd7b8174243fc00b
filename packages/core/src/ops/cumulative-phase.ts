import { sameShape, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { type Attributes, apply, definePrimitive, expectKind, expectSameDType } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { cumulativeSum } from "./cumulative-sum.ts";
import { sum } from "./sum.ts";

interface PhaseInputs {
  readonly [name: string]: Tensor | undefined;
  readonly x: Tensor;
  readonly before?: Tensor | undefined;
}

export const cumulativePhaseOp = /* @__PURE__ */ definePrimitive<"cumulativePhase", PhaseInputs, Attributes>({
  name: "cumulativePhase",
  inputs: ["x", "before?"],
  infer({ x, before }) {
    expectKind("x", x, "float");
    if (x.shape.length < 2) throw new ShapeError(`x must be [B,T,...], got ${shapeText(x.shape)}`);
    if (before) expectSameDType(x, before);
    if (before && !sameShape(before.shape, x.shape.toSpliced(1, 1))) {
      throw new ShapeError(`before must be ${shapeText(x.shape.toSpliced(1, 1))}, got ${shapeText(before.shape)}`);
    }
    return { value: { dtype: x.dtype, shape: x.shape } };
  },
  reference({ x, before }, _attributes, { value }) {
    const [batches = 0, length = 0, ...rest] = x.shape;
    const row = rest.reduce((a, b) => a * b, 1);
    const turn = 2 * Math.PI;
    for (let batch = 0; batch < batches; batch++) {
      for (let i = 0; i < row; i++) {
        let phase = before?.data[batch * row + i] ?? 0;
        for (let t = 0; t < length; t++) {
          const index = (batch * length + t) * row + i;
          phase += x.data[index] ?? 0;
          phase -= turn * Math.floor(phase / turn);
          value.data[index] = phase;
        }
      }
    }
  },
  vjp({ inputs: { before }, gradients }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    return {
      x: cumulativeSum(gradient, { axis: 1, reverse: true }),
      before: before && sum(gradient, { axes: [1] }),
    };
  },
});

/**
 * Running sum of angles over time, modulo a full turn: Phi_t = (before + x_1 + ... + x_t) mod 2 pi.
 * However long the sum, a backend must keep the angle within 5e-4 rad for float32 inputs up to T = 8192; those with
 * float64 sum in it, the others carry the angle from block to block modulo 2 pi.
 *
 * @param inputs.x      [B, T, ...] radians
 * @param inputs.before [B, ...] angle before the first row; default zeros
 * @returns [B, T, ...] radians from 0 to 2 pi. A place and the place one turn further are the same angle.
 * @throws ShapeError unless `before` is x without T; DTypeError unless x is a float
 */
export function cumulativePhase(inputs: { readonly x: Tensor; readonly before?: Tensor | undefined }): Tensor {
  return apply(cumulativePhaseOp, { ...inputs }, {}).value;
}
