import { log1p, type Tensor } from "@sisa/core";
import { casesOf, floats } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const log1pCases = casesOf(
  "log1p",
  unaryCases(log1p, {
    domain: (shape, options) => floats(shape, { low: -0.5, high: 4, ...options }),
    formula: Math.log1p,
  }),
  unaryRefusals("log1p", (x) => log1p(x as Tensor)),
);
