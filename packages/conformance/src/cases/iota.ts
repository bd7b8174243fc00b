import { add, cast, f32, GraphError, iota, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floats, refusal, testCase } from "../case.ts";

export const iotaCases = casesOf(
  "iota",
  [
    testCase({ name: "five", inputs: {}, program: () => iota(5), expected: () => ({ value: [0, 1, 2, 3, 4] }) }),
    testCase({ name: "one", inputs: {}, program: () => iota(1) }),
    testCase({ name: "none", inputs: {}, program: () => iota(0) }),
    testCase({ name: "large", inputs: {}, program: () => iota(70_001) }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["T", 2]) },
      program: ({ x }) => ({ value: iota("T"), sum: add(x, cast(iota(2), "float32") as Tensor) }),
      sizes: [{ T: 9 }, { T: 1 }, { T: 0 }],
    }),
    testCase({
      name: "symbolic-arithmetic",
      inputs: { x: floats(["B", "T"]) },
      program: ({ x }) => ({
        value: iota(
          x.shape[0]
            ?.times(x.shape[1] ?? 1)
            .plus(3)
            .ceilDiv(4) ?? 0,
        ),
        x,
      }),
      sizes: [
        { B: 3, T: 5 },
        { B: 1, T: 1 },
        { B: 2, T: 0 },
      ],
    }),
  ],
  [
    refusal({
      name: "negative",
      inputs: { x: f32() },
      program: ({ x }) => ({ x, value: iota(-1) }),
      error: ShapeError,
      message: "iota: sizes must be >= 0, got [-1]",
    }),
    refusal({
      name: "fraction",
      inputs: { x: f32() },
      program: ({ x }) => ({ x, value: iota(1.5) }),
      error: GraphError,
      message: "dim: expected a whole number, got 1.5",
    }),
  ],
);
