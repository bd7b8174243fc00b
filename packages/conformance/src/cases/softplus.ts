import { softplus, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const softplusCases = casesOf(
  "softplus",
  unaryCases(softplus, { formula: (x) => Math.log(1 + Math.exp(x)) }),
  unaryRefusals("softplus", (x) => softplus(x as Tensor)),
);
