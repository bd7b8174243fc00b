import { maximum, type Tensor } from "@sisa/core";
import { casesOf, floatSpec, given, testCase } from "../case.ts";
import { binaryCases, grid } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const maximumCases = casesOf(
  "maximum",
  [
    ...binaryCases((a, b) => maximum(a as Tensor, b as Tensor), {
      a: grid(0),
      b: grid(0.5),
      integers: { low: -9, high: 9 },
      formula: Math.max,
    }),
    testCase({
      name: "ties",
      inputs: {
        a: given(floatSpec("float32", [4]), [1, 2, -1, 0]),
        b: given(floatSpec("float32", [4]), [1, 3, -2, 0]),
      },
      program: ({ a, b }) => maximum(a, b),
      differences: "none",
      expectedGradients(_inputs, { value }) {
        const [p = 0, q = 0, r = 0, s = 0] = value?.data ?? [];
        return { a: [p, 0, r, s], b: [0, q, 0, 0] };
      },
      note: "where both are equal the gradient goes to a",
    }),
  ],
  binaryRefusals("maximum", (a, b) => maximum(a as Tensor, b as Tensor)),
);
