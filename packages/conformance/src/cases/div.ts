import { div, type Tensor } from "@sisa/core";
import { awayFromZero, casesOf } from "../case.ts";
import { binaryCases } from "./elementwise.ts";
import { binaryRefusals } from "./refusals.ts";

export const divCases = casesOf(
  "div",
  binaryCases((a, b) => div(a as Tensor, b as Tensor), { b: awayFromZero, formula: (a, b) => a / b }),
  binaryRefusals("div", (a, b) => div(a as Tensor, b as Tensor), { integers: false }),
);
