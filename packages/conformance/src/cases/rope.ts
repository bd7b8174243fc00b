import { cos, DTypeError, f32, i32, rope, ShapeError, sin, type Tensor, transpose } from "@sisa/core";
import { casesOf, floats, otherFloats, refusal, testCase, type Values } from "../case.ts";

function formula({ x, cos, sin }: Values) {
  const value = Float64Array.from(x?.data ?? [], (_, index) => {
    const pair = Math.floor(index / 2);
    const [a, b] = [x?.data[2 * pair] ?? 0, x?.data[2 * pair + 1] ?? 0];
    const [c, s] = [cos?.data[pair] ?? 0, sin?.data[pair] ?? 0];
    return index % 2 === 0 ? a * c - b * s : a * s + b * c;
  });
  return { value };
}

export const ropeCases = casesOf(
  "rope",
  [
    testCase({
      name: "pairs",
      inputs: { x: floats([3, 6]), cos: floats([3, 3]), sin: floats([3, 3]) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      expected: formula,
    }),
    testCase({
      name: "heads",
      inputs: { x: floats([2, 5, 3, 4]), cos: floats([5, 1, 2]), sin: floats([5, 1, 2]) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      note: "one table for all heads and rows",
    }),
    testCase({
      name: "data-dependent",
      inputs: { x: floats([2, 5, 3, 4]), angle: floats([2, 5, 3, 2], { low: 0, high: 6 }) },
      program: ({ x, angle }) => rope(x, cos(angle), sin(angle)),
      tolerance: { absolute: 1e-6 },
    }),
    testCase({
      name: "one-pair",
      inputs: { x: floats([4, 2]), cos: floats([4, 1]), sin: floats([4, 1]) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
    }),
    testCase({
      name: "empty",
      inputs: { x: floats([0, 3, 4]), cos: floats([3, 2]), sin: floats([3, 2]) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
    }),
    testCase({
      name: "strided",
      inputs: { x: floats([6, 5]), cos: floats([3]), sin: floats([3]) },
      program: ({ x, cos, sin }) => rope(transpose(x, [1, 0]), cos, sin),
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3, 4]), cos: floats(["T", 1, 2]), sin: floats(["T", 1, 2]) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([3, 6], { dtype }), cos: floats([3, 3], { dtype }), sin: floats([3, 3], { dtype }) },
        program: ({ x, cos, sin }) => rope(x, cos, sin),
      }),
    ),
    testCase({
      name: "bfloat16-float32-tables",
      inputs: { x: floats([3, 6], { dtype: "bfloat16" }), cos: floats([3, 3]), sin: floats([3, 3]) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      gradientTolerance: { nmse: 1e-5, reason: "the gradient of a bfloat16 result is bfloat16" },
    }),
  ],
  [
    refusal({
      name: "odd width",
      inputs: { x: f32(2, 5), cos: f32(2, 2), sin: f32(2, 2) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      error: ShapeError,
      message: "rope: expected x [...,D] with cos and sin [...,D/2], got [2,5], [2,2], [2,2]",
    }),
    refusal({
      name: "tables of other widths",
      inputs: { x: f32(2, 4), cos: f32(2, 2), sin: f32(2, 1) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      error: ShapeError,
      message: "rope: expected x [...,D] with cos and sin [...,D/2], got [2,4], [2,2], [2,1]",
    }),
    refusal({
      name: "tables larger than x",
      inputs: { x: f32(4), cos: f32(3, 2), sin: f32(3, 2) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      error: ShapeError,
      message: "rope: cos must broadcast to the pairs of x [2], got [3,2]",
    }),
    refusal({
      name: "table that does not broadcast",
      inputs: { x: f32(4, 4), cos: f32(4, 2), sin: f32(3, 2) },
      program: ({ x, cos, sin }) => rope(x, cos, sin),
      error: ShapeError,
      message: "rope: sin must broadcast to the pairs of x [4,2], got [3,2]",
    }),
    refusal({
      name: "integers",
      inputs: { x: i32(2, 4), cos: f32(2, 2), sin: f32(2, 2) },
      program: ({ x, cos, sin }) => rope(x as unknown as Tensor, cos, sin),
      error: DTypeError,
      message: "rope: x must be float, got int32[2,4]",
    }),
  ],
);
