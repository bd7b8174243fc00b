import { log, type Tensor } from "@sisa/core";
import { casesOf, floats } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const logCases = casesOf(
  "log",
  unaryCases(log, { domain: (shape, options) => floats(shape, { low: 0.25, high: 4, ...options }), formula: Math.log }),
  unaryRefusals("log", (x) => log(x as Tensor)),
);
