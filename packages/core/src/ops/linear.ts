import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { matmul } from "./matmul.ts";

/**
 * y = x W^T + bias
 *
 * @param x      [..., in]
 * @param weight [out, in]
 * @param bias   [out], optional
 * @returns [..., out]
 * @throws ShapeError where the sizes do not fit; DTypeError where the dtypes differ
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const y = matmul(x, weight, { transposeB: true });
  return bias ? add(y, bias) : y;
}
