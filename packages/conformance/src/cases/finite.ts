import { finite, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const finiteCases = casesOf(
  "finite",
  unaryCases(finite),
  unaryRefusals("finite", (x) => finite(x as Tensor)),
);
