import { cos, type Tensor } from "@sisa/core";
import { casesOf, floats, hostile, testCase } from "../case.ts";
import { unaryCases } from "./elementwise.ts";
import { unaryRefusals } from "./refusals.ts";

/** Backends reduce the range in float32: near a zero of the function the error is absolute. */
const tolerance = { relative: 2e-6, absolute: 2e-7, reason: "range reduction in float32" };

export const cosCases = casesOf(
  "cos",
  [
    ...unaryCases(cos, {
      tolerance,
      formula: Math.cos,
      hostile: hostile.filter((x) => !(Math.abs(x) > 1 && Number.isFinite(x))),
    }),
    testCase({
      name: "full-turn",
      inputs: { x: floats([257], { low: -7, high: 7 }) },
      program: ({ x }) => cos(x),
      tolerance: { ...tolerance, absolute: 1e-6 },
      note: "the angles that cumulativePhase gives",
    }),
  ],
  unaryRefusals("cos", (x) => cos(x as Tensor)),
);
