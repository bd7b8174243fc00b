import { exp, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const expCases = casesOf(
  "exp",
  unaryCases(exp, { formula: Math.exp }),
  unaryRefusals("exp", (x) => exp(x as Tensor)),
);
