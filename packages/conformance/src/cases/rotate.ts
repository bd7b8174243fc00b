import { DTypeError, f32, i32, rotate, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floats, otherFloats, refusal, testCase, type Values } from "../case.ts";

const angles = { low: -7, high: 7 };
const tolerance = { absolute: 1e-6 };

function formula({ x, angle }: Values) {
  const value = Float64Array.from(x?.data ?? [], (_, index) => {
    const pair = Math.floor(index / 2);
    const [a, b] = [x?.data[2 * pair] ?? 0, x?.data[2 * pair + 1] ?? 0];
    const [c, s] = [Math.cos(angle?.data[pair] ?? 0), Math.sin(angle?.data[pair] ?? 0)];
    return index % 2 === 0 ? a * c - b * s : a * s + b * c;
  });
  return { value };
}

export const rotateCases = casesOf(
  "rotate",
  [
    testCase({
      name: "pairs",
      inputs: { x: floats([3, 6]), angle: floats([3, 3], angles) },
      program: ({ x, angle }) => rotate(x, angle),
      tolerance,
      expected: formula,
    }),
    testCase({
      name: "heads",
      inputs: { x: floats([2, 5, 3, 4]), angle: floats([2, 5, 3, 2], angles) },
      program: ({ x, angle }) => rotate(x, angle),
      tolerance,
    }),
    testCase({
      name: "shared",
      inputs: { x: floats([2, 5, 3, 4]), angle: floats([5, 1, 2], angles) },
      program: ({ x, angle }) => rotate(x, angle),
      tolerance,
      note: "the gradients of all rows and heads that an angle turns add up",
    }),
    testCase({
      name: "one-pair",
      inputs: { x: floats([4, 2]), angle: floats([4, 1], angles) },
      program: ({ x, angle }) => rotate(x, angle),
      tolerance,
    }),
    testCase({
      name: "empty",
      inputs: { x: floats([0, 3, 4]), angle: floats([3, 2], angles) },
      program: ({ x, angle }) => rotate(x, angle),
      tolerance,
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3, 4]), angle: floats(["B", "T", 3, 2], angles) },
      program: ({ x, angle }) => rotate(x, angle),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
      tolerance,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([3, 6], { dtype }), angle: floats([3, 3], { ...angles, dtype }) },
        program: ({ x, angle }) => rotate(x, angle),
      }),
    ),
    testCase({
      name: "bfloat16-float32-angles",
      inputs: { x: floats([3, 6], { dtype: "bfloat16" }), angle: floats([3, 3], angles) },
      program: ({ x, angle }) => rotate(x, angle),
      gradientTolerance: { nmse: 3e-5, reason: "a bfloat16 result and its gradient are multiplied" },
    }),
  ],
  [
    refusal({
      name: "odd width",
      inputs: { x: f32(2, 5), angle: f32(2, 2) },
      program: ({ x, angle }) => rotate(x, angle),
      error: ShapeError,
      message: "rotate: expected x [...,D] with angle [...,D/2] for its pairs, got [2,5] and [2,2]",
    }),
    refusal({
      name: "angles larger than x",
      inputs: { x: f32(4), angle: f32(3, 2) },
      program: ({ x, angle }) => rotate(x, angle),
      error: ShapeError,
      message: "rotate: expected x [...,D] with angle [...,D/2] for its pairs, got [4] and [3,2]",
    }),
    refusal({
      name: "integers",
      inputs: { x: i32(2, 4), angle: f32(2, 2) },
      program: ({ x, angle }) => rotate(x as unknown as Tensor, angle),
      error: DTypeError,
      message: "rotate: x must be float, got int32[2,4]",
    }),
  ],
);
