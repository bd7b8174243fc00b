import { sameShape, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { mul } from "./mul.ts";
import { sigmoid } from "./sigmoid.ts";
import { silu } from "./silu.ts";
import { sub } from "./sub.ts";

interface SwigluInputs {
  readonly [name: string]: Tensor;
  readonly gate: Tensor;
  readonly up: Tensor;
}

export const swigluOp = /* @__PURE__ */ defineComposite<"swiglu", SwigluInputs, Record<string, never>>({
  name: "swiglu",
  inputs: ["gate", "up"],
  check({ gate, up }) {
    expectKind("gate", gate, "float");
    if (!sameShape(gate.shape, up.shape)) {
      throw new ShapeError(`up must be ${shapeText(gate.shape)} like gate, got ${shapeText(up.shape)}`);
    }
  },
  compose: ({ gate, up }) => ({ value: mul(silu(gate), up) }),
  vjp({ inputs: { gate, up }, gradients }) {
    return gradients.value ? apply(swigluBackwardOp, { gate, up, gradient: gradients.value }, {}) : {};
  },
  source: "Shazeer 2020, arXiv:2002.05202",
});

/** Gradients of swiglu by gate and up, from that by its result, `gradient`; [..., F] all. */
export const swigluBackwardOp: DefinedOp<
  "swigluBackward",
  SwigluInputs & { readonly gradient: Tensor },
  Record<string, never>,
  { gate: Tensor; up: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "swigluBackward",
  inputs: ["gate", "up", "gradient"],
  compose({ gate, up, gradient }) {
    const s = sigmoid(gate);
    const activated = mul(gate, s);
    // d silu = s + x s (1 - s)
    const slope = add(s, mul(activated, sub(1, s)));
    return { gate: mul(mul(gradient, up), slope), up: mul(gradient, activated) };
  },
});

/**
 * Gated activation: silu(gate) * up.
 *
 * @param gate [..., F]
 * @param up   [..., F]
 * @returns [..., F]
 * @throws ShapeError where the shapes differ; DTypeError unless both are floats of one dtype
 * Source: Shazeer 2020, arXiv:2002.05202.
 */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return apply(swigluOp, { gate, up }, {}).value;
}
