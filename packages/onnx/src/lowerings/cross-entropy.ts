import { crossEntropyOp, Dim, elementsOf, linearCrossEntropyOp, type Node } from "@sisa/core";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

/** Rows of logits and their softmax: what both losses need. */
function rowsOf(emit: Emitter, logits: Value): { readonly probabilities: Value; readonly logSumExp: Value } {
  const last = emit.builder.int64(1);
  const largest = emit.node("ReduceMax", [logits, last], { keepdims: 1 });
  const probabilities = emit.node("Softmax", [logits], { axis: -1 });
  // The largest probability is 1 / sum(e^(x - max)), and never small.
  const peak = emit.node("ReduceMax", [probabilities, last], { keepdims: 1 });
  return { probabilities, logSumExp: emit.node("Sub", [largest, emit.node("Log", [peak])]) };
}

export const crossEntropy = lowering(crossEntropyOp, ({ emit, inputs: { logits, targets }, specs }) => {
  const { shape } = specs.logits;
  const count = elementsOf(specs.targets.shape);
  const one = Dim.of(1);
  const flat = emit.reshape(logits, [count, shape.at(-1) ?? one]);
  const { logSumExp } = rowsOf(emit, flat);
  const chosen = emit.node("GatherElements", [flat, emit.reshape(targets, [count, one])], { axis: 1 });
  const losses = emit.node("ReduceSum", [emit.node("Sub", [logSumExp, chosen])], { keepdims: 0 });
  // The mean of nothing is no number.
  const number = emit.node("Squeeze", [emit.cast(emit.sizes.size(count), "float32"), emit.builder.int64(0)]);
  return {
    value: emit.node("Div", [losses, number]),
    logSumExp: emit.reshape(logSumExp, shape.with(-1, one)),
  };
});

/** Elements of logits that are held at a time: 8 MB, what caches hold and memory is reused for. */
const chunkElements = 2 ** 21;

/** Fewer rows would make the sums of the weight's gradient cost more than its products. */
const fewestRows = 512;

/**
 * A part of the rows at a time: logits, softmax, and at once the products for both gradients, so that no logits are
 * computed twice. Subtracting 1 at each target before the products saves a gather and a scatter of rows.
 */
export const linearCrossEntropy = lowering(
  linearCrossEntropyOp,
  ({ emit, inputs: { x, weight, targets }, specs, needs }) => {
    const { builder } = emit;
    const width = specs.x.shape.at(-1) ?? Dim.of(1);
    const count = elementsOf(specs.targets.shape).value ?? 0;
    const vocabulary = specs.weight.shape[0]?.value ?? 1;
    const most = Math.max(fewestRows, Math.floor(chunkElements / vocabulary));
    const parts = Math.max(1, Math.ceil(count / most));
    const flat = emit.reshape(x, [Dim.of(count), width]);
    const ids = emit.reshape(targets, [Dim.of(count), Dim.of(1)]);
    const w = { value: weight, rank: 2 };

    const losses: Value[] = [];
    const dx: Value[] = [];
    const dw: Value[] = [];
    for (let part = 0; part < parts; part++) {
      const start = Dim.of(Math.floor((part * count) / parts));
      const end = Dim.of(Math.floor(((part + 1) * count) / parts));
      const rows = parts === 1 ? flat : emit.slice(flat, 0, start, end);
      const targetsOfRows = parts === 1 ? ids : emit.slice(ids, 0, start, end);
      const logits = emit.matmul({ value: rows, rank: 2 }, w, { transposeB: true });
      const { probabilities, logSumExp } = rowsOf(emit, logits);
      const chosen = emit.node("GatherElements", [logits, targetsOfRows], { axis: 1 });
      losses.push(emit.node("ReduceSum", [emit.node("Sub", [logSumExp, chosen])], { keepdims: 0 }));
      if (!needs.gradX && !needs.gradWeight) continue;
      const minusOne = builder.constant(new Float32Array(end.minus(start).value ?? 0).fill(-1), [
        end.minus(start).value ?? 0,
        1,
      ]);
      const settings = { axis: 1, reduction: "add" };
      const slope = emit.node("ScatterElements", [probabilities, targetsOfRows, minusOne], settings);
      const p = { value: slope, rank: 2 };
      const factor = 1 / count;
      if (needs.gradX) dx.push(emit.matmul(p, w, { factor }));
      if (needs.gradWeight) dw.push(emit.matmul(p, { value: rows, rank: 2 }, { transposeA: true, factor }));
    }
    const value = emit.node("Mul", [total(emit, losses), builder.float(1 / count)]);
    return {
      value,
      ...(needs.gradX && { gradX: emit.reshape(joined(emit, dx), specs.x.shape) }),
      ...(needs.gradWeight && { gradWeight: total(emit, dw) }),
    };
  },
  declines,
);

/** Rows can only be parted where their number is known. */
function declines({ inputs: { targets, weight } }: Node): boolean {
  const count = targets && elementsOf(targets.shape).value;
  return !count || !weight?.shape[0]?.value;
}

function total(emit: Emitter, values: readonly Value[]): Value {
  const [only] = values;
  return only !== undefined && values.length === 1 ? only : emit.node("Sum", values);
}

function joined(emit: Emitter, values: readonly Value[]): Value {
  const [only] = values;
  return only !== undefined && values.length === 1 ? only : emit.node("Concat", values, { axis: 0 });
}
