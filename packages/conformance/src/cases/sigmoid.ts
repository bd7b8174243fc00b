import { sigmoid, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const sigmoidCases = casesOf(
  "sigmoid",
  unaryCases(sigmoid, { formula: (x) => 1 / (1 + Math.exp(-x)) }),
  unaryRefusals("sigmoid", (x) => sigmoid(x as Tensor)),
);
