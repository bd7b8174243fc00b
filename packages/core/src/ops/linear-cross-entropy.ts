import { Dim, elementsOf } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import {
  apply,
  applyOp,
  type DefinedOp,
  defineComposite,
  expectKind,
  expectSameDType,
  expectShape,
} from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { cast, wide, wideDType } from "./cast.ts";
import { concat } from "./concat.ts";
import { div } from "./div.ts";
import { exp } from "./exp.ts";
import { gather } from "./gather.ts";
import { logSumExp } from "./log-sum-exp.ts";
import { matmul, matmulOp } from "./matmul.ts";
import { countOf, mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { scatterAdd } from "./scatter-add.ts";
import { slice } from "./slice.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";

/** Hidden states, the head, and what its logits are measured against. */
export type LinearCrossEntropyInputs = {
  /** [..., M] float */
  readonly x: Tensor;
  /** [V, M] of the dtype of x */
  readonly weight: Tensor;
  /** int32 [...], from 0 to V - 1 */
  readonly targets: Tensor<"int">;
};

interface LinearCrossEntropyAttributes {
  readonly [name: string]: unknown;
  /** Rows of the weight whose logits are held at a time. */
  readonly chunk: number;
}

export const linearCrossEntropyOp: DefinedOp<
  "linearCrossEntropy",
  LinearCrossEntropyInputs,
  LinearCrossEntropyAttributes,
  { value: Tensor; gradX: Tensor; gradWeight: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "linearCrossEntropy",
  inputs: ["x", "weight", "targets"],
  check({ x, weight, targets }, { chunk }) {
    expectKind("x", x, "float");
    if (!Number.isInteger(chunk) || chunk < 1) throw new ShapeError(`expected a chunk >= 1, got ${chunk}`);
    expectKind("targets", targets, "int");
    expectSameDType(x, weight);
    const leading = x.shape.slice(0, -1).map((_, axis) => `N${axis}`);
    const sizes = expectShape("x", x, [...leading, "M"]);
    expectShape("weight", weight, ["V", "M"], sizes);
    expectShape("targets", targets, leading, sizes);
  },
  compose({ x, weight, targets }, { chunk }) {
    const rows = elementsOf(targets.shape);
    const flat = reshape(x, [rows, x.shape.at(-1) ?? Dim.of(0)]);
    const ids = reshape(targets, [rows]);
    const vocabulary = weight.shape[0] ?? Dim.of(0);
    const parts = chunksOf(weight, chunk);

    const dtype = wideDType(x);
    const logits = parts.map((part) => matmul(flat, part, { transposeB: true, dtype }));
    const total = logSumExp(concat(logits.map(logSumExp), { axis: 1 }));
    const targetRows = wide(gather(weight, ids));
    const chosen = sum(mul(wide(flat), targetRows), { axes: [1], keepDims: true });

    // The loss is a scalar, so its gradients are known here but for one factor. With several chunks the logits are
    // computed again, since keeping them would hold all of them; the tag keeps the two computations apart.
    const again = parts.length === 1 ? logits : parts.map((part) => recomputed(flat, part, dtype));
    const share = div(1, countOf(ids, [0], dtype));
    const p = again.map((part) => cast(mul(exp(sub(part, total)), share), x.dtype) as Tensor);
    const dx = p.map((part, index) => matmul(part, parts[index] ?? weight, { dtype })).reduce((a, b) => add(a, b));
    const dw = concat(
      p.map((part) => matmul(part, flat, { transposeA: true, dtype })),
      { axis: 0 },
    );
    return {
      value: mean(sub(total, chosen)),
      gradX: reshape(cast(sub(dx, mul(targetRows, share)), x.dtype) as Tensor, x.shape),
      gradWeight: sub(dw, scatterAdd(mul(wide(flat), share), ids, { rows: vocabulary })),
    };
  },
  vjp({ outputs, gradients, needs }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    return {
      x: needs.x ? mul(outputs.gradX, cast(gradient, outputs.gradX.dtype) as Tensor) : undefined,
      weight: needs.weight ? mul(outputs.gradWeight, gradient) : undefined,
    };
  },
  flops({ x, weight }) {
    return elementsOf(x.shape)
      .times(weight.shape[0] ?? 1)
      .times(6);
  },
  source: "as crossEntropy; gradients in the forward pass as in Hsu et al. 2024, arXiv:2410.10989",
});

function chunksOf(weight: Tensor, size: number): readonly Tensor[] {
  const rows = weight.shape[0]?.value;
  if (rows === undefined || rows <= size) return [weight];
  const starts = Array.from({ length: Math.ceil(rows / size) }, (_, index) => index * size);
  return starts.map((start) => slice(weight, { axis: 0, start, end: Math.min(start + size, rows) }));
}

function recomputed(x: Tensor, part: Tensor, dtype: Tensor["dtype"]): Tensor {
  const attributes = { transposeA: false, transposeB: true, ...(dtype === x.dtype ? {} : { dtype }) };
  return applyOp(matmulOp, { a: x, b: part }, attributes, "recompute").value as Tensor;
}

/**
 * crossEntropy of the logits x W^T, without ever holding all of them.
 *
 * @param inputs x [..., M], weight [V, M] and targets int32 [...]
 * @param options.chunk rows of the weight whose logits are held at a time; default 8192
 * @returns [], nats, float32 at least
 * @throws ShapeError where sizes differ or the chunk is below 1; DTypeError where the dtypes of x and weight do
 * Source: gradients in the forward pass as in Hsu et al. 2024, arXiv:2410.10989.
 */
export function linearCrossEntropy(
  inputs: LinearCrossEntropyInputs,
  options: { readonly chunk?: number } = {},
): Tensor {
  const { chunk = 8192 } = options;
  return apply(linearCrossEntropyOp, inputs, { chunk }).value;
}
