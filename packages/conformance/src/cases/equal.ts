import { equal, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { comparisonCases } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const equalCases = casesOf(
  "equal",
  comparisonCases((a, b) => equal(a as Tensor, b as Tensor)),
  binaryRefusals("equal", (a, b) => equal(a as Tensor, b as Tensor)),
);
