import { expect, it } from "vitest";
import { evaluationReport, metricText } from "./evaluation-report.ts";

it("writes shares in percent, other metrics as they are, and no error where there is none", () => {
  expect(metricText("acc_norm", { value: 0.25, standardError: 0.0125 })).toBe("25.00 ± 1.25 %");
  expect(metricText("perplexity", { value: 12.34567, standardError: 0.5 })).toBe("12.3457 ± 0.5000");
  expect(metricText("perplexity", { value: 1234.5678, standardError: 10 })).toBe("1234.6 ± 10.0");
  expect(metricText("accuracy", { value: 1, standardError: Number.NaN })).toBe("100.00 %");
});

it("shows every metric in a table and a heat map shaded from 0 to 100 percent", () => {
  const html = evaluationReport(
    [
      {
        task: "niah:grid",
        protocol: "own <b>",
        headline: "accuracy",
        items: 4,
        metrics: { accuracy: { value: 0.5, standardError: 0.1 } },
        heatMap: {
          title: "Needles found",
          rows: { name: "depth", values: ["0 %", "100 %"] },
          columns: { name: "tokens", values: ["128"] },
          values: [[0.5], [0]],
        },
      },
    ],
    { title: "Evaluation of <m>", subtitle: "a & b" },
  );
  expect(html).toContain("<h1>Evaluation of &lt;m&gt;</h1>");
  expect(html).toContain("<td>own &lt;b&gt;</td><td>4</td><td>accuracy</td><td>50.00 ± 10.00 %</td>");
  expect(html).toContain("depth \\ tokens");
  expect(html).toContain('<td style="--share:28%">50</td>');
  expect(html).toContain('<td style="--share:0%">0</td>');
});
