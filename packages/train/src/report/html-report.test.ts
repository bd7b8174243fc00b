import { describe, expect, it } from "vitest";
import type { MetricsRecord } from "../metrics/metrics.ts";
import { headTable } from "./heads.ts";
import { htmlReport, type ReportRun } from "./html-report.ts";

function records(steps: number, loss: number): MetricsRecord[] {
  return Array.from({ length: steps }, (_, index): MetricsRecord[] => {
    const step = index + 1;
    const common = { step, tokens: step * 100, elapsedSeconds: step * 0.5 };
    return [
      {
        type: "step",
        ...common,
        loss: loss + 1 / step,
        learningRate: 1e-3,
        gradNorm: 1,
        tokensPerSecond: 200,
        skipped: 0,
      },
      ...(step % 5 === 0
        ? [{ type: "evaluation" as const, ...common, heldOutLoss: loss, bitsPerByte: loss * 1.44 }]
        : []),
    ];
  }).flat();
}

const sisa: ReportRun = { name: "SISA", records: records(20, 2), parameterCount: 1234 };
const transformer: ReportRun = { name: "Transformer", records: records(20, 2.5), parameterCount: 1233 };

/** Rows of the first table as texts. */
function resultRows(html: string): string[][] {
  const table = html.slice(html.indexOf("<table"), html.indexOf("</table>"));
  return [...table.matchAll(/<tr>(.*?)<\/tr>/g)].map((row) =>
    [...(row[1] ?? "").matchAll(/<t[hd]([^>]*)>(.*?)<\/t[hd]>/g)].map(
      ([, attributes, text]) => (attributes?.includes("best") ? "*" : "") + (text ?? "").replace(/<[^>]*>/g, ""),
    ),
  );
}

describe("htmlReport", () => {
  it("puts the runs side by side and marks the better one", () => {
    const rows = resultRows(htmlReport([sisa, transformer]));
    expect(rows[0]).toEqual(["", "SISA", "Transformer"]);
    expect(rows).toContainEqual(["Parameters", "1,234", "1,233"]);
    expect(rows).toContainEqual(["Held-out loss, nats a token", "*2.0000", "2.5000"]);
    expect(rows).toContainEqual(["Tokens a second", "200", "200"]);
  });

  it("is one file that asks the network for nothing", () => {
    const html = htmlReport([sisa, transformer]);
    expect(html).not.toMatch(/(src|href)=|url\(|@import|fetch\(|<link/);
    expect(html.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:/);
  });

  it("draws every run by steps, tokens and time", () => {
    const html = htmlReport([sisa, transformer]);
    for (const axis of ["steps", "tokens", "time"]) {
      expect(html).toContain(`data-chart="held-out-${axis}"`);
      expect(html).toContain(`data-chart="training-${axis}"`);
    }
    const data = JSON.parse(/<script type="application\/json" id="chart-data">(.*?)<\/script>/s.exec(html)?.[1] ?? "");
    expect(data["held-out-tokens"].lines.map((line: { name: string }) => line.name)).toEqual(["SISA", "Transformer"]);
    expect(data["held-out-tokens"].lines[1].points).toEqual([
      [500, 2.5],
      [1000, 2.5],
      [1500, 2.5],
      [2000, 2.5],
    ]);
    expect(html).toContain('aria-label="Held-out loss (nats a token) by steps: SISA from 2 to 2; Transformer');
  });

  it("shows lambda and half-life of every head", () => {
    const parameters = { "layers.0.lambda_raw": [-1, 0], "layers.0.alpha_proj.bias": [-5, 0] };
    const heads = headTable(parameters, [[-Math.LN2 / 7, -Math.LN2 / 70]]);
    const html = htmlReport([{ ...sisa, ...(heads && { heads }) }]);
    for (const cell of ["0.313", "0.693", "103", "1.00", "7.00", "70.0"]) expect(html).toContain(`>${cell}</td>`);
    expect(htmlReport([transformer])).not.toContain("Half-life");
  });

  it("shades heads by what is read of them: values that read alike look alike", () => {
    const heads = { layers: ["0"], lambda: [[0.31301, 0.31299, 0.5]], halfLife: [[1, 1, 1]] };
    const [, lambdas] = htmlReport([{ ...sisa, heads }]).split("<h3>Lambda</h3>");
    const shades = [...(lambdas ?? "").matchAll(/--share:(\d+)%">0\.(313|500)/g)].map(([, share]) => Number(share));
    expect(shades).toEqual([0, 0, 55]);
  });

  it("escapes what the model wrote", () => {
    const evil = "</script><script>alert(1)</script>\u2028&";
    const html = htmlReport([
      {
        name: evil,
        records: [...records(5, 1), { type: "sample", step: 5, prompt: evil, text: evil }],
        configuration: { evil },
      },
    ]);
    expect(html.match(/<script/g)).toHaveLength(2);
    expect(html).not.toContain("alert(1)<");
    expect(html).toContain("&lt;/script&gt;");
  });

  it("makes a page of a run that has nothing yet, or one point, or only steps that were not finite", () => {
    expect(htmlReport([{ name: "empty", records: [] }])).toContain("<h1>empty</h1>");
    const broken = records(3, Number.NaN);
    for (const html of [
      htmlReport([{ name: "x", records: broken }]),
      htmlReport([{ name: "y", records: records(1, 2) }]),
    ]) {
      const content = html.slice(html.indexOf("<main>"), html.lastIndexOf("<script>"));
      for (const word of ["NaN", "Infinity", "undefined"]) expect(content).not.toContain(word);
    }
  });

  it("lists warnings", () => {
    const html = htmlReport([{ name: "x", records: [{ type: "warning", step: 3, message: "step 3 was skipped" }] }]);
    expect(html).toContain("<li>x, step 3: step 3 was skipped</li>");
  });
});
