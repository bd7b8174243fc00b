import { matmulOp } from "@sisa/core";
import { lowering } from "../lowering.ts";

/** FusedMatMul takes transposed operands as they lie, so that weights [out, in] are never copied. */
export const matmul = lowering(
  matmulOp,
  ({ emit, inputs: { a, b }, specs, attributes: { transposeA, transposeB } }) => ({
    value: emit.matmul(
      { value: a, rank: specs.a.shape.length },
      { value: b, rank: specs.b.shape.length },
      { transposeA, transposeB },
    ),
  }),
);
