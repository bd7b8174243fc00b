import { expect, it } from "vitest";
import { type MetricsRecord, metricsLine, parseMetricsLine } from "./metrics.ts";

const step: MetricsRecord = {
  type: "step",
  step: 3,
  tokens: 6144,
  loss: 2.5,
  learningRate: 1e-3,
  gradNorm: 1.25,
  tokensPerSecond: 3000,
  elapsedSeconds: 2.05,
  skipped: 0,
};

it("writes a record as one line and reads it back", () => {
  const sample: MetricsRecord = { type: "sample", step: 4, prompt: "a\nb", text: "\u2028 end" };
  const warning: MetricsRecord = { type: "warning", step: 4, message: "step 4 was skipped" };
  for (const record of [step, sample, warning]) {
    expect(metricsLine(record)).not.toContain("\n");
    expect(parseMetricsLine(metricsLine(record))).toEqual(record);
  }
});

it("keeps a loss that is not a number as such", () => {
  const line = metricsLine({ ...step, loss: Number.NaN, gradNorm: Number.POSITIVE_INFINITY });
  expect(JSON.parse(line).loss).toBeNull();
  expect(parseMetricsLine(line)).toMatchObject({ loss: Number.NaN, gradNorm: Number.NaN });
});

it("takes nothing else for a record", () => {
  for (const line of ["", "{", metricsLine(step).slice(0, -4), "3", "null", '{"type":"other","step":1}']) {
    expect(parseMetricsLine(line), line).toBeUndefined();
  }
});
