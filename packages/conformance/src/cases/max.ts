import { bool, DTypeError, f32, max, ShapeError, type Tensor, transpose } from "@sisa/core";
import { casesOf, distinct, floats, given, otherFloats, refusal, testCase } from "../case.ts";
import { unaryRefusals } from "./refusals.ts";

const exact = { exact: true };

export const maxCases = casesOf(
  "max",
  [
    testCase({
      name: "all",
      inputs: { x: distinct([3, 5]) },
      program: ({ x }) => max(x),
      tolerance: exact,
      expected: ({ x }) => ({ value: [Math.max(...(x?.data ?? []))] }),
    }),
    testCase({
      name: "last-axis",
      inputs: { x: distinct([3, 5]) },
      program: ({ x }) => max(x, { axes: [-1] }),
      tolerance: exact,
    }),
    testCase({
      name: "first-axis",
      inputs: { x: distinct([3, 5]) },
      program: ({ x }) => max(x, { axes: [0] }),
      tolerance: exact,
    }),
    testCase({
      name: "outer-axes",
      inputs: { x: distinct([3, 4, 5]) },
      program: ({ x }) => max(x, { axes: [0, 2], keepDims: true }),
      tolerance: exact,
    }),
    testCase({
      name: "no-axes",
      inputs: { x: distinct([3]) },
      program: ({ x }) => max(x, { axes: [] }),
      tolerance: exact,
    }),
    testCase({ name: "scalar", inputs: { x: floats([]) }, program: ({ x }) => max(x), tolerance: exact }),
    testCase({
      name: "stays-empty",
      inputs: { x: floats([3, 0]) },
      program: ({ x }) => max(x, { axes: [0] }),
      tolerance: exact,
    }),
    testCase({
      name: "of-nothing",
      inputs: { x: floats([3, 0]) },
      program: ({ x }) => max(x, { axes: [1] }),
      ieee: true,
      expected: () => ({ value: new Array(3).fill(Number.NEGATIVE_INFINITY) }),
      note: "-Infinity",
    }),
    testCase({
      name: "negative",
      inputs: { x: floats([4, 6], { low: -3, high: -1 }) },
      program: ({ x }) => max(x, { axes: [1] }),
      tolerance: exact,
    }),
    testCase({
      name: "ties",
      inputs: { x: given(f32(2, 4), [1, 3, 3, 0, 2, 2, 2, 2]) },
      program: ({ x }) => max(x, { axes: [1] }),
      tolerance: exact,
      differences: "none",
      expectedGradients(_inputs, { value }) {
        const [a = 0, b = 0] = value?.data ?? [];
        return { x: [0, a / 2, a / 2, 0, b / 4, b / 4, b / 4, b / 4] };
      },
      note: "equal maxima share the gradient",
    }),
    testCase({
      name: "strided",
      inputs: { x: distinct([6, 7]) },
      program: ({ x }) => max(transpose(x, [1, 0]), { axes: [1] }),
      tolerance: exact,
    }),
    testCase({
      name: "long-row",
      inputs: { x: distinct([2, 40_009]) },
      program: ({ x }) => max(x, { axes: [1] }),
      tolerance: exact,
    }),
    testCase({
      name: "symbolic",
      inputs: { x: distinct(["B", "T", 3]) },
      program: ({ x }) => ({ rows: max(x, { axes: [1] }), all: max(x) }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: distinct([4, 9], { gap: 0.5, dtype }) },
        program: ({ x }) => max(x, { axes: [1] }),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: {
        x: given(f32(4, 3), [
          Number.NaN,
          1,
          2,
          1,
          2,
          Number.NaN,
          Number.NEGATIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
          3.4e38,
          Number.POSITIVE_INFINITY,
          -1,
        ]),
      },
      program: ({ x }) => max(x, { axes: [1] }),
      tolerance: exact,
      ieee: true,
      note: "NaN wherever one is",
    }),
  ],
  [
    ...unaryRefusals("max", (x) => max(x as Tensor)),
    refusal({
      name: "truth values",
      inputs: { x: bool(3) },
      program: ({ x }) => max(x as unknown as Tensor),
      error: DTypeError,
      message: "max: x must be float, got bool[3]",
    }),
    refusal({
      name: "axis",
      inputs: { x: f32(3) },
      program: ({ x }) => max(x, { axes: [-2] }),
      error: ShapeError,
      message: "max: expected an axis from -1 to 0, got -2",
    }),
  ],
);
