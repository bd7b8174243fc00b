import { abs } from "@sisa/core";
import { awayFromZero, casesOf, floatSpec, given, testCase } from "../case.ts";
import { unaryCases } from "./elementwise.ts";

export const absCases = casesOf("abs", [
  ...unaryCases(abs, { domain: awayFromZero, formula: Math.abs }),
  testCase({
    name: "kink",
    inputs: { x: given(floatSpec("float32", [3]), [0, 1, -1]) },
    program: ({ x }) => abs(x),
    differences: "none",
    expectedGradients(_inputs, { value }) {
      const [, up = 0, down = 0] = value?.data ?? [];
      return { x: [0, up, -down] };
    },
    note: "the gradient at 0 is 0",
  }),
]);
