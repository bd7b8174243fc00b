import { cos, cumulativePhase, DTypeError, f32, i32, mul, ShapeError, sin, type Tensor } from "@sisa/core";
import { casesOf, floatSpec, floats, otherFloats, refusal, testCase, type Values } from "../case.ts";
import { unaryRefusals } from "./refusals.ts";

const few = { angle: 2e-6 };

/** Sums in float64 over time, of [B,T,N], whole turns included. */
function phases({ x, before }: Values) {
  const [batches = 0, length = 0, row = 1] = x?.shape ?? [];
  const value = new Float64Array(batches * length * row);
  for (let batch = 0; batch < batches; batch++) {
    for (let i = 0; i < row; i++) {
      let total = before?.data[batch * row + i] ?? 0;
      for (let t = 0; t < length; t++) {
        total += x?.data[(batch * length + t) * row + i] ?? 0;
        value[(batch * length + t) * row + i] = total;
      }
    }
  }
  return { value };
}

/** Mean angles per token. */
const speeds = [0.01, 0.5, 3];

export const cumulativePhaseCases = casesOf(
  "cumulativePhase",
  [
    testCase({
      name: "short",
      inputs: { x: floats([2, 5, 3], { low: 0, high: 3 }) },
      program: ({ x }) => cumulativePhase({ x }),
      tolerances: { value: few },
      expected: phases,
      gradients: [],
      note: "the sum of gradients is tested by trigonometric; a turn would jump here",
    }),
    testCase({
      name: "backwards",
      inputs: { x: floats([2, 5, 3], { low: -3, high: 3 }) },
      program: ({ x }) => cumulativePhase({ x }),
      tolerances: { value: few },
      expected: phases,
      gradients: [],
    }),
    testCase({
      name: "trigonometric",
      inputs: { x: floats([2, 9, 3], { low: -3, high: 3 }) },
      program: ({ x }) => {
        const phi = cumulativePhase({ x });
        return { cosine: cos(phi), sine: sin(phi) };
      },
      tolerance: { absolute: 2e-6 },
    }),
    testCase({
      name: "continued",
      inputs: { x: floats([2, 5, 3], { low: -3, high: 3 }), before: floats([2, 3], { low: 0, high: 6 }) },
      program: ({ x, before }) => cumulativePhase({ x, before }),
      tolerances: { value: few },
      expected: phases,
      gradients: [],
    }),
    testCase({
      name: "continued-trigonometric",
      inputs: { x: floats([2, 5, 3], { low: -3, high: 3 }), before: floats([2, 3], { low: 0, high: 6 }) },
      program: ({ x, before }) => sin(cumulativePhase({ x, before })),
      tolerance: { absolute: 2e-6 },
    }),
    testCase({
      name: "no-width",
      inputs: { x: floats([2, 5]) },
      program: ({ x }) => mul(sin(cumulativePhase({ x })), 2),
      tolerance: { absolute: 2e-6 },
    }),
    testCase({
      name: "empty",
      inputs: { x: floats([2, 0, 3]) },
      program: ({ x }) => cumulativePhase({ x }),
      tolerances: { value: few },
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 2], { low: -3, high: 3 }) },
      program: ({ x }) => cumulativePhase({ x }),
      tolerances: { value: few },
      sizes: [
        { B: 2, T: 65 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
      gradients: [],
    }),
    ...speeds.map((speed) =>
      testCase({
        name: `long-${speed}`,
        inputs: { x: floats([1, 8192, 4], { low: 0, high: 2 * speed }) },
        program: ({ x }) => cumulativePhase({ x }),
        tolerances: { value: { angle: 5e-4, reason: "the bound of the operation's description" } },
        expected: phases,
        gradients: [],
      }),
    ),
    testCase({
      name: "long-gradient",
      inputs: { x: floats([1, 8192, 1], { low: 0, high: 6 }) },
      program: ({ x }) => sin(cumulativePhase({ x })),
      tolerance: { absolute: 5e-4, reason: "the bound of the operation's description" },
      gradientTolerance: { nmse: 1e-6, reason: "cosines of angles that may be off by 5e-4" },
      differences: { step: 1e-5, elements: 2, relative: 1e-4 },
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([2, 5, 3], { dtype }) },
        program: ({ x }) => cumulativePhase({ x }),
        tolerances: {
          value: { angle: dtype === "bfloat16" ? 0.02 : 2e-3, reason: "the dtype's last place near a turn" },
        },
        gradients: [],
      }),
    ),
    testCase({
      name: "hostile",
      inputs: {
        x: floats([1, 4, 3], { special: [Number.NaN, Number.POSITIVE_INFINITY, 1, 1, 1, Number.NEGATIVE_INFINITY] }),
      },
      program: ({ x }) => cumulativePhase({ x }),
      tolerances: { value: few },
      ieee: true,
      note: "NaN from there on, in that column",
    }),
  ],
  [
    ...unaryRefusals("cumulativePhase", (x) => cumulativePhase({ x: x as Tensor })),
    refusal({
      name: "rank",
      inputs: { x: f32(3) },
      program: ({ x }) => cumulativePhase({ x }),
      error: ShapeError,
      message: "cumulativePhase: x must be [B,T,...], got [3]",
    }),
    refusal({
      name: "shape of before",
      inputs: { x: f32(2, 3, 4), before: f32(2, 3) },
      program: ({ x, before }) => cumulativePhase({ x, before }),
      error: ShapeError,
      message: "cumulativePhase: before must be [2,4], got [2,3]",
    }),
    refusal({
      name: "kind of before",
      inputs: { x: f32(2, 3), before: i32(2) },
      program: ({ x, before }) => cumulativePhase({ x, before: before as unknown as Tensor }),
      error: DTypeError,
      message: "cumulativePhase: dtypes differ, got float32[2,3] and int32[2]; cast one of them",
    }),
    refusal({
      name: "width of before",
      inputs: { x: f32(2, 3), before: floatSpec("float64", [2]) },
      program: ({ x, before }) => cumulativePhase({ x, before }),
      error: DTypeError,
      message: "cumulativePhase: dtypes differ, got float32[2,3] and float64[2]; cast one of them",
    }),
  ],
);
