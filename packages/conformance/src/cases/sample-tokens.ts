import { DTypeError, f32, i32, ShapeError, sampleToken, sampleTokens, type Tensor } from "@sisa/core";
import { casesOf, floats, given, normals, otherFloats, refusal, testCase, type Values } from "../case.ts";

type Inputs = {
  readonly logits: Tensor;
  readonly uniform: Tensor;
  readonly temperature: Tensor;
  readonly topK: Tensor<"int">;
  readonly topP: Tensor;
};

const program = ({ logits, ...choice }: Inputs) => sampleTokens(logits, choice);

/** What the sampler of the host chooses, which sorts, in float64. */
function onHost({ logits, uniform, temperature, topK, topP }: Values) {
  const rows = uniform?.data.length ?? 0;
  const size = (logits?.data.length ?? 0) / rows;
  const value = Array.from({ length: rows }, (_, row) =>
    sampleToken(logits?.data.subarray(row * size, (row + 1) * size) ?? [], uniform?.data[row] ?? 0, {
      temperature: temperature?.data[row] ?? 1,
      topK: topK?.data[row] ?? 0,
      topP: topP?.data[row] ?? 1,
    }),
  );
  return { value };
}

/** Choices of so many rows, each list repeated. */
const choices = (
  rows: number | string,
  own: {
    readonly uniform?: readonly number[];
    readonly temperature?: readonly number[];
    readonly topK?: readonly number[];
    readonly topP?: readonly number[];
  },
) => ({
  uniform: own.uniform ? given(f32(rows), own.uniform) : floats([rows], { low: 0, high: 1 }),
  temperature: given(f32(rows), own.temperature ?? [1]),
  topK: given(i32(rows), own.topK ?? [0]),
  topP: given(f32(rows), own.topP ?? [1]),
});

const { NEGATIVE_INFINITY, NaN: notANumber, POSITIVE_INFINITY } = Number;

