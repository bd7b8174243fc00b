import { bool, cast, type DType, f32, i32, kindOf, mul, type Tensor } from "@sisa/core";
import { booleans, type Case, casesOf, floatSpec, floats, given, integers, otherFloats, testCase } from "../case.ts";

const floatDTypes = ["float32", ...otherFloats] as const;

/** Numbers at which widths differ: halves of the last place, ties, and the ends of what float16 holds. */
const widths = [
  0,
  1,
  -1,
  1 + 2 ** -8,
  1 + 2 ** -9,
  1 + 3 * 2 ** -9,
  1 + 2 ** -11,
  1 + 3 * 2 ** -11,
  1 / 3,
  -2 / 3,
  1e-3,
  65504,
  65519,
  65520,
  1e5,
  -1e5,
  2 ** -14,
  2 ** -15,
  2 ** -24,
  2 ** -25,
  3 * 2 ** -25,
  1e-8,
  3e38,
  255.5,
  257,
];

const pairs = floatDTypes.flatMap((from) => floatDTypes.filter((to) => to !== from).map((to) => ({ from, to })));

const narrow = { nmse: 1e-4, reason: "the gradient is rounded to the result's dtype on the way" };

const betweenFloats: Case[] = pairs.flatMap(({ from, to }) => [
  testCase({
    name: `${from}-to-${to}`,
    inputs: { x: given(floatSpec(from, [widths.length]), widths) },
    program: ({ x }) => cast(x, to),
    tolerance: { exact: true },
    gradients: [],
    note: "rounded to nearest, ties to even",
  }),
  testCase({
    name: `${from}-to-${to}-gradient`,
    inputs: { x: floats([3, 4], { dtype: from }) },
    program: ({ x }) => cast(x, to),
    gradientTolerance: narrow,
  }),
]);

export const castCases = casesOf("cast", [
  ...betweenFloats,
  testCase({
    name: "gradient-through-bfloat16",
    inputs: { x: floats([12]), w: floats([12]) },
    program: ({ x, w }) => mul(cast(cast(x, "bfloat16"), "float32") as Tensor, w),
    tolerance: { nmse: 1e-5, reason: "bfloat16 in between" },
    gradientTolerance: { nmse: 1e-5, reason: "bfloat16 in between" },
  }),
  testCase({
    name: "float32-to-int32",
    inputs: { x: given(f32(12), [0, 0.5, -0.5, 0.999, -0.999, 1.5, -1.5, 2.5, -2.5, 16777216, -3e6, 7]) },
    program: ({ x }) => cast(x, "int32"),
    expected: () => ({ value: [0, 0, 0, 0, 0, 1, -1, 2, -2, 16777216, -3e6, 7] }),
    note: "the fraction is dropped",
  }),
  testCase({
    name: "int32-to-float32",
    inputs: { x: given(i32(6), [0, 1, -1, 16777217, -16777219, 2147483647]) },
    program: ({ x }) => cast(x, "float32"),
    tolerance: { exact: true },
    note: "whole numbers that float32 must round",
  }),
  testCase({
    name: "bool-to-float32",
    inputs: { x: booleans([9]) },
    program: ({ x }) => cast(x, "float32"),
    tolerance: { exact: true },
  }),
  testCase({ name: "bool-to-int32", inputs: { x: booleans([9]) }, program: ({ x }) => cast(x, "int32") }),
  testCase({
    name: "int32-to-bool",
    inputs: { x: integers([9], { low: -1, high: 2 }) },
    program: ({ x }) => cast(x, "bool"),
  }),
  testCase({
    name: "float32-to-bool",
    inputs: { x: given(f32(5), [0, 1, -1, 0.25, 1e-20]) },
    program: ({ x }) => cast(x, "bool"),
    expected: () => ({ value: [0, 1, 1, 1, 1] }),
    note: "everything but zero is true",
  }),
  testCase({
    name: "hostile-to-bool",
    inputs: { x: given(f32(6), [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, 2 ** -149, 0]) },
    program: ({ x }) => cast(x, "bool"),
    expected: () => ({ value: [1, 1, 1, 0, 1, 0] }),
    ieee: true,
    note: "NaN is not zero",
  }),
  testCase({
    name: "overflow-to-float16",
    inputs: { x: given(f32(4), [1e5, -1e5, 65504, 3e38]) },
    program: ({ x }) => cast(cast(x, "float16"), "float32"),
    gradients: [],
    rounded: true,
    note: "overflow gives infinity",
  }),
  ...(["int32", "bool"] as const satisfies DType[]).flatMap((dtype) =>
    otherFloats.map((from) =>
      testCase({
        name: `${from}-to-${kindOf(dtype)}`,
        inputs: { x: given(floatSpec(from, [5]), [0, 1, -1, 2.5, -7.75]) },
        program: ({ x }) => cast(x, dtype),
      }),
    ),
  ),
  testCase({ name: "empty", inputs: { x: floats([0, 2]) }, program: ({ x }) => cast(x, "int32") }),
  testCase({
    name: "scalar",
    inputs: { x: given(bool(), [1]) },
    program: ({ x }) => cast(x, "float32"),
    tolerance: { exact: true },
  }),
  testCase({
    name: "symbolic",
    inputs: { x: integers(["B", "T"], { low: -9, high: 9 }) },
    program: ({ x }) => cast(x, "float32"),
    sizes: [
      { B: 2, T: 5 },
      { B: 1, T: 1 },
      { B: 3, T: 0 },
    ],
    tolerance: { exact: true },
  }),
]);
