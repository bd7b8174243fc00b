import { DTypeError, f32, i32, matmul, ShapeError, type Tensor, transpose } from "@sisa/core";
import {
  casesOf,
  floatSpec,
  floats,
  given,
  type InputRecipe,
  normals,
  otherFloats,
  refusal,
  testCase,
} from "../case.ts";

/** The product by its definition, for two matrices. */
function product(
  inputs: Readonly<Record<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>>,
) {
  const { a, b } = inputs;
  const [m = 0, k = 0] = a?.shape ?? [];
  const n = b?.shape[1] ?? 0;
  const value = Array.from({ length: m * n }, (_, index) => {
    const [i, j] = [Math.floor(index / n), index % n];
    let total = 0;
    for (let l = 0; l < k; l++) total += (a?.data[i * k + l] ?? 0) * (b?.data[l * n + j] ?? 0);
    return total;
  });
  return { value };
}

const variants = [
  { transposeA: false, transposeB: false },
  { transposeA: true, transposeB: false },
  { transposeA: false, transposeB: true },
  { transposeA: true, transposeB: true },
];

function oriented(
  name: string,
  leadingA: readonly (number | string)[],
  leadingB: readonly (number | string)[],
  [m, k, n]: readonly [number | string, number, number],
) {
  return variants.map(({ transposeA, transposeB }) =>
    testCase({
      name: `${name}${transposeA ? "-a-transposed" : ""}${transposeB ? "-b-transposed" : ""}`,
      inputs: {
        a: floats([...leadingA, ...(transposeA ? [k, m] : [m, k])]),
        b: floats([...leadingB, ...(transposeB ? [n, k] : [k, n])]),
      },
      program: ({ a, b }) => matmul(a, b, { transposeA, transposeB }),
    }),
  );
}

const plain = (name: string, a: InputRecipe<"float">, b: InputRecipe<"float">) =>
  testCase({ name, inputs: { a, b }, program: (inputs) => matmul(inputs.a, inputs.b) });

