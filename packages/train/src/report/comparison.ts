// Runs of several models beside each other: means over seeds as a table, and curves.
import { type HeatMap, type Metric, meanOf } from "../evaluation/task.ts";
import type { EvaluationRecord, MetricsRecord } from "../metrics/metrics.ts";
import { grouped } from "../metrics/progress-line.ts";
import { type ChartData, type ChartLine, renderChart } from "./chart.ts";
import { heatMapTable } from "./evaluation-report.ts";
import { escapeHtml } from "./html.ts";
import { htmlPage, pageHeader } from "./page.ts";
import { styleCount } from "./page-style.ts";
import type { Point } from "./series.ts";

/** What a run came to. */
export interface RunValues {
  /** Numbers in the model's weights. */
  readonly parameters: number;
  /** Nats a token, after the last step. */
  readonly heldOutLoss: number;
  /** The same loss in bits a byte of text, where bytes can be counted. */
  readonly bitsPerByte?: number | undefined;
  /** Tasks after the last step, by name, as "niah accuracy". */
  readonly measures: Readonly<Record<string, number>>;
  /** Median over the steps. */
  readonly tokensPerSecond: number;
  /** Largest resident memory of the process. */
  readonly peakMemoryBytes: number;
  /** Median time of one token in cached decoding, batch 1. */
  readonly decodeMs: number;
}

/** One run, with what it is compared by. */
export interface ComparedRun {
  /** What it was trained on; runs of different workloads are not compared. */
  readonly workload: string;
  /** As in "sisa 1m". */
  readonly model: string;
  /** Of weights and data order. */
  readonly seed: number;
  /** What it came to. */
  readonly values: RunValues;
  /** What it told on the way, for curves. */
  readonly records: readonly MetricsRecord[];
  /** By rows and columns, as niah:grid measures; drawn for each run. */
  readonly heatMaps?: readonly HeatMap[];
}

/** A model on a workload: means over its seeds. */
export interface ComparedRow {
  /** What the runs were trained on. */
  readonly workload: string;
  /** As in "sisa 1m". */
  readonly model: string;
  /** Of the runs that the means are over. */
  readonly seeds: readonly number[];
  /** Means and standard errors over seeds, by name. */
  readonly values: Readonly<Record<string, Metric>>;
}

/** One row for each model of each workload, in the order in which they first come. */
export function compareRuns(runs: readonly ComparedRun[]): ComparedRow[] {
  return groupsOf(runs).map((group) => {
    const flat = group.map(({ values: { measures, ...plain } }) => ({ ...plain, ...measures }));
    const names = [...new Set(flat.flatMap((values) => Object.keys(values)))];
    const metrics = names.flatMap((name): [string, Metric][] => {
      const values = flat.map((run) => run[name as keyof typeof run]).filter((value) => value !== undefined);
      return values.length === 0 ? [] : [[name, meanOf(values)]];
    });
    const { workload = "", model = "" } = group[0] ?? {};
    return { workload, model, seeds: group.map(({ seed }) => seed), values: Object.fromEntries(metrics) };
  });
}

function groupsOf(runs: readonly ComparedRun[]): ComparedRun[][] {
  const groups = new Map<string, ComparedRun[]>();
  for (const run of runs) {
    const key = JSON.stringify([run.workload, run.model]);
    groups.set(key, [...(groups.get(key) ?? []), run]);
  }
  return [...groups.values()];
}

interface Column {
  readonly title: string;
  readonly text: (value: number) => string;
  /** Spread over seeds is a property of the machine there, and of no interest. */
  readonly withoutError?: boolean;
}

const columns: Readonly<Record<string, Column>> = {
  parameters: { title: "Parameters", text: grouped, withoutError: true },
  heldOutLoss: { title: "Held-out loss, nats a token", text: (value) => value.toFixed(4) },
  bitsPerByte: { title: "Bits a byte", text: (value) => value.toFixed(4) },
  tokensPerSecond: { title: "Tokens a second", text: grouped, withoutError: true },
  peakMemoryBytes: { title: "Peak memory, MB", text: (value) => (value / 1e6).toFixed(0), withoutError: true },
  decodeMs: { title: "Decoding, ms a token", text: (value) => value.toFixed(2), withoutError: true },
};

/** Results come first, then the tasks, then what they cost. */
const firstColumns = ["parameters", "heldOutLoss", "bitsPerByte"];
const lastColumns = ["tokensPerSecond", "peakMemoryBytes", "decodeMs"];

function columnOf(name: string): Column {
  if (columns[name] !== undefined) return columns[name];
  return { title: name, text: (value) => value.toFixed(4) };
}

function columnNames(rows: readonly ComparedRow[]): string[] {
  const all = [...new Set(rows.flatMap((row) => Object.keys(row.values)))];
  const tasks = all.filter((name) => columns[name] === undefined);
  return [...firstColumns, ...tasks, ...lastColumns].filter((name) => all.includes(name));
}

function cellText(name: string, metric: Metric | undefined): string {
  if (metric === undefined) return "–";
  const { text, withoutError } = columnOf(name);
  const error =
    withoutError === true || !Number.isFinite(metric.standardError) ? "" : ` ± ${text(metric.standardError)}`;
  return `${text(metric.value)}${error}`;
}

