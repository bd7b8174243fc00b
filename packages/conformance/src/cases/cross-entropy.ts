import { crossEntropy, DTypeError, f32, i32, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floats, given, integers, otherFloats, refusal, testCase, type Values } from "../case.ts";
import { byRows } from "./formulas.ts";

function formula({ logits, targets }: Values) {
  let row = 0;
  const losses = byRows(logits, (values) => {
    const total = Math.log(values.reduce((sum, value) => sum + Math.exp(value), 0));
    return [total - (values[targets?.data[row++] ?? 0] ?? 0)];
  });
  return { value: [losses.reduce((a, b) => a + b, 0) / losses.length] };
}

const range = { low: -3, high: 3 };

export const crossEntropyCases = casesOf(
  "crossEntropy",
  [
    testCase({
      name: "rows",
      inputs: { logits: floats([5, 7], range), targets: integers([5], { high: 7 }) },
      program: (inputs) => crossEntropy(inputs),
      expected: formula,
    }),
    testCase({
      name: "batch",
      inputs: { logits: floats([2, 3, 11], range), targets: integers([2, 3], { high: 11 }) },
      program: (inputs) => crossEntropy(inputs),
      expected: formula,
    }),
    testCase({
      name: "one-position",
      inputs: { logits: floats([7], range), targets: given(i32(), [6]) },
      program: (inputs) => crossEntropy(inputs),
    }),
    testCase({
      name: "large-vocabulary",
      inputs: { logits: floats([3, 5003], range), targets: integers([3], { high: 5003 }) },
      program: (inputs) => crossEntropy(inputs),
    }),
    testCase({
      name: "large-logits",
      inputs: { logits: given(f32(2, 3), [1000, 0, -1000, -500, 500, 400]), targets: given(i32(2), [1, 1]) },
      program: (inputs) => crossEntropy(inputs),
      note: "finite for targets of probability zero",
    }),
    testCase({
      name: "symbolic",
      inputs: { logits: floats(["B", "T", 5], range), targets: integers(["B", "T"], { high: 5 }) },
      program: (inputs) => crossEntropy(inputs),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { logits: floats([5, 7], { dtype, ...range }), targets: integers([5], { high: 7 }) },
        program: (inputs) => crossEntropy(inputs),
      }),
    ),
    testCase({
      name: "no-positions",
      inputs: { logits: floats([0, 7]), targets: integers([0], { high: 7 }) },
      program: (inputs) => crossEntropy(inputs),
      ieee: true,
      note: "the mean of nothing is NaN",
    }),
    testCase({
      name: "hostile",
      inputs: { logits: given(f32(2, 3), [1, Number.NaN, 2, 1, 2, 3]), targets: given(i32(2), [0, 0]) },
      program: (inputs) => crossEntropy(inputs),
      ieee: true,
    }),
    testCase({
      name: "masked-logits",
      inputs: {
        logits: given(f32(2, 3), [1, Number.NEGATIVE_INFINITY, 2, 1, 2, Number.NEGATIVE_INFINITY]),
        targets: given(i32(2), [0, 1]),
      },
      program: (inputs) => crossEntropy(inputs),
      ieee: true,
      gradients: ["logits"],
      differences: "none",
      note: "-Infinity at places that are no target",
    }),
  ],
  [
    refusal({
      name: "shapes",
      inputs: { logits: f32(5, 7), targets: i32(4) },
      program: (inputs) => crossEntropy(inputs),
      error: ShapeError,
      message: "crossEntropy: expected logits [..., V] for targets [4], got [5,7]",
    }),
    refusal({
      name: "float targets",
      inputs: { logits: f32(5, 7), targets: f32(5) },
      program: ({ logits, targets }) => crossEntropy({ logits, targets: targets as unknown as Tensor<"int"> }),
      error: DTypeError,
      message: "crossEntropy: targets must be int, got float32[5]",
    }),
    refusal({
      name: "integer logits",
      inputs: { logits: i32(5, 7), targets: i32(5) },
      program: ({ logits, targets }) => crossEntropy({ logits: logits as unknown as Tensor, targets }),
      error: DTypeError,
      message: "crossEntropy: logits must be float, got int32[5,7]",
    }),
  ],
);
