import { type Tensor, tanh } from "@sisa/core";
import { casesOf } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

export const tanhCases = casesOf(
  "tanh",
  unaryCases(tanh, { formula: Math.tanh }),
  unaryRefusals("tanh", (x) => tanh(x as Tensor)),
);
