import { clipFactor, f32, globalNorm, ShapeError } from "@sisa/core";
import { casesOf, floats, given, otherFloats, refusal, testCase } from "../case.ts";

export const globalNormCases = casesOf(
  "globalNorm",
  [
    testCase({
      name: "tensors",
      inputs: { a: floats([5, 7]), b: floats([3]), c: floats([]) },
      program: ({ a, b, c }) => globalNorm([a, b, c]),
      expected: ({ a, b, c }) => {
        const all = [...(a?.data ?? []), ...(b?.data ?? []), ...(c?.data ?? [])];
        return { value: [Math.sqrt(all.reduce((sum, x) => sum + x * x, 0))] };
      },
    }),
    testCase({ name: "one", inputs: { a: floats([9]) }, program: ({ a }) => globalNorm([a]) }),
    testCase({
      name: "with-empty",
      inputs: { a: floats([9]), b: floats([0]) },
      program: ({ a, b }) => globalNorm([a, b]),
    }),
    testCase({ name: "large", inputs: { a: floats([70_001]) }, program: ({ a }) => globalNorm([a]) }),
    testCase({
      name: "clip",
      inputs: { a: floats([9], { low: 5, high: 9 }), b: floats([9], { low: 0, high: 0.01 }) },
      program: ({ a, b }) => ({ clipped: clipFactor(globalNorm([a]), 1), left: clipFactor(globalNorm([b]), 1) }),
    }),
    testCase({
      name: "symbolic",
      inputs: { a: floats(["T", 3]), b: floats(["T"]) },
      program: ({ a, b }) => globalNorm([a, b]),
      sizes: [{ T: 5 }, { T: 1 }],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { a: floats([40], { dtype }), b: floats([3], { dtype }) },
        program: ({ a, b }) => globalNorm([a, b]),
        note: "narrow floats are widened",
      }),
    ),
    testCase({
      name: "float32-and-bfloat16",
      inputs: { a: floats([40], { dtype: "bfloat16" }), b: floats([3]) },
      program: ({ a, b }) => globalNorm([a, b]),
    }),
    testCase({
      name: "overflow",
      inputs: { a: given(f32(3), [1e30, 1, 2]), b: floats([2]) },
      program: ({ a, b }) => globalNorm([a, b]),
      gradients: [],
      rounded: true,
      note: "squares are beyond float32: an infinity, which is how a step is found not to be finite",
    }),
    testCase({
      name: "hostile",
      inputs: { a: given(f32(2), [Number.NaN, 1]), b: given(f32(2), [Number.POSITIVE_INFINITY, 1]) },
      program: ({ a, b }) => ({ a: globalNorm([a]), b: globalNorm([b]) }),
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "none",
      inputs: { a: f32() },
      program: ({ a }) => ({ a, norm: globalNorm([]) }),
      error: ShapeError,
      message: "globalNorm: expected at least one tensor, got none",
    }),
  ],
);
