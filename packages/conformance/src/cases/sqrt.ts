import { sqrt, type Tensor } from "@sisa/core";
import { casesOf, floats } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const sqrtCases = casesOf(
  "sqrt",
  unaryCases(sqrt, {
    domain: (shape, options) => floats(shape, { low: 0.25, high: 4, ...options }),
    formula: Math.sqrt,
  }),
  unaryRefusals("sqrt", (x) => sqrt(x as Tensor)),
);
