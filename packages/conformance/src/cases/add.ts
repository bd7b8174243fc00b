import { add, type Tensor } from "@sisa/core";
import { casesOf, floats, testCase } from "../case.ts";
import { binaryCases } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const addCases = casesOf(
  "add",
  [
    ...binaryCases((a, b) => add(a as Tensor, b as Tensor), {
      integers: { low: -9, high: 9 },
      formula: (a, b) => a + b,
    }),
    testCase({
      name: "perf-16M",
      inputs: { a: floats([4096, 1024]), b: floats([4096, 1024]) },
      program: ({ a, b }) => add(a, b),
      perf: true,
    }),
  ],
  binaryRefusals("add", (a, b) => add(a as Tensor, b as Tensor)),
);
