// What tasks measured, as a page: a table, and the heat maps as pictures.
import type { TaskResult } from "../evaluation/evaluate.ts";
import type { HeatMap, Metric } from "../evaluation/task.ts";
import { heatTable } from "./heat-table.ts";
import { escapeHtml } from "./html.ts";
import { htmlPage, pageHeader } from "./page.ts";

/** Metrics that are shares of items, shown in percent. */
const shares = ["accuracy", "acc", "acc_norm", "all", "last"];

/** A metric as people read it: "34.5 ± 1.2 %", "12.34 ± 0.56". */
export function metricText(name: string, { value, standardError }: Metric): string {
  const isShare = shares.includes(name);
  const scale = isShare ? 100 : 1;
  const decimals = isShare ? 2 : Math.abs(value) < 100 ? 4 : 1;
  const error = Number.isFinite(standardError) ? ` ± ${(scale * standardError).toFixed(decimals)}` : "";
  return `${(scale * value).toFixed(decimals)}${error}${isShare ? " %" : ""}`;
}

/**
 * The report as the text of an HTML file.
 * @param about.title    heads the page
 * @param about.subtitle a line under it
 */
export function evaluationReport(
  results: readonly TaskResult[],
  about: { readonly title: string; readonly subtitle?: string },
): string {
  const { title, subtitle } = about;
  const rows = results.flatMap(({ task, protocol, items, metrics }) =>
    Object.entries(metrics).map(([name, metric], index) => {
      const names = index === 0 ? [task, protocol, String(items)] : ["", "", ""];
      const cells = [...names.slice(1), name, metricText(name, metric)].map((cell) => `<td>${escapeHtml(cell)}</td>`);
      return `<tr><th scope="row">${escapeHtml(names[0] ?? "")}</th>${cells.join("")}</tr>`;
    }),
  );
  const head = ["Task", "Protocol", "Items", "Metric", "Value ± standard error"];
  const table =
    `<section><h2>Results</h2><div class="scroll"><table><thead><tr>` +
    `${head.map((name) => `<th scope="col">${name}</th>`).join("")}</tr></thead><tbody>${rows.join("")}</tbody></table></div></section>`;
  const maps = results.flatMap(({ task, heatMap }) =>
    heatMap === undefined ? [] : [`<section><h2>${escapeHtml(task)}</h2>${heatMapTable(heatMap)}</section>`],
  );
  return htmlPage({ title, body: [pageHeader(title, subtitle), table, ...maps], charts: {} });
}

/** A map of shares as a table shaded from 0 to 100 %. */
export function heatMapTable({ title, rows, columns, values }: HeatMap): string {
  return heatTable({
    title,
    note: "In percent.",
    corner: `${rows.name} \\ ${columns.name}`,
    rows: rows.values,
    columns: columns.values,
    values,
    range: [0, 1],
    text: (value) => (100 * value).toFixed(0),
  });
}
