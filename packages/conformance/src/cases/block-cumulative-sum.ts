import { blockCumulativeSum, DTypeError, f32, i32, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floatSpec, floats, given, otherFloats, refusal, testCase, type Values } from "../case.ts";
import { unaryRefusals } from "./refusals.ts";

/** Sums within blocks of `size`, of [B,T] input, by the definition. */
function blocks({ x }: Values, size: number) {
  const [batches = 0, length = 0] = x?.shape ?? [];
  const value = Array.from({ length: batches * length }, (_, index) => {
    const t = index % length;
    const from = t - (t % size);
    let total = 0;
    for (let place = from; place <= t; place++) total += x?.data[index - t + place] ?? 0;
    return total;
  });
  return { value };
}

/** Decays per token that a sum of 8,192 must hold, from almost none to complete. */
const decays = [0.001, 0.05, 1, 20];

export const blockCumulativeSumCases = casesOf(
  "blockCumulativeSum",
  [
    testCase({
      name: "blocks-of-four",
      inputs: { x: floats([2, 10]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 4 }),
      expected: (values) => blocks(values, 4),
    }),
    testCase({
      name: "blocks-of-64",
      inputs: { x: floats([1, 130, 3]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 64 }),
    }),
    testCase({
      name: "reverse",
      inputs: { x: floats([2, 10, 3]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 4, reverse: true }),
    }),
    testCase({
      name: "shorter-than-a-block",
      inputs: { x: floats([2, 3, 2]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 64 }),
    }),
    testCase({
      name: "blocks-of-one",
      inputs: { x: floats([2, 5]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 1 }),
      tolerance: { exact: true },
    }),
    testCase({
      name: "empty",
      inputs: { x: floats([2, 0, 3]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 4 }),
    }),
    testCase({
      name: "continued",
      inputs: { x: floats([3, 9, 2]), before: floats([3, 2]), start: given(i32(3), [0, 3, 8]) },
      program: ({ x, before, start }) => blockCumulativeSum({ x, before, start }, { size: 4 }),
      gradients: [],
      note: "from positions of their own; what came before counts only inside a block",
    }),
    testCase({
      name: "one-token",
      inputs: { x: floats([3, 1, 2]), before: floats([3, 2]), start: given(i32(3), [64, 63, 130]) },
      program: ({ x, before, start }) => blockCumulativeSum({ x, before, start }, { size: 64 }),
      gradients: [],
      expected({ x, before }) {
        const [a, b] = [x?.data ?? [], before?.data ?? []];
        const value = Array.from(a, (step, index) => step + (index < 2 ? 0 : (b[index] ?? 0)));
        return { value };
      },
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 2]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 4 }),
      sizes: [
        { B: 2, T: 9 },
        { B: 1, T: 8 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    testCase({
      name: "symbolic-continued",
      inputs: { x: floats(["B", "T"]), before: floats(["B"]), start: given(i32("B"), [3, 8]) },
      program: ({ x, before, start }) => blockCumulativeSum({ x, before, start }, { size: 4 }),
      gradients: [],
      sizes: [
        { B: 2, T: 6 },
        { B: 1, T: 1 },
        { B: 2, T: 0 },
      ],
    }),
    ...decays.map((decay) =>
      testCase({
        name: `long-decay-${decay}`,
        inputs: { x: floats([1, 8192, 2], { low: -1.8 * decay, high: -0.2 * decay }) },
        program: ({ x }) => blockCumulativeSum({ x }, { size: 64 }),
        tolerance: { relative: 2e-6 },
        differences: { elements: 2, relative: 1e-5 },
      }),
    ),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([2, 9], { dtype }) },
        program: ({ x }) => blockCumulativeSum({ x }, { size: 4 }),
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: given(f32(1, 8), [1, Number.NaN, 1, 1, Number.NEGATIVE_INFINITY, 1, -0, 1]) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 2 }),
      ieee: true,
      note: "NaN and infinities end with their block",
    }),
  ],
  [
    ...unaryRefusals("blockCumulativeSum", (x) => blockCumulativeSum({ x: x as Tensor }, { size: 4 })),
    refusal({
      name: "size",
      inputs: { x: f32(2, 3) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 0 }),
      error: ShapeError,
      message: "blockCumulativeSum: expected a block size >= 1, got 0",
    }),
    refusal({
      name: "rank",
      inputs: { x: f32(3) },
      program: ({ x }) => blockCumulativeSum({ x }, { size: 4 }),
      error: ShapeError,
      message: "blockCumulativeSum: x must be [B,T,...], got [3]",
    }),
    refusal({
      name: "before without start",
      inputs: { x: f32(2, 3), before: f32(2) },
      program: ({ x, before }) => blockCumulativeSum({ x, before }, { size: 4 }),
      error: ShapeError,
      message: "blockCumulativeSum: before and start go together",
    }),
    refusal({
      name: "shape of before",
      inputs: { x: f32(2, 3, 4), before: f32(2, 3), start: i32(2) },
      program: ({ x, before, start }) => blockCumulativeSum({ x, before, start }, { size: 4 }),
      error: ShapeError,
      message: "blockCumulativeSum: before must be [2,4], got [2,3]",
    }),
    refusal({
      name: "dtype of before",
      inputs: { x: f32(2, 3), before: floatSpec("bfloat16", [2]), start: i32(2) },
      program: ({ x, before, start }) => blockCumulativeSum({ x, before, start }, { size: 4 }),
      error: DTypeError,
      message: "blockCumulativeSum: dtypes differ, got float32[2,3] and bfloat16[2]; cast one of them",
    }),
    refusal({
      name: "float start",
      inputs: { x: f32(2, 3), before: f32(2), start: f32(2) },
      program: ({ x, before, start }) =>
        blockCumulativeSum({ x, before, start: start as unknown as Tensor<"int"> }, { size: 4 }),
      error: DTypeError,
      message: "blockCumulativeSum: start must be int, got float32[2]",
    }),
    refusal({
      name: "reverse with start",
      inputs: { x: f32(2, 3), before: f32(2), start: i32(2) },
      program: ({ x, before, start }) => blockCumulativeSum({ x, before, start }, { size: 4, reverse: true }),
      error: ShapeError,
      message: "blockCumulativeSum: a reverse sum takes no start",
    }),
  ],
);
