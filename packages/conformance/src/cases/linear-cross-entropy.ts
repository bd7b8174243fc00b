import { DataError, DTypeError, f32, i32, linearCrossEntropy, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floats, given, integers, otherFloats, refusal, testCase, type Values } from "../case.ts";
import { at, dot } from "./formulas.ts";

function formula({ x, weight, targets }: Values) {
  const width = x?.shape.at(-1) ?? 0;
  const [vocabulary = 0] = weight?.shape ?? [];
  const positions = targets?.data.length ?? 0;
  let total = 0;
  for (let row = 0; row < positions; row++) {
    const logits = Array.from({ length: vocabulary }, (_, v) =>
      dot(
        width,
        (i) => x?.data[row * width + i] ?? 0,
        (i) => at(weight, v, i),
      ),
    );
    const normaliser = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
    total += normaliser - (logits[targets?.data[row] ?? 0] ?? 0);
  }
  return { value: [total / positions] };
}

const inputs = (positions: readonly (number | string)[], width: number, vocabulary: number) => ({
  x: floats([...positions, width]),
  weight: floats([vocabulary, width]),
  targets: integers(positions, { high: vocabulary }),
});

export const linearCrossEntropyCases = casesOf(
  "linearCrossEntropy",
  [
    testCase({
      name: "one-chunk",
      inputs: inputs([5], 6, 9),
      program: (inputs) => linearCrossEntropy(inputs),
      expected: formula,
    }),
    testCase({
      name: "even-chunks",
      inputs: inputs([2, 3], 6, 8),
      program: (inputs) => linearCrossEntropy(inputs, { chunk: 4 }),
      expected: formula,
    }),
    testCase({
      name: "chunks-with-rest",
      inputs: inputs([2, 3], 6, 11),
      program: (inputs) => linearCrossEntropy(inputs, { chunk: 4 }),
      expected: formula,
    }),
    testCase({
      name: "chunks-of-one",
      inputs: inputs([3], 4, 5),
      program: (inputs) => linearCrossEntropy(inputs, { chunk: 1 }),
      expected: formula,
    }),
    testCase({
      name: "one-position",
      inputs: { x: floats([4]), weight: floats([5, 4]), targets: given(i32(), [3]) },
      program: (inputs) => linearCrossEntropy(inputs),
      expected: formula,
    }),
    testCase({
      name: "equal-targets",
      inputs: { x: floats([6, 4]), weight: floats([5, 4]), targets: given(i32(6), [2]) },
      program: (inputs) => linearCrossEntropy(inputs),
      expected: formula,
    }),
    testCase({
      name: "large-logits",
      inputs: {
        x: given(f32(2, 2), [100, -100, 50, 50]),
        weight: given(f32(3, 2), [5, -5, -5, 5, 1, 1]),
        targets: given(i32(2), [1, 0]),
      },
      program: (inputs) => linearCrossEntropy(inputs, { chunk: 2 }),
      differences: { step: 1e-5 },
      note: "logits of 1,000 on both sides",
    }),
    testCase({
      name: "large",
      inputs: inputs([40], 33, 1003),
      program: (inputs) => linearCrossEntropy(inputs, { chunk: 256 }),
      differences: { elements: 1 },
    }),
    testCase({
      name: "perf-2048x512x32000",
      inputs: inputs([2048], 512, 32_000),
      program: (inputs) => linearCrossEntropy(inputs),
      perf: true,
    }),
    testCase({
      name: "symbolic",
      inputs: inputs(["B", "T"], 6, 9),
      program: (inputs) => linearCrossEntropy(inputs, { chunk: 4 }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: {
          x: floats([5, 8], { dtype }),
          weight: floats([9, 8], { dtype }),
          targets: integers([5], { high: 9 }),
        },
        program: (inputs) => linearCrossEntropy(inputs, { chunk: 4 }),
        ...(dtype === "bfloat16" && { gradientTolerance: { nmse: 1e-3, reason: "differences of rounded terms" } }),
      }),
    ),
    testCase({
      name: "no-positions",
      inputs: inputs([0], 4, 5),
      program: (inputs) => linearCrossEntropy(inputs),
      ieee: true,
      note: "the mean of nothing is NaN",
    }),
    testCase({
      name: "past-the-end",
      inputs: { x: floats([2, 4]), weight: floats([5, 4]), targets: given(i32(2), [0, 5]) },
      program: (inputs) => linearCrossEntropy(inputs),
      fails: DataError,
    }),
  ],
  [
    refusal({
      name: "width",
      inputs: { x: f32(2, 4), weight: f32(9, 5), targets: i32(2) },
      program: (inputs) => linearCrossEntropy(inputs),
      error: ShapeError,
      message: "linearCrossEntropy: weight must be [V,M] = [V,4], got [9,5]",
    }),
    refusal({
      name: "targets",
      inputs: { x: f32(2, 3, 4), weight: f32(9, 4), targets: i32(2) },
      program: (inputs) => linearCrossEntropy(inputs),
      error: ShapeError,
      message: "linearCrossEntropy: targets must be [N0,N1] = [2,3], got [2]",
    }),
    refusal({
      name: "float targets",
      inputs: { x: f32(2, 4), weight: f32(9, 4), targets: f32(2) },
      program: ({ x, weight, targets }) =>
        linearCrossEntropy({ x, weight, targets: targets as unknown as Tensor<"int"> }),
      error: DTypeError,
      message: "linearCrossEntropy: targets must be int, got float32[2]",
    }),
    refusal({
      name: "chunk",
      inputs: { x: f32(2, 4), weight: f32(9, 4), targets: i32(2) },
      program: (inputs) => linearCrossEntropy(inputs, { chunk: 0 }),
      error: ShapeError,
      message: "linearCrossEntropy: expected a chunk >= 1, got 0",
    }),
  ],
);
