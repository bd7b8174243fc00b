import { cast, dimSize, div, f32, ShapeError, sum, type Tensor } from "@sisa/core";
import { booleans, casesOf, floats, integers, refusal, testCase } from "../case.ts";

export const dimSizeCases = casesOf(
  "dimSize",
  [
    testCase({
      name: "fixed",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => ({ first: dimSize(x, 0), last: dimSize(x, -1) }),
      expected: () => ({ first: [3], last: [5] }),
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T"]) },
      program: ({ x }) => dimSize(x, 1),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    testCase({
      name: "mean",
      inputs: { x: floats(["T"]) },
      program: ({ x }) => div(sum(x), cast(dimSize(x, 0), "float32") as Tensor),
      sizes: [{ T: 7 }, { T: 1 }],
    }),
    testCase({
      name: "int32",
      inputs: { x: integers(["T"], { high: 3 }) },
      program: ({ x }) => dimSize(x, 0),
      sizes: [{ T: 4 }],
    }),
    testCase({ name: "bool", inputs: { x: booleans(["T"]) }, program: ({ x }) => dimSize(x, 0), sizes: [{ T: 4 }] }),
  ],
  [
    refusal({
      name: "axis",
      inputs: { x: f32(3) },
      program: ({ x }) => dimSize(x, 1),
      error: ShapeError,
      message: "dimSize: expected an axis from -1 to 0, got 1",
    }),
  ],
);
