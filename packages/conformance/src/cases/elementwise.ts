// Cases that all elementwise operations share: sizes, layouts, broadcasting, widths, hostile numbers.

import { type AnyTensor, slice, type Tensor, transpose } from "@sisa/core";
import {
  type Case,
  type Differences,
  type FloatDType,
  floatSpec,
  floats,
  given,
  hostile,
  type InputRecipe,
  integers,
  otherFloats,
  type Tolerance,
  testCase,
} from "../case.ts";

/** A few units in the last place of float32: what a good elementwise kernel is off by. */
export const fewUnits: Tolerance = { relative: 2e-6 };

/** Makes the elements for a shape; other dtypes are cut to their width. */
type Recipe = (shape: readonly (number | string)[], options?: { readonly dtype?: FloatDType }) => InputRecipe<"float">;

interface UnaryOptions {
  /** Where the operation is smooth. Default: uniform from -2 to 2. */
  readonly domain?: Recipe;
  readonly tolerance?: Tolerance;
  /** Of the case with hostile numbers, where it is another. */
  readonly hostileTolerance?: Tolerance;
  /** Instead of `hostile`. */
  readonly hostile?: readonly number[];
  readonly differences?: Differences;
  /** The same on one number, for float64. */
  readonly formula?: (x: number) => number;
}

/** Multiples of 1/16, moved by a part of that: grids with different `offset`s have no elements close to one another. */
export const grid =
  (offset: number): Recipe =>
  (shape, options) => ({
    ...floats(shape, options),
    fill: (stream, count) =>
      Float64Array.from({ length: count }, (_, index) => (stream.below(65, index) - 32 + offset) / 16),
  });

const anywhere: Recipe = (shape, options) => floats(shape, { low: -2, high: 2, ...options });

/** Cases of an operation on each element of one float tensor. */
export function unaryCases(apply: (x: Tensor) => AnyTensor, options: UnaryOptions = {}): Case[] {
  const { domain = anywhere, tolerance = fewUnits, formula } = options;
  const on = (name: string, x: InputRecipe<"float">, more: Partial<Case> = {}): Case => ({
    ...testCase({ name, inputs: { x }, program: ({ x }) => apply(x), tolerance }),
    ...(options.differences && { differences: options.differences }),
    ...more,
  });
  const strided = testCase({
    name: "strided",
    inputs: { x: domain([5, 7]) },
    program: ({ x }) => apply(slice(transpose(x, [1, 0]), { axis: 0, start: 2, end: 6 })),
    tolerance,
  });
  return [
    on(
      "vector",
      domain([17]),
      formula && { expected: ({ x }) => ({ value: Float64Array.from(x?.data ?? [], formula) }) },
    ),
    on("scalar", domain([])),
    on("empty", domain([0, 3])),
    on("large", domain([70_001]), { differences: { ...options.differences, elements: 0 } }),
    strided,
    on("symbolic", domain(["T", 3]), { sizes: [{ T: 5 }, { T: 1 }, { T: 0 }] }),
    ...otherFloats.map((dtype) => on(dtype, domain([4, 5], { dtype }), { tolerance: {} })),
    on("hostile", given(floatSpec("float32", [hostile.length]), options.hostile ?? hostile), {
      ieee: true,
      tolerance: options.hostileTolerance ?? tolerance,
    }),
  ];
}

interface BinaryOptions {
  readonly a?: Recipe;
  readonly b?: Recipe;
  readonly tolerance?: Tolerance;
  /** Also whole numbers, with these bounds. */
  readonly integers?: { readonly low: number; readonly high: number };
  readonly formula?: (a: number, b: number) => number;
  readonly hostile?: readonly number[];
}

/** Cases of an operation on the elements of two float tensors that broadcast. */
export function binaryCases(
  apply: (a: AnyTensor, b: AnyTensor | number) => AnyTensor,
  options: BinaryOptions = {},
): Case[] {
  const { a = anywhere, b = anywhere, tolerance = fewUnits, formula } = options;
  const program = ({ a, b }: { readonly a: AnyTensor; readonly b: AnyTensor }) => apply(a, b);
  const on = (name: string, left: InputRecipe, right: InputRecipe, more: Partial<Case> = {}): Case => ({
    name,
    inputs: { a: left, b: right },
    program: program as Case["program"],
    sizes: [{}],
    tolerance,
    ...more,
  });
  const extremes = options.hostile ?? hostile;
  const whole = options.integers;
  return [
    on(
      "vector",
      a([19]),
      b([19]),
      formula && {
        expected: ({ a, b }) => ({
          value: Float64Array.from(a?.data ?? [], (x, index) => formula(x, b?.data[index] ?? 0)),
        }),
      },
    ),
    on("scalars", a([]), b([])),
    on("empty", a([0, 4]), b([0, 4])),
    on("broadcast-row", a([6, 5]), b([5])),
    on("broadcast-column", a([6, 1]), b([6, 5])),
    on("broadcast-scalar", a([]), b([3, 2, 4])),
    on("broadcast-both", a([4, 1, 3]), b([2, 1])),
    on("broadcast-to-empty", a([0, 3]), b([1, 1])),
    on("broadcast-one-to-none", a([1]), b([0])),
    on("large", a([70_001]), b([70_001]), { differences: { elements: 0 } }),
    on("large-broadcast", a([257, 130]), b([130]), { differences: { elements: 0 } }),
    on("strided", a([5, 7]), b([7, 5]), {
      program: ({ a, b }) => apply(transpose(a as Tensor, [1, 0]), b as Tensor),
    }),
    testCase({
      name: "number",
      inputs: { a: a([3, 4]) },
      program: ({ a }) => apply(a, 1.5),
      tolerance,
    }),
    testCase({
      name: "with-itself",
      inputs: { a: b([3, 4]) },
      program: ({ a }) => apply(a, a),
      tolerance,
      differences: "none",
      note: "both operands are one tensor",
    }),
    on("symbolic", a(["B", "T", 3]), b(["T", 1]), {
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    ...otherFloats.map((dtype) => on(dtype, a([4, 5], { dtype }), b([5], { dtype }), { tolerance: {} })),
    ...(whole
      ? [
          on("int32", integers([4, 5], whole), integers([5], whole)),
          on("int32-empty", integers([0], whole), integers([1], whole)),
        ]
      : []),
    on(
      "hostile",
      given(floatSpec("float32", [extremes.length, 1]), extremes),
      given(floatSpec("float32", [extremes.length]), extremes),
      { ieee: true },
    ),
  ];
}

/** Cases of a comparison. */
export function comparisonCases(apply: (a: AnyTensor, b: AnyTensor | number) => AnyTensor): Case[] {
  const few: Recipe = (shape, options) => ({
    ...floats(shape, options),
    fill: (stream, count) => Float64Array.from({ length: count }, (_, index) => stream.below(3, index) / 2),
  });
  return binaryCases(apply, { a: few, b: few, integers: { low: -2, high: 2 } });
}
