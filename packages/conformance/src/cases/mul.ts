import { i32, mul, type Tensor } from "@sisa/core";
import { casesOf, given, testCase } from "../case.ts";
import { binaryCases } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const mulCases = casesOf(
  "mul",
  [
    ...binaryCases((a, b) => mul(a as Tensor, b as Tensor), {
      integers: { low: -9, high: 9 },
      formula: (a, b) => a * b,
    }),
    testCase({
      name: "int32-overflow",
      inputs: {
        a: given(i32(4), [2147483647, 65537, -2147483648, 46341]),
        b: given(i32(4), [2147483647, 65537, 3, 46341]),
      },
      program: ({ a, b }) => mul(a, b),
      expected: () => ({ value: [1, 131073, -2147483648, -2147479015] }),
      note: "wraps around at 32 bits",
    }),
  ],
  binaryRefusals("mul", (a, b) => mul(a as Tensor, b as Tensor)),
);
