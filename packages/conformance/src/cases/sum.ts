import { bool, DTypeError, f32, ShapeError, sum, type Tensor, transpose } from "@sisa/core";
import { casesOf, floats, given, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

export const sumCases = casesOf(
  "sum",
  [
    testCase({
      name: "all",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => sum(x),
      expected: ({ x }) => ({ value: [[...(x?.data ?? [])].reduce((a, b) => a + b, 0)] }),
    }),
    testCase({ name: "last-axis", inputs: { x: floats([3, 5]) }, program: ({ x }) => sum(x, { axes: [-1] }) }),
    testCase({ name: "first-axis", inputs: { x: floats([3, 5]) }, program: ({ x }) => sum(x, { axes: [0] }) }),
    testCase({ name: "middle-axis", inputs: { x: floats([3, 4, 5]) }, program: ({ x }) => sum(x, { axes: [1] }) }),
    testCase({ name: "outer-axes", inputs: { x: floats([3, 4, 5]) }, program: ({ x }) => sum(x, { axes: [0, 2] }) }),
    testCase({
      name: "keep-dims",
      inputs: { x: floats([3, 4, 5]) },
      program: ({ x }) => sum(x, { axes: [-1, 0], keepDims: true }),
    }),
    testCase({ name: "no-axes", inputs: { x: floats([3, 4]) }, program: ({ x }) => sum(x, { axes: [] }) }),
    testCase({ name: "same-axis-twice", inputs: { x: floats([3, 4]) }, program: ({ x }) => sum(x, { axes: [1, -1] }) }),
    testCase({ name: "scalar", inputs: { x: floats([]) }, program: ({ x }) => sum(x) }),
    testCase({ name: "size-one", inputs: { x: floats([3, 1]) }, program: ({ x }) => sum(x, { axes: [1] }) }),
    testCase({
      name: "of-nothing",
      inputs: { x: floats([3, 0]) },
      program: ({ x }) => sum(x, { axes: [1] }),
      expected: () => ({ value: [0, 0, 0] }),
    }),
    testCase({ name: "stays-empty", inputs: { x: floats([3, 0]) }, program: ({ x }) => sum(x, { axes: [0] }) }),
    testCase({
      name: "strided",
      inputs: { x: floats([6, 7]) },
      program: ({ x }) => sum(transpose(x, [1, 0]), { axes: [0] }),
    }),
    testCase({ name: "long-row", inputs: { x: floats([3, 40_009]) }, program: ({ x }) => sum(x, { axes: [1] }) }),
    testCase({ name: "long-column", inputs: { x: floats([40_009, 3]) }, program: ({ x }) => sum(x, { axes: [0] }) }),
    testCase({
      name: "large-mean",
      inputs: { x: floats([65_536], { low: 0.5, high: 1.5 }) },
      program: ({ x }) => sum(x),
      note: "a float32 that adds one after another would be off by more",
    }),
    testCase({
      name: "perf-4096x1024",
      inputs: { x: floats([4096, 1024]) },
      program: ({ x }) => sum(x, { axes: [1] }),
      perf: true,
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([3, 5], { low: -99, high: 99 }) },
      program: ({ x }) => sum(x, { axes: [1] }),
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => ({
        rows: sum(x, { axes: [1] }),
        all: sum(x),
        kept: sum(x, { axes: [0, 2], keepDims: true }),
      }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([4, 9], { dtype }) },
        program: ({ x }) => sum(x, { axes: [1] }),
      }),
    ),
    testCase({
      name: "bfloat16-in-float32",
      inputs: { x: floats([4, 300], { dtype: "bfloat16" }) },
      program: ({ x }) => sum(x, { axes: [1], dtype: "float32" }),
    }),
    testCase({
      name: "overflow",
      inputs: { x: given(f32(3, 2), [3e38, 3e38, -3e38, -3e38, 1, 2]) },
      program: ({ x }) => sum(x, { axes: [1] }),
      gradients: [],
      note: "overflow gives an infinity, on every backend",
    }),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([16, 1]) },
      program: ({ x }) => sum(x, { axes: [1] }),
      ieee: true,
    }),
    testCase({
      name: "infinities",
      inputs: {
        x: given(f32(3, 3), [
          Number.POSITIVE_INFINITY,
          1,
          2,
          Number.POSITIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
          0,
          Number.NaN,
          1,
          1,
        ]),
      },
      program: ({ x }) => sum(x, { axes: [1] }),
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "truth values",
      inputs: { x: bool(3) },
      program: ({ x }) => sum(x as unknown as Tensor),
      error: DTypeError,
      message: "sum: x must be float or int, got bool[3]",
    }),
    refusal({
      name: "axis",
      inputs: { x: f32(3) },
      program: ({ x }) => sum(x, { axes: [1] }),
      error: ShapeError,
      message: "sum: expected an axis from -1 to 0, got 1",
    }),
  ],
);