export const sampleTokensCases = casesOf(
  "sampleTokens",
  [
    testCase({
      name: "greedy",
      inputs: {
        logits: given(f32(3, 4), [1, 3, 2, 3, -1, -3, -2, -0.5, 0, 0, 0, -0]),
        ...choices(3, { temperature: [0], topK: [2], topP: [0.5] }),
      },
      program,
      expected: () => ({ value: [1, 3, 0] }),
      note: "the first of equal ones, whatever the filters are",
    }),
    testCase({
      name: "temperature",
      inputs: { logits: normals([32, 50], { deviation: 3 }), ...choices(32, { temperature: [1, 0.3, 2, 30] }) },
      program,
      expected: onHost,
    }),
    testCase({
      name: "top-k",
      inputs: { logits: normals([32, 50], { deviation: 3 }), ...choices(32, { topK: [1, 2, 7, 49, 50, 51, 1000, 0] }) },
      program,
      expected: onHost,
    }),
    testCase({
      name: "top-p",
      inputs: { logits: normals([32, 50], { deviation: 3 }), ...choices(32, { topP: [0.9, 0.5, 0.1, 0.999, 1] }) },
      program,
      expected: onHost,
    }),
    testCase({
      name: "all-filters",
      inputs: {
        logits: normals([64, 50], { deviation: 2 }),
        ...choices(64, { temperature: [0.7, 1, 0, 1.5], topK: [5, 20, 0, 3, 1], topP: [0.8, 0.95, 1, 0.3] }),
      },
      program,
      expected: onHost,
    }),
    testCase({
      name: "ties",
      inputs: {
        logits: given(f32(24, 6), [2, 1, 2, 1, 2, 1]),
        ...choices(24, { topK: [2, 3, 4, 5, 0, 0], topP: [1, 1, 1, 1, 0.4, 0.9] }),
      },
      program,
      expected: onHost,
      note: "equal logits are kept by id",
    }),
    testCase({
      name: "all-equal",
      inputs: {
        logits: given(f32(16, 300), [-3.5]),
        ...choices(16, { topK: [0, 1, 299, 17], topP: [1, 1, 1, 0.503] }),
      },
      program,
      expected: onHost,
    }),
    testCase({
      name: "one-hot",
      inputs: {
        logits: given(f32(4, 5), [0, 0, 90, 0, 0]),
        ...choices(4, { uniform: [0.001, 0.3, 0.99, 0.9999], topP: [1, 0.5] }),
      },
      program,
      expected: () => ({ value: [2, 2, 2, 2] }),
      gradients: [],
    }),
    testCase({
      name: "sizes",
      inputs: {
        logits: given(f32(4, 5), [3e38, -3e38, 1e38, 0, 3e38, -1e-3, 0, 1e-3, -1e30, 2e-3]),
        ...choices(4, { temperature: [1, 1e-30, 1e30, 0.5], topK: [2, 0, 3] }),
      },
      program,
      note: "neither overflows nor divides by zero",
      expected: onHost,
    }),
    testCase({
      name: "vocabulary",
      inputs: {
        logits: normals([4, 10_007], { deviation: 3 }),
        ...choices(4, { temperature: [0.8, 1], topK: [0, 40, 0, 3000], topP: [1, 1, 0.95, 0.9] }),
      },
      program,
      expected: onHost,
      slow: true,
    }),
    testCase({ name: "one", inputs: { logits: floats([3, 1]), ...choices(3, {}) }, program, expected: onHost }),
    testCase({ name: "no-rows", inputs: { logits: floats([0, 4]), ...choices(0, {}) }, program }),
    testCase({
      name: "symbolic",
      inputs: { logits: normals(["B", 9]), ...choices("B", { topK: [4], topP: [0.9] }) },
      program,
      sizes: [{ B: 2 }, { B: 1 }, { B: 0 }],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { logits: normals([5, 9], { dtype }), ...choices(5, { topK: [4], topP: [0.9] }) },
        program,
        expected: onHost,
      }),
    ),
    testCase({
      name: "impossible",
      inputs: {
        logits: given(f32(12, 4), [NEGATIVE_INFINITY, 1, NEGATIVE_INFINITY, 2, NEGATIVE_INFINITY, 1]),
        ...choices(12, { temperature: [1, 0, 3], topK: [0, 1, 3], topP: [1, 0.999] }),
      },
      program,
      expected: onHost,
      ieee: true,
      note: "-Infinity is never chosen, not even by a filter that would keep more than is possible",
    }),
    testCase({
      name: "refused",
      inputs: {
        logits: given(f32(10, 3), [
          ...[notANumber, 1, 2],
          ...[1, notANumber, 2],
          ...[1, 2, POSITIVE_INFINITY],
          ...[NEGATIVE_INFINITY, NEGATIVE_INFINITY, NEGATIVE_INFINITY],
          ...[1, 1, 5],
        ]),
        ...choices(10, { temperature: [1, 1, 1, 1, 1, 0, 0, 0, 0, 0], uniform: [0.9] }),
      },
      program,
      expected: () => ({ value: [-1, -1, -1, -1, 2, -1, -1, -1, -1, 2] }),
      ieee: true,
      note: "-1 for what is no choice, and only there",
    }),
  ],
  [
    refusal({
      name: "rows",
      inputs: { logits: f32(3, 4), uniform: f32(2), temperature: f32(3), topK: i32(3), topP: f32(3) },
      program,
      error: ShapeError,
      message: "sampleTokens: uniform must be [B] = [3], got [2]",
    }),
    refusal({
      name: "kind",
      inputs: { logits: f32(3, 4), uniform: f32(3), temperature: f32(3), topK: f32(3), topP: f32(3) },
      program: (inputs) => program(inputs as unknown as Inputs),
      error: DTypeError,
      message: "sampleTokens: topK must be int, got float32[3]",
    }),
  ],
);
