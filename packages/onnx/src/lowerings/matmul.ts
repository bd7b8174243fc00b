import { Dim, matmulOp } from "@sisa/core";
import { lowering } from "../lowering.ts";

/**
 * FusedMatMul takes transposed operands as they lie, so that weights [out, in] are never copied.
 *
 * Where the inner size is zero, ONNX Runtime clears only the first of several matrices; the others are cleared here.
 */
export const matmul = lowering(matmulOp, ({ emit, inputs, specs, attributes, outputs }) => {
  const { transposeA, transposeB } = attributes;
  const { builder, sizes } = emit;
  const { shape } = outputs.value;
  const inner = specs.a.shape.at(transposeA ? -2 : -1) ?? Dim.of(1);
  const zero = builder.float(0);
  if (inner.equals(0)) return { value: emit.node("Expand", [zero, sizes.shape(shape)]) };
  const a = { value: inputs.a, rank: specs.a.shape.length };
  const b = { value: inputs.b, rank: specs.b.shape.length };
  const product = emit.matmul(a, b, { transposeA, transposeB });
  if (inner.value !== undefined || b.rank === 2) return { value: product };
  const isEmpty = emit.node("Equal", [sizes.size(inner), builder.int64(0)]);
  return { value: emit.node("Where", [isEmpty, zero, product]) };
});
