import { Dim, sameShape, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { cast } from "./cast.ts";
import { div } from "./div.ts";
import { equal } from "./equal.ts";
import { exp } from "./exp.ts";
import { iota } from "./iota.ts";
import { logSumExp } from "./log-sum-exp.ts";
import { countOf, mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { where } from "./where.ts";

/** Logits, and what they are measured against. */
export type CrossEntropyInputs = {
  /** [..., V] float */
  readonly logits: Tensor;
  /** int32 [...], from 0 to V - 1 */
  readonly targets: Tensor<"int">;
};

/** True at the target's place: [..., V]. */
function isTarget({ logits, targets }: CrossEntropyInputs): Tensor<"bool"> {
  return equal(iota(logits.shape.at(-1) ?? Dim.of(0)), reshape(targets, [...targets.shape, 1]));
}

export const crossEntropyOp: DefinedOp<
  "crossEntropy",
  CrossEntropyInputs,
  Record<string, never>,
  { value: Tensor; logSumExp: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "crossEntropy",
  inputs: ["logits", "targets"],
  check({ logits, targets }) {
    expectKind("logits", logits, "float");
    expectKind("targets", targets, "int");
    if (!sameShape(logits.shape.slice(0, -1), targets.shape)) {
      throw new ShapeError(
        `expected logits [..., V] for targets ${shapeText(targets.shape)}, got ${shapeText(logits.shape)}`,
      );
    }
  },
  compose(inputs) {
    const { logits } = inputs;
    const total = logSumExp(logits);
    const chosen = sum(where(isTarget(inputs), logits, 0), { axes: [-1] });
    return { value: mean(sub(reshape(total, chosen.shape), chosen)), logSumExp: total };
  },
  vjp({ inputs, outputs, gradients }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    const { logits, targets } = inputs;
    const p = exp(sub(logits, outputs.logSumExp));
    const share = div(
      gradient,
      countOf(
        targets,
        targets.shape.map((_, axis) => axis),
        logits.dtype,
      ),
    );
    return { logits: mul(sub(p, cast(isTarget(inputs), logits.dtype) as Tensor), share) };
  },
});

/**
 * Mean over all positions of -log softmax(logits)[target], in nats.
 *
 * @param inputs logits [..., V] and targets int32 [...]
 * @returns []
 * @throws ShapeError unless targets are logits without V; DTypeError unless logits are floats and targets int32
 */
export function crossEntropy(inputs: CrossEntropyInputs): Tensor {
  return apply(crossEntropyOp, inputs, {}).value;
}
