import { Dim, elementsOf, shapeText } from "../dim.ts";
import type { DType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, expectKind, expectSameDType } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { DTypeOfKind } from "../spec.ts";
import { cast, gradientDType } from "./cast.ts";
import { broadcastIndex, broadcastShapes, sumTo } from "./elementwise.ts";
import { reshape } from "./reshape.ts";

interface MatmulAttributes {
  readonly [name: string]: unknown;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** dtype of the result and of the sums; that of the inputs where left out. */
  readonly dtype?: DTypeOfKind<"float"> | undefined;
}

export const matmulOp = /* @__PURE__ */ definePrimitive<
  "matmul",
  { readonly a: Tensor; readonly b: Tensor },
  MatmulAttributes
>({
  name: "matmul",
  inputs: ["a", "b"],
  infer({ a, b }, { transposeA, transposeB, dtype }) {
    expectKind("a", a, "float");
    expectSameDType(a, b);
    const [m, k] = lastTwo(a, transposeA);
    const [k2, n] = lastTwo(b, transposeB);
    if (!k.equals(k2)) {
      throw new ShapeError(
        `inner sizes differ, expected [.., ${k}] x [${k}, ..], got ${shapeText(a.shape)} x ${shapeText(b.shape)}${transposeA ? ", a transposed" : ""}${transposeB ? ", b transposed" : ""}`,
      );
    }
    const leading = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2));
    return { value: { dtype: dtype ?? a.dtype, shape: [...leading, m, n] } };
  },
  reference({ a, b }, { transposeA, transposeB }, { value }) {
    const [m = 0, n = 0] = value.shape.slice(-2);
    const k = a.shape.at(transposeA ? -2 : -1) ?? 0;
    const leading = value.shape.slice(0, -2);
    const indexA = broadcastIndex(a.shape.slice(0, -2), leading);
    const indexB = broadcastIndex(b.shape.slice(0, -2), leading);
    const [rowA, stepA] = transposeA ? [1, m] : [k, 1];
    const [stepB, columnB] = transposeB ? [1, k] : [n, 1];
    const batches = leading.reduce((x, y) => x * y, 1);
    for (let batch = 0; batch < batches; batch++) {
      const startA = indexA(batch) * m * k;
      const startB = indexB(batch) * k * n;
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let total = 0;
          for (let l = 0; l < k; l++) {
            total += (a.data[startA + i * rowA + l * stepA] ?? 0) * (b.data[startB + l * stepB + j * columnB] ?? 0);
          }
          value.data[(batch * m + i) * n + j] = total;
        }
      }
    }
  },
  vjp({ inputs, attributes: { transposeA, transposeB }, gradients, needs }) {
    if (gradients.value === undefined) return {};
    const { a, b } = inputs;
    // Sums in a wider dtype than the operands: the gradient is narrowed, so that these products are like the forward one.
    const gradient = cast(gradients.value, a.dtype) as Tensor;
    const [dtypeA, dtypeB] = [gradientDType(a), gradientDType(b)];
    // A weight used by all leading axes gets its gradient in one product over them instead of one for each, summed.
    if (b.shape.length === 2 && a.shape.length > 2 && !transposeA) {
      const rows = elementsOf(a.shape.slice(0, -1));
      const flat = (x: Tensor) => reshape(x, [rows, x.shape.at(-1) ?? Dim.of(1)]);
      return {
        a: needs.a ? matmul(gradient, b, { transposeB: !transposeB, dtype: dtypeA }) : undefined,
        b: needs.b ? gradientOfB(flat(a), flat(gradient), false, transposeB, dtypeB) : undefined,
      };
    }
    const gradientOfA = () =>
      transposeA
        ? matmul(b, gradient, { transposeA: transposeB, transposeB: true, dtype: dtypeA })
        : matmul(gradient, b, { transposeB: !transposeB, dtype: dtypeA });
    return {
      a: needs.a ? sumTo(gradientOfA(), a.shape) : undefined,
      b: needs.b ? sumTo(gradientOfB(a, gradient, transposeA, transposeB, dtypeB), b.shape) : undefined,
    };
  },
  flops({ a }, { transposeA }, { value }) {
    const inner = a.shape.at(transposeA ? -2 : -1) ?? Dim.of(1);
    return elementsOf(value.shape).times(inner).times(2);
  },
});

function gradientOfB(
  a: Tensor,
  gradient: Tensor,
  transposeA: boolean,
  transposeB: boolean,
  dtype: DTypeOfKind<"float">,
): Tensor {
  return transposeB
    ? matmul(gradient, a, { transposeA: true, transposeB: transposeA, dtype })
    : matmul(a, gradient, { transposeA: !transposeA, dtype });
}

function lastTwo(
  x: { readonly shape: readonly Dim[]; readonly dtype: DType },
  transposed: boolean,
): readonly [Dim, Dim] {
  const [rows, columns] = x.shape.slice(-2);
  if (rows === undefined || columns === undefined) {
    throw new ShapeError(`expected at least two axes, got ${shapeText(x.shape)}`);
  }
  return transposed ? [columns, rows] : [rows, columns];
}

/**
 * Matrix product over the last two axes; leading axes broadcast.
 *
 * @param a [..., M, K], or [..., K, M] with `transposeA`
 * @param b [..., K, N], or [..., N, K] with `transposeB`
 * @param options.transposeA a is [..., K, M]; default false
 * @param options.transposeB b is [..., N, K]; default false
 * @param options.dtype      dtype of the result and of the sums; default that of a
 * @returns [..., M, N]
 * @throws ShapeError where the inner sizes differ or there are less than two axes; DTypeError where the dtypes differ
 */
export function matmul(
  a: Tensor,
  b: Tensor,
  options: { readonly transposeA?: boolean; readonly transposeB?: boolean; readonly dtype?: DTypeOfKind<"float"> } = {},
): Tensor {
  const { transposeA = false, transposeB = false, dtype } = options;
  const own = dtype === undefined || dtype === a.dtype ? {} : { dtype };
  return apply(matmulOp, { a, b }, { transposeA, transposeB, ...own }).value;
}