export const matmulCases = casesOf(
  "matmul",
  [
    testCase({
      name: "odd",
      inputs: { a: floats([7, 5]), b: floats([5, 3]) },
      program: ({ a, b }) => matmul(a, b),
      expected: product,
    }),
    ...oriented("matrix", [], [], [4, 6, 5]),
    ...oriented("weight", [2, 3], [], [4, 6, 5]),
    ...oriented("batch", [2, 3], [2, 3], [4, 6, 5]),
    ...oriented("broadcast", [2, 1], [3], [4, 6, 5]),
    plain("one-by-one", floats([1, 1]), floats([1, 1])),
    plain("row", floats([1, 9]), floats([9, 4])),
    plain("column", floats([9, 1]), floats([1, 4])),
    plain("no-rows", floats([0, 5]), floats([5, 3])),
    plain("no-columns", floats([4, 5]), floats([5, 0])),
    plain("no-inner", floats([4, 0]), floats([0, 3])),
    plain("no-batch", floats([0, 4, 5]), floats([5, 3])),
    plain("tiles", floats([130, 67]), floats([67, 129])),
    testCase({
      name: "tiles-transposed",
      inputs: { a: floats([67, 130]), b: floats([129, 67]) },
      program: ({ a, b }) => matmul(a, b, { transposeA: true, transposeB: true }),
    }),
    testCase({
      name: "strided",
      inputs: { a: floats([5, 4, 3]), b: floats([5, 4, 6]) },
      program: ({ a, b }) => matmul(transpose(a, [1, 2, 0]), transpose(b, [1, 0, 2])),
      note: "operands that lie in another order than they are read",
    }),
    testCase({
      name: "square-of-itself",
      inputs: { a: floats([5, 5]) },
      program: ({ a }) => matmul(a, a, { transposeB: true }),
      note: "both operands are one tensor",
    }),
    testCase({
      name: "perf-1024",
      inputs: { a: normals([1024, 1024]), b: normals([1024, 1024]) },
      program: ({ a, b }) => matmul(a, b),
      perf: true,
    }),
    testCase({
      name: "symbolic",
      inputs: { a: floats(["B", "T", 6]), b: floats([5, 6]) },
      program: ({ a, b }) => matmul(a, b, { transposeB: true }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    testCase({
      name: "symbolic-inner",
      inputs: { a: floats(["B", "T", 4]), b: floats(["B", "T", 3]) },
      program: ({ a, b }) => matmul(a, b, { transposeA: true }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 2, T: 0 },
      ],
    }),
    ...otherFloats.map((dtype) => plain(dtype, floats([5, 7], { dtype }), floats([7, 3], { dtype }))),
    ...(["float16", "bfloat16"] as const).flatMap((dtype) =>
      ([[], [2]] as const).map((leading) =>
        testCase({
          name: `${dtype}-to-float32${leading.length > 0 ? "-weight" : ""}`,
          inputs: { a: floats([...leading, 3, 40], { dtype }), b: floats([40, 3], { dtype }) },
          program: ({ a, b }) => matmul(a, b, { dtype: "float32" }),
          note: "sums and result in a wider dtype than the operands",
          gradientTolerance: { nmse: dtype === "float16" ? 2e-6 : 1e-4, reason: "gradients in the operands' dtype" },
        }),
      ),
    ),
    testCase({
      name: "overflow",
      inputs: { a: given(f32(2, 2), [1e30, 1e30, -1e30, 1]), b: given(f32(2, 1), [1e30, 1]) },
      program: ({ a, b }) => matmul(a, b),
      gradients: [],
      note: "overflow gives an infinity, on every backend",
    }),
    testCase({
      name: "hostile",
      inputs: {
        a: given(floatSpec("float32", [4, 3]), [
          Number.NaN,
          0,
          0,
          Number.POSITIVE_INFINITY,
          1,
          1,
          Number.NEGATIVE_INFINITY,
          1,
          0,
          1,
          2,
          3,
        ]),
        b: given(floatSpec("float32", [3, 2]), [1, 0, 1, 1, 1, -1]),
      },
      program: ({ a, b }) => matmul(a, b),
      ieee: true,
      note: "an infinity times zero is NaN; rows do not touch one another",
    }),
  ],
  [
    refusal({
      name: "inner sizes",
      inputs: { a: f32(2, 64), b: f32(32, 8) },
      program: ({ a, b }) => matmul(a, b),
      error: ShapeError,
      message: "matmul: inner sizes differ, expected [.., 64] x [64, ..], got [2,64] x [32,8]",
    }),
    refusal({
      name: "inner sizes transposed",
      inputs: { a: f32(2, 64), b: f32(64, 8) },
      program: ({ a, b }) => matmul(a, b, { transposeB: true }),
      error: ShapeError,
      message: "matmul: inner sizes differ, expected [.., 64] x [64, ..], got [2,64] x [64,8], b transposed",
    }),
    refusal({
      name: "leading sizes",
      inputs: { a: f32(2, 3, 4), b: f32(3, 4, 5) },
      program: ({ a, b }) => matmul(a, b),
      error: ShapeError,
      message: "matmul: shapes do not broadcast, got [2] and [3]",
    }),
    refusal({
      name: "vector",
      inputs: { a: f32(4), b: f32(4, 5) },
      program: ({ a, b }) => matmul(a, b),
      error: ShapeError,
      message: "matmul: expected at least two axes, got [4]",
    }),
    refusal({
      name: "integers",
      inputs: { a: i32(2, 2), b: i32(2, 2) },
      program: ({ a, b }) => matmul(a as unknown as Tensor, b as unknown as Tensor),
      error: DTypeError,
      message: "matmul: a must be float, got int32[2,2]",
    }),
    refusal({
      name: "widths",
      inputs: { a: f32(2, 2), b: floatSpec("bfloat16", [2, 2]) },
      program: ({ a, b }) => matmul(a, b),
      error: DTypeError,
      message: "matmul: dtypes differ, got float32[2,2] and bfloat16[2,2]; cast one of them",
    }),
  ],
);
