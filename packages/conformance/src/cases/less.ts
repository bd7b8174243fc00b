import { less, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { comparisonCases } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const lessCases = casesOf(
  "less",
  comparisonCases((a, b) => less(a as Tensor, b as Tensor)),
  binaryRefusals("less", (a, b) => less(a as Tensor, b as Tensor)),
);
