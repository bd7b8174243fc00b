import { apply, DTypeError, f32, i32, ShapeError, swiglu, swigluBackwardOp, type Tensor } from "@sisa/core";
import { casesOf, floats, given, otherFloats, refusal, testCase, type Values } from "../case.ts";

function formula({ gate, up }: Values) {
  const value = Float64Array.from(gate?.data ?? [], (x, index) => (x / (1 + Math.exp(-x))) * (up?.data[index] ?? 0));
  return { value };
}

const range = { low: -4, high: 4 };

export const swigluCases = casesOf(
  "swiglu",
  [
    testCase({
      name: "rows",
      inputs: { gate: floats([5, 7], range), up: floats([5, 7]) },
      program: ({ gate, up }) => swiglu(gate, up),
      expected: formula,
    }),
    testCase({
      name: "vector",
      inputs: { gate: floats([9], range), up: floats([9]) },
      program: ({ gate, up }) => swiglu(gate, up),
    }),
    testCase({
      name: "empty",
      inputs: { gate: floats([0, 3]), up: floats([0, 3]) },
      program: ({ gate, up }) => swiglu(gate, up),
    }),
    testCase({
      name: "saturated",
      inputs: { gate: given(f32(6), [200, -200, 90, -90, 30, -30]), up: given(f32(6), [1, 1, 2, 2, 3, 3]) },
      program: ({ gate, up }) => swiglu(gate, up),
      note: "no exponential overflows",
    }),
    testCase({
      name: "large",
      inputs: { gate: floats([70, 1001], range), up: floats([70, 1001]) },
      program: ({ gate, up }) => swiglu(gate, up),
    }),
    testCase({
      name: "symbolic",
      inputs: { gate: floats(["B", "T", 5], range), up: floats(["B", "T", 5]) },
      program: ({ gate, up }) => swiglu(gate, up),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { gate: floats([3, 7], { dtype, ...range }), up: floats([3, 7], { dtype }) },
        program: ({ gate, up }) => swiglu(gate, up),
      }),
    ),
    testCase({
      name: "hostile",
      inputs: {
        gate: given(f32(6), [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1, 3e38, -3e38]),
        up: given(f32(6), [1, 1, 1, Number.NaN, 2, 2]),
      },
      program: ({ gate, up }) => swiglu(gate, up),
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "width",
      inputs: { gate: f32(2, 4), up: f32(2, 3) },
      program: ({ gate, up }) => swiglu(gate, up),
      error: ShapeError,
      message: "swiglu: up must be [2,4] like gate, got [2,3]",
    }),
    refusal({
      name: "leading axes",
      inputs: { gate: f32(2, 3, 4), up: f32(3, 4) },
      program: ({ gate, up }) => swiglu(gate, up),
      error: ShapeError,
      message: "swiglu: up must be [2,3,4] like gate, got [3,4]",
    }),
    refusal({
      name: "integers",
      inputs: { gate: i32(4), up: i32(4) },
      program: ({ gate, up }) => swiglu(gate as unknown as Tensor, up as unknown as Tensor),
      error: DTypeError,
      message: "swiglu: gate must be float, got int32[4]",
    }),
  ],
);

export const swigluBackwardCases = casesOf("swigluBackward", [
  testCase({
    name: "rows",
    inputs: { gate: floats([5, 7], range), up: floats([5, 7]), gradient: floats([5, 7]) },
    program: (inputs) => apply(swigluBackwardOp, inputs, {}),
    note: "also run by the gradients of swiglu",
  }),
  testCase({
    name: "symbolic",
    inputs: { gate: floats(["T", 5], range), up: floats(["T", 5]), gradient: floats(["T", 5]) },
    program: (inputs) => apply(swigluBackwardOp, inputs, {}),
    sizes: [{ T: 5 }, { T: 1 }, { T: 0 }],
  }),
]);
