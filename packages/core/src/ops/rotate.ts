import { shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, defineComposite, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { cast } from "./cast.ts";
import { cos } from "./cos.ts";
import { broadcastsTo, sumTo } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { pairs, rope } from "./rope.ts";
import { sin } from "./sin.ts";
import { sub } from "./sub.ts";

export const rotateOp = /* @__PURE__ */ defineComposite<
  "rotate",
  { readonly x: Tensor; readonly angle: Tensor },
  Record<string, never>
>({
  name: "rotate",
  inputs: ["x", "angle"],
  check({ x, angle }) {
    for (const [name, tensor] of Object.entries({ x, angle })) expectKind(name, tensor, "float");
    const [width, half] = [x.shape.at(-1), angle.shape.at(-1)];
    const fits = width && half && width.equals(half.times(2));
    if (!fits || !broadcastsTo(angle.shape, [...x.shape.slice(0, -1), half])) {
      throw new ShapeError(
        `expected x [...,D] with angle [...,D/2] for its pairs, got ${shapeText(x.shape)} and ${shapeText(angle.shape)}`,
      );
    }
  },
  compose({ x, angle }) {
    return { value: rope(x, cos(angle), sin(angle)) };
  },
  vjp({ inputs: { x, angle }, outputs: { value }, gradients, needs }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    return {
      x: needs.x ? rope(cast(gradient, x.dtype) as Tensor, cos(angle), neg(sin(angle))) : undefined,
      angle: needs.angle ? sumTo(crossOfPairs(value, gradient, angle), angle.shape) : undefined,
    };
  },
});

/**
 * Gradient by the angle of rotated pairs: the cross product of each pair with its gradient, a db - b da.
 * @returns [..., D/2] for both [..., D], dtype of the angle
 */
export function crossOfPairs(rotated: Tensor, gradient: Tensor, { dtype }: Tensor): Tensor {
  const part = (x: Tensor) => pairs(cast(x, dtype) as Tensor);
  const [[a, b], [da, db]] = [part(rotated), part(gradient)];
  return sub(mul(a, db), mul(b, da));
}

/**
 * Turns the interleaved pairs of the last axis by angles: (a, b) -> (a cos - b sin, a sin + b cos).
 *
 * @param x     [..., D] with D even
 * @param angle [..., D/2] radians, broadcast against the pairs of x; float32 may stand beside a narrower x
 * @returns [..., D], dtype of x
 * @throws ShapeError where D is odd or the angles do not fit; DTypeError unless both are floats
 */
export function rotate(x: Tensor, angle: Tensor): Tensor {
  return apply(rotateOp, { x, angle }, {}).value;
}
