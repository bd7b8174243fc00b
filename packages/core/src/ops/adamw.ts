import { sameShape, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { div } from "./div.ts";
import { mul } from "./mul.ts";
import { sqrt } from "./sqrt.ts";
import { sub } from "./sub.ts";
import { where } from "./where.ts";

/**
 * A parameter with its moments, and what varies from step to step. Float tensors are of the parameter's shape where no
 * other is told.
 */
export interface AdamwInputs {
  readonly [name: string]: Tensor | Tensor<"bool">;
  /** Float of any shape; the other tensors are of its dtype. */
  readonly parameter: Tensor;
  /** By the parameter, before `gradientScale`. */
  readonly gradient: Tensor;
  /** Running mean of the gradient */
  readonly firstMoment: Tensor;
  /** Running mean of its square */
  readonly secondMoment: Tensor;
  /** [] learning rate of this step */
  readonly learningRate: Tensor;
  /** [] 1 - beta1^step, with the first step 1 */
  readonly firstCorrection: Tensor;
  /** [] 1 - beta2^step */
  readonly secondCorrection: Tensor;
  /** [] factor of the gradient: clipping, accumulation, loss scale */
  readonly gradientScale: Tensor;
  /** [] where false, everything stays as it is, bit for bit */
  readonly proceed: Tensor<"bool">;
}

/** What does not change over a training. */
export interface AdamwAttributes {
  readonly [name: string]: unknown;
  /** Decay of the mean of gradients; 0 to below 1. */
  readonly beta1: number;
  /** Decay of the mean of their squares; 0 to below 1. */
  readonly beta2: number;
  /** Added to the root of the second moment. */
  readonly epsilon: number;
  /** Times the learning rate, the share of the parameter that is taken away each step. */
  readonly weightDecay: number;
}

/** What a step leaves. */
export type AdamwOutputs = {
  /** [...] */
  parameter: Tensor;
  /** [...] running mean of the gradient */
  firstMoment: Tensor;
  /** [...] running mean of its square */
  secondMoment: Tensor;
};

export const adamwOp: DefinedOp<"adamw", AdamwInputs, AdamwAttributes, AdamwOutputs> = /* @__PURE__ */ defineComposite({
  name: "adamw",
  inputs: [
    "parameter",
    "gradient",
    "firstMoment",
    "secondMoment",
    "learningRate",
    "firstCorrection",
    "secondCorrection",
    "gradientScale",
    "proceed",
  ],
  check(inputs) {
    const { parameter, gradient, firstMoment, secondMoment } = inputs;
    for (const [name, tensor] of Object.entries({ gradient, firstMoment, secondMoment })) {
      if (!sameShape(tensor.shape, parameter.shape)) {
        throw new ShapeError(
          `${name} must be ${shapeText(parameter.shape)} like parameter, got ${shapeText(tensor.shape)}`,
        );
      }
    }
    for (const name of ["learningRate", "firstCorrection", "secondCorrection", "gradientScale"] as const) {
      expectShape(name, inputs[name], []);
    }
    expectKind("proceed", inputs.proceed, "bool");
    expectShape("proceed", inputs.proceed, []);
  },
  compose(inputs, { beta1, beta2, epsilon, weightDecay }) {
    const { parameter, firstMoment, secondMoment, learningRate, firstCorrection, secondCorrection, proceed } = inputs;
    const g = mul(inputs.gradient, inputs.gradientScale);
    const m = add(mul(firstMoment, beta1), mul(g, 1 - beta1));
    const v = add(mul(secondMoment, beta2), mul(mul(g, g), 1 - beta2));
    const step = div(m, add(div(sqrt(v), sqrt(secondCorrection)), epsilon));
    const decayed = mul(parameter, sub(1, mul(learningRate, weightDecay)));
    const updated = sub(decayed, mul(step, div(learningRate, firstCorrection)));
    return {
      parameter: where(proceed, updated, parameter),
      firstMoment: where(proceed, m, firstMoment),
      secondMoment: where(proceed, v, secondMoment),
    };
  },
  vjp: { reason: "optimizer steps are not differentiated" },
  source: "Loshchilov & Hutter 2017, arXiv:1711.05101, in the order of operations of torch.optim.AdamW",
});

/**
 * One step of Adam with decoupled weight decay.
 * m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
 * p = p (1 - lr * weightDecay) - lr / c1 * m / (sqrt(v) / sqrt(c2) + epsilon)
 *
 * @param inputs  parameter, gradient and moments [...]; the rest scalars [], as in AdamwInputs
 * @param options default beta1 0.9, beta2 0.95, epsilon 1e-8, weightDecay 0
 * @returns the next parameter and moments, [...] each; where `proceed` is false, those that came
 * @throws ShapeError where a moment or the gradient is not of the parameter's shape, or the rest no scalars; DTypeError
 *   unless all but `proceed` have one dtype
 * Source: Loshchilov & Hutter 2017, arXiv:1711.05101.
 */
export function adamw(inputs: AdamwInputs, options: Partial<AdamwAttributes> = {}): AdamwOutputs {
  const { beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weightDecay = 0 } = options;
  return apply(adamwOp, inputs, { beta1, beta2, epsilon, weightDecay });
}
