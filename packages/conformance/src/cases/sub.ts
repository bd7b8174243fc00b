import { sub, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { binaryCases } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const subCases = casesOf(
  "sub",
  binaryCases((a, b) => sub(a as Tensor, b as Tensor), {
    integers: { low: -9, high: 9 },
    formula: (a, b) => a - b,
  }),
  binaryRefusals("sub", (a, b) => sub(a as Tensor, b as Tensor)),
);
