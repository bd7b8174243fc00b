import { floor, type Tensor } from "@sisa/core";
import { casesOf } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const floorCases = casesOf(
  "floor",
  unaryCases(floor, { formula: Math.floor }),
  unaryRefusals("floor", (x) => floor(x as Tensor)),
);
