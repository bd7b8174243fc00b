import { bool, DTypeError, neg, type Tensor } from "@sisa/core";
import { casesOf, integers, refusal, testCase } from "../case.ts";
import { unaryCases } from "./elementwise.ts";

export const negCases = casesOf(
  "neg",
  [
    ...unaryCases((x) => neg(x), { tolerance: { exact: true }, formula: (x) => -x }),
    testCase({ name: "int32", inputs: { x: integers([3, 4], { low: -9, high: 9 }) }, program: ({ x }) => neg(x) }),
  ],
  [
    refusal({
      name: "truth values",
      inputs: { x: bool(2) },
      program: ({ x }) => neg(x as unknown as Tensor),
      error: DTypeError,
      message: "neg: x must be float or int, got bool[2]",
    }),
  ],
);
