import { expect, it } from "vitest";
import type { MetricsRecord } from "../metrics/metrics.ts";
import { type ComparedRun, compareRuns, comparisonMarkdown, comparisonReport } from "./comparison.ts";

function runOf(workload: string, model: string, seed: number, loss: number, steps = [10, 20]): ComparedRun {
  const records = steps.map(
    (step): MetricsRecord => ({
      type: "evaluation",
      step,
      tokens: step * 100,
      elapsedSeconds: step,
      heldOutLoss: loss + 1 / step,
      ...(workload === "recall" ? { measures: { "mqar accuracy": loss / 10 } } : {}),
    }),
  );
  const measures: Record<string, number> = workload === "recall" ? { "mqar accuracy": loss / 10 } : {};
  const costs = { tokensPerSecond: 1000 * (seed + 1), peakMemoryBytes: 5e8, decodeMs: 1.5 };
  return { workload, model, seed, records, values: { parameters: 1234, heldOutLoss: loss, measures, ...costs } };
}

const runs = [
  runOf("text", "sisa 1m", 0, 2),
  runOf("text", "sisa 1m", 1, 4),
  runOf("text", "other 1m", 0, 3),
  runOf("recall", "sisa 1m", 0, 1),
  runOf("recall", "sisa 1m", 1, 2, [10]),
];

it("takes the mean over seeds, with its standard error", () => {
  const [sisa, other, recall] = compareRuns(runs);
  expect(sisa).toMatchObject({ workload: "text", model: "sisa 1m", seeds: [0, 1] });
  expect(sisa?.values.heldOutLoss).toEqual({ value: 3, standardError: 1 });
  expect(sisa?.values.tokensPerSecond?.value).toBe(1500);
  expect(sisa?.values).not.toHaveProperty("bitsPerByte");
  expect(other?.values.heldOutLoss).toEqual({ value: 3, standardError: Number.NaN });
  expect(recall?.values["mqar accuracy"]?.value).toBeCloseTo(0.15, 12);
});

it("writes a table for each workload, with the columns that it has", () => {
  expect(comparisonMarkdown(compareRuns(runs))).toBe(`### text

| Model | Seeds | Parameters | Held-out loss, nats a token | Tokens a second | Peak memory, MB | Decoding, ms a token |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| sisa 1m | 0, 1 | 1,234 | 3.0000 ± 1.0000 | 1,500 | 500 | 1.50 |
| other 1m | 0 | 1,234 | 3.0000 | 1,000 | 500 | 1.50 |

### recall

| Model | Seeds | Parameters | Held-out loss, nats a token | mqar accuracy | Tokens a second | Peak memory, MB | Decoding, ms a token |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| sisa 1m | 0, 1 | 1,234 | 1.5000 ± 0.5000 | 0.1500 ± 0.0500 | 1,500 | 500 | 1.50 |
`);
});

it("draws one line a model, the mean over seeds at the steps that all of them have", () => {
  const html = comparisonReport(runs, { title: "smoke", subtitle: "2 of 3 runs are done." });
  const data = JSON.parse(/<script type="application\/json" id="chart-data">(.*?)<\/script>/s.exec(html)?.[1] ?? "");
  expect(data["loss-0"].lines.map((line: { name: string }) => line.name)).toEqual(["sisa 1m", "other 1m"]);
  expect(data["loss-0"].lines[0].points).toEqual([
    [10, 3.1],
    [20, 3.05],
  ]);
  expect(data["measure-1-0"].lines[0].points).toEqual([[10, 0.15]]);
  expect(data).not.toHaveProperty("measure-0-0");
  expect(html).not.toContain('class="heat"');
  const heatMap = {
    title: "Needles found",
    rows: { name: "depth", values: ["0 %"] },
    columns: { name: "tokens", values: ["128", "256"] },
    values: [[1, 0.25]],
  };
  const withMap = comparisonReport([{ ...runOf("text", "sisa 1m", 0, 2), heatMaps: [heatMap] }], { title: "map" });
  expect(withMap).toContain("Needles found: sisa 1m, seed 0");
  expect(withMap).toContain('<td style="--share:55%">100</td><td style="--share:14%">25</td>');
  expect(html).toContain("2 of 3 runs are done.");
  expect(html).not.toMatch(/(src|href)=|url\(|@import|fetch\(|<link/);
});
