import { silu, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const siluCases = casesOf(
  "silu",
  unaryCases(silu, { formula: (x) => x / (1 + Math.exp(-x)) }),
  unaryRefusals("silu", (x) => silu(x as Tensor), "sigmoid: "),
);