function workloadsOf(rows: readonly ComparedRow[]): string[] {
  return [...new Set(rows.map((row) => row.workload))];
}

/** The table as Markdown, a part for each workload: mean ± standard error over seeds. */
export function comparisonMarkdown(rows: readonly ComparedRow[]): string {
  const parts = workloadsOf(rows).map((workload) => {
    const own = rows.filter((row) => row.workload === workload);
    const names = columnNames(own);
    const line = (cells: readonly string[]): string =>
      `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
    return [
      `### ${workload}`,
      "",
      line(["Model", "Seeds", ...names.map((name) => columnOf(name).title)]),
      line(["---", ...["Seeds", ...names].map(() => "---:")]),
      ...own.map(({ model, seeds, values }) =>
        line([model, seeds.join(", "), ...names.map((name) => cellText(name, values[name]))]),
      ),
    ].join("\n");
  });
  return `${parts.join("\n\n")}\n`;
}

/**
 * The report as the text of an HTML file.
 * @param about.title    heads the page
 * @param about.subtitle a line under it
 */
export function comparisonReport(
  runs: readonly ComparedRun[],
  about: { readonly title: string; readonly subtitle?: string },
): string {
  const { title, subtitle } = about;
  const rows = compareRuns(runs);
  const charts: Record<string, ChartData> = {};
  const sections = workloadsOf(rows).map((workload, index) => {
    const own = rows.filter((row) => row.workload === workload);
    const groups = groupsOf(runs.filter((run) => run.workload === workload));
    const names = [...new Set(runs.flatMap((run) => run.records.flatMap(measureNames)))];
    const curves = [
      curve(
        "Held-out loss (nats a token), mean over seeds",
        `loss-${index}`,
        groups,
        charts,
        (record) => record.heldOutLoss,
      ),
      ...names.map((name, place) =>
        curve(
          `${name}, mean over seeds`,
          `measure-${index}-${place}`,
          groups,
          charts,
          (record) => record.measures?.[name],
        ),
      ),
    ];
    const maps = groups
      .flat()
      .flatMap(({ model, seed, heatMaps = [] }) =>
        heatMaps.map((map) => heatMapTable({ ...map, title: `${map.title}: ${model}, seed ${seed}` })),
      );
    return `<section><h2>${escapeHtml(workload)}</h2>${table(own)}${[...curves, ...maps].join("\n")}</section>`;
  });
  return htmlPage({ title, body: [pageHeader(title, subtitle), ...sections], charts });
}

function measureNames(record: MetricsRecord): string[] {
  return record.type === "evaluation" ? Object.keys(record.measures ?? {}) : [];
}

function table(rows: readonly ComparedRow[]): string {
  const names = columnNames(rows);
  const head = ["Model", "Seeds", ...names.map((name) => columnOf(name).title)];
  const body = rows.map(({ model, seeds, values }, index) => {
    const cells = [seeds.join(", "), ...names.map((name) => cellText(name, values[name]))];
    return (
      `<tr><th scope="row">${swatch(index)}${escapeHtml(model)}</th>` +
      `${cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`
    );
  });
  return (
    `<p class="soft">Mean ± standard error over seeds.</p><div class="scroll"><table><thead><tr>` +
    `${head.map((name) => `<th scope="col">${escapeHtml(name)}</th>`).join("")}</tr></thead>` +
    `<tbody>${body.join("")}</tbody></table></div><br>`
  );
}

function swatch(index: number): string {
  const style = index % styleCount;
  return `<svg class="swatch" viewBox="0 0 26 11" aria-hidden="true"><path class="line style-${style}" d="M1 5.5H25"/></svg>`;
}

/** A figure with one line a model; nothing where no run has values. */
function curve(
  title: string,
  id: string,
  groups: readonly (readonly ComparedRun[])[],
  charts: Record<string, ChartData>,
  value: (record: EvaluationRecord) => number | undefined,
): string {
  const lines = groups.map(
    (group, index): ChartLine => ({
      name: group[0]?.model ?? "",
      style: index % styleCount,
      points: meanCurve(group, value),
      dots: true,
    }),
  );
  const chart = renderChart({ title, axis: "steps", lines: lines.filter(({ points }) => points.length > 0) }, id);
  if (chart === undefined) return "";
  charts[id] = chart.data;
  const key = lines.map(({ name }, index) => `<li>${swatch(index)}${escapeHtml(name)}</li>`).join("");
  return `<figure><figcaption><h3>${escapeHtml(title)}</h3><ul class="key">${key}</ul></figcaption>${chart.html}</figure>`;
}

/** Means at the steps that every seed has. */
function meanCurve(group: readonly ComparedRun[], value: (record: EvaluationRecord) => number | undefined): Point[] {
  const bySeed = group.map(
    ({ records }) =>
      new Map(
        records.flatMap((record): [number, number][] => {
          const y = record.type === "evaluation" ? value(record) : undefined;
          return y === undefined ? [] : [[record.step, y]];
        }),
      ),
  );
  const steps = [...(bySeed[0]?.keys() ?? [])].filter((step) => bySeed.every((values) => values.has(step)));
  return steps.map((step) => ({ x: step, y: meanOf(bySeed.map((values) => values.get(step) ?? Number.NaN)).value }));
}
