import { Dim, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, defineComposite, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { cast, wide } from "./cast.ts";
import { concat } from "./concat.ts";
import { broadcastsTo, sumTo } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { sub } from "./sub.ts";

export const ropeOp = /* @__PURE__ */ defineComposite<
  "rope",
  { readonly x: Tensor; readonly cos: Tensor; readonly sin: Tensor },
  Record<string, never>
>({
  name: "rope",
  inputs: ["x", "cos", "sin"],
  check({ x, cos, sin }) {
    for (const [name, tensor] of Object.entries({ x, cos, sin })) expectKind(name, tensor, "float");
    const width = x.shape.at(-1);
    const half = cos.shape.at(-1);
    if (!width || !half || !width.equals(half.times(2)) || !sin.shape.at(-1)?.equals(half)) {
      throw new ShapeError(
        `expected x [...,D] with cos and sin [...,D/2], got ${shapeText(x.shape)}, ${shapeText(cos.shape)}, ${shapeText(sin.shape)}`,
      );
    }
    const shape = [...x.shape.slice(0, -1), half];
    for (const [name, table] of Object.entries({ cos, sin })) {
      if (!broadcastsTo(table.shape, shape)) {
        throw new ShapeError(
          `${name} must broadcast to the pairs of x ${shapeText(shape)}, got ${shapeText(table.shape)}`,
        );
      }
    }
  },
  compose({ x, cos, sin }) {
    const [a, b] = pairs(wide(x));
    const [c, s] = [wide(cos), wide(sin)];
    return { value: cast(unpairs(sub(mul(a, c), mul(b, s)), add(mul(a, s), mul(b, c))), x.dtype) as Tensor };
  },
  vjp({ inputs: { x, cos, sin }, gradients, needs }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    const angles = () => {
      const [a, b] = pairs(wide(x));
      const [ga, gb] = pairs(wide(gradient));
      return {
        cos: sumTo(add(mul(a, ga), mul(b, gb)), cos.shape),
        sin: sumTo(sub(mul(a, gb), mul(b, ga)), sin.shape),
      };
    };
    return { x: needs.x ? rope(gradient, cos, neg(sin)) : undefined, ...(needs.cos || needs.sin ? angles() : {}) };
  },
  source: "Su et al. 2021, arXiv:2104.09864; interleaved pairs as there",
});

/** First and second elements of the pairs (x0,x1), (x2,x3), ... of the last axis. */
export function pairs(x: Tensor): readonly [Tensor, Tensor] {
  const half = (x.shape.at(-1) ?? Dim.of(0)).ceilDiv(2);
  const shape = [...x.shape.slice(0, -1), half];
  const paired = reshape(x, [...shape, 2]);
  const part = (start: number) => reshape(slice(paired, { axis: -1, start, end: start + 1 }), shape);
  return [part(0), part(1)];
}

function unpairs(a: Tensor, b: Tensor): Tensor {
  const column = (x: Tensor) => reshape(x, [...x.shape, 1]);
  const width = (a.shape.at(-1) ?? Dim.of(0)).times(2);
  return reshape(concat([column(a), column(b)], { axis: -1 }), [...a.shape.slice(0, -1), width]);
}

/**
 * Rotates the interleaved pairs of the last axis: (a, b) -> (a cos - b sin, a sin + b cos).
 * Serves positional embeddings as well as the data-dependent rotation of SISA.
 *
 * @param x   [..., D] with D even
 * @param cos [..., D/2], broadcast against the pairs of x
 * @param sin [..., D/2]; float32 tables may stand beside a narrower x
 * @returns [..., D], dtype of x
 * @throws ShapeError where D is odd or the tables do not fit; DTypeError unless all are floats
 * Source: Su et al. 2021, arXiv:2104.09864.
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  return apply(ropeOp, { x, cos, sin }, {}).value;
}
