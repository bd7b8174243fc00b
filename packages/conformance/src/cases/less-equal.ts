import { lessEqual, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { comparisonCases } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const lessEqualCases = casesOf(
  "lessEqual",
  comparisonCases((a, b) => lessEqual(a as Tensor, b as Tensor)),
  binaryRefusals("lessEqual", (a, b) => lessEqual(a as Tensor, b as Tensor)),
);
