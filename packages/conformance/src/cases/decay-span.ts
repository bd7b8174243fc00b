import { blockCumulativeSum, concat, decayBlock, decaySpan, i32, slice } from "@sisa/core";
import { casesOf, floats, given, testCase } from "../case.ts";
import { at } from "./formulas.ts";

/** By how much decay has fallen from position 0 to the last of T queries that begin at `starts`, in a cache of C. */
function span(name: string, { T, C, starts }: { T: number; C: number; starts: number[] }) {
  const B = starts.length;
  return testCase({
    name,
    inputs: { logDecay: floats([B, C, 2], { low: -0.5, high: 0 }), queryStart: given(i32(B), starts) },
    program: ({ logDecay, queryStart }) => {
      const g = blockCumulativeSum({ x: logDecay }, { size: decayBlock });
      const rows = starts.map((start, batch) =>
        slice(slice(g, { axis: 0, start: batch, end: batch + 1 }), { axis: 1, start, end: start + T }),
      );
      return decaySpan(concat(rows, { axis: 0 }), g, queryStart);
    },
    tolerance: { absolute: 1e-5, reason: "a difference of sums" },
    gradients: [],
    expected({ logDecay }) {
      const value = starts.flatMap((start, batch) =>
        [0, 1].map((head) => {
          let fallen = 0;
          for (let t = 1; t < start + T; t++) fallen -= at(logDecay, batch, t, head);
          return fallen;
        }),
      );
      return { value };
    },
  });
}

/** `decaySpan` is a function, spelt with other operations. */
export const decaySpanCases = casesOf("decaySpan", [
  span("one-block", { T: 5, C: 9, starts: [0, 4] }),
  span("one-token", { T: 1, C: 70, starts: [0, 63, 64, 69] }),
  span("over-blocks", { T: 9, C: 200, starts: [60, 120, 191] }),
]);
