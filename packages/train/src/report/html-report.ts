// A report of one or several runs as one HTML file that needs nothing else, no network either.
import type { EvaluationRecord, MetricsRecord, SampleRecord, StepRecord } from "../metrics/metrics.ts";
import { clock, grouped } from "../metrics/progress-line.ts";
import { type Chart, type ChartData, type ChartLine, renderChart } from "./chart.ts";
import type { HeadTable, HeadValues } from "./heads.ts";
import { heatTable } from "./heat-table.ts";
import { escapeHtml } from "./html.ts";
import { htmlPage, pageHeader } from "./page.ts";
import { styleCount } from "./page-style.ts";
import { type Point, points, smoothed, thinned, type XAxis } from "./series.ts";

/** What a report shows of one run. */
export interface ReportRun {
  /** As in "SISA 5M". */
  readonly name: string;
  /** What the run told on the way. */
  readonly records: readonly MetricsRecord[];
  /** Shown beside the name. */
  readonly parameterCount?: number;
  /** For SISA: what its heads learned. */
  readonly heads?: HeadTable;
  /** Shown as JSON. */
  readonly configuration?: unknown;
}

/** What stands around the curves. */
export interface ReportOptions {
  /** Default: the name of the run, or "Training runs" of several. */
  readonly title?: string;
  /** A line under the title: the data, the machine, the date. Default none. */
  readonly subtitle?: string;
  /** What the results do and do not say: a paragraph below their table. Default none. */
  readonly note?: string;
}

/** Points a line is thinned to. */
const mostPoints = 400;

const axes: readonly { readonly axis: XAxis; readonly label: string }[] = [
  { axis: "steps", label: "Steps" },
  { axis: "tokens", label: "Tokens" },
  { axis: "time", label: "Time" },
];

/** The report as the text of an HTML file. */
export function htmlReport(runs: readonly ReportRun[], options: ReportOptions = {}): string {
  const title = options.title ?? (runs.length === 1 ? (runs[0]?.name ?? "Training run") : "Training runs");
  const charts: Record<string, ChartData> = {};
  const body = [
    pageHeader(title, options.subtitle),
    resultSection(runs, options.note),
    chartSection(runs, charts),
    ...runs.map((run) => headSection(run, runs.length > 1)),
    sampleSection(runs),
    warningSection(runs),
    configurationSection(runs),
  ];
  return htmlPage({ title, body, charts });
}

function lastRecord<R extends MetricsRecord["type"]>(
  run: ReportRun,
  type: R,
): Extract<MetricsRecord, { type: R }> | undefined {
  const isWanted = (record: MetricsRecord): record is Extract<MetricsRecord, { type: R }> => record.type === type;
  return run.records.filter(isWanted).at(-1);
}

/** One row of the table of results. */
interface Measure {
  readonly name: string;
  readonly value: (run: ReportRun) => number | undefined;
  readonly text: (value: number) => string;
  /** The smallest or the largest is marked. */
  readonly best?: "smallest" | "largest";
}

const measures: readonly Measure[] = [
  { name: "Parameters", value: (run) => run.parameterCount, text: grouped },
  { name: "Steps", value: (run) => lastRecord(run, "step")?.step, text: grouped },
  { name: "Tokens", value: (run) => lastRecord(run, "step")?.tokens, text: grouped },
  {
    name: "Held-out loss, nats a token",
    value: (run) => lastRecord(run, "evaluation")?.heldOutLoss,
    text: (value) => value.toFixed(4),
    best: "smallest",
  },
  {
    name: "Held-out bits a byte",
    value: (run) => lastRecord(run, "evaluation")?.bitsPerByte,
    text: (value) => value.toFixed(4),
    best: "smallest",
  },
  {
    name: "Training loss, smoothed",
    value: (run) => trainingLoss(run, "steps").smooth.at(-1)?.y,
    text: (value) => value.toFixed(4),
    best: "smallest",
  },
  { name: "Tokens a second", value: meanSpeed, text: grouped, best: "largest" },
  { name: "Time", value: (run) => lastRecord(run, "step")?.elapsedSeconds, text: clock },
  { name: "Steps skipped", value: (run) => lastRecord(run, "step")?.skipped, text: grouped },
];

function meanSpeed(run: ReportRun): number | undefined {
  const last = lastRecord(run, "step");
  return last === undefined ? undefined : last.tokens / last.elapsedSeconds;
}

function resultSection(runs: readonly ReportRun[], note: string | undefined): string {
  const head = runs.map((run, index) => `<th scope="col">${swatch(index)}${escapeHtml(run.name)}</th>`).join("");
  const rows = measures.map((measure) => {
    const values = runs.map((run) => measure.value(run));
    const known = values.filter((value): value is number => value !== undefined && Number.isFinite(value));
    if (known.length === 0) return "";
    const best =
      measure.best === undefined || known.length < 2 || new Set(known).size < 2
        ? undefined
        : measure.best === "smallest"
          ? Math.min(...known)
          : Math.max(...known);
    const cells = values.map((value) =>
      value === undefined
        ? "<td>–</td>"
        : `<td${value === best ? ' class="best"' : ""}>${Number.isFinite(value) ? measure.text(value) : "–"}</td>`,
    );
    return `<tr><th scope="row">${measure.name}</th>${cells.join("")}</tr>`;
  });
  return (
    `<section><h2>Result</h2><div class="scroll"><table><thead><tr><th></th>${head}</tr></thead>` +
    `<tbody>${rows.join("")}</tbody></table></div>${note === undefined ? "" : `<p>${escapeHtml(note)}</p>`}</section>`
  );
}

function swatch(index: number): string {
  const style = index % styleCount;
  return `<svg class="swatch" viewBox="0 0 26 11" aria-hidden="true"><path class="line style-${style}" d="M1 5.5H25"/></svg>`;
}

/** Losses of the steps, and their means over about a fiftieth of the run. */
function trainingLoss(run: ReportRun, axis: XAxis): { readonly raw: Point[]; readonly smooth: Point[] } {
  const raw = points(run.records, "step", axis, (record) => record.loss);
  return { raw, smooth: smoothed(raw, raw.length / 50) };
}

function chartSection(runs: readonly ReportRun[], charts: Record<string, ChartData>): string {
  const lines = (make: (run: ReportRun, index: number) => Omit<ChartLine, "name" | "style">): ChartLine[] =>
    runs.map((run, index) => ({ name: run.name, style: index % styleCount, ...make(run, index) }));
  const byAxis = (title: string, id: string, make: (axis: XAxis) => ChartLine[]): string => {
    const plots = axes.map(({ axis }) => {
      const chart = renderChart({ title, axis, lines: make(axis) }, `${id}-${axis}`);
      if (chart === undefined) return "";
      charts[`${id}-${axis}`] = chart.data;
      return `<div class="by-${axis}">${chart.html}</div>`;
    });
    return figure(title, runs, plots.join(""));
  };
  const small = (
    title: string,
    id: string,
    value: (record: StepRecord) => number,
    more: Partial<Chart> = {},
  ): string => {
    const make = (run: ReportRun) => ({ points: thinned(points(run.records, "step", "steps", value), mostPoints) });
    const chart = renderChart({ title, axis: "steps", lines: lines(make), ...more }, id);
    if (chart === undefined) return "";
    charts[id] = chart.data;
    return figure(title, [], chart.html);
  };
  const heldOut = (record: EvaluationRecord): number => record.heldOutLoss;
  const parts = [
    byAxis("Held-out loss (nats a token)", "held-out", (axis) =>
      lines((run) => ({ points: points(run.records, "evaluation", axis, heldOut), dots: true })),
    ),
    byAxis("Training loss (nats a token)", "training", (axis) =>
      lines((run) => {
        const { raw, smooth } = trainingLoss(run, axis);
        return { points: thinned(smooth, mostPoints), faint: thinned(raw, mostPoints) };
      }),
    ),
  ].filter((part) => part !== "");
  const choices = axes.map(
    ({ axis, label }, index) =>
      `<label><input type="radio" name="axis" value="${axis}"${index === 0 ? " checked" : ""}>${label}</label>`,
  );
  const smallCharts = [
    small("Norm of the gradients", "grad-norm", (record) => record.gradNorm, { fromZero: true }),
    small("Learning rate", "learning-rate", (record) => record.learningRate, { fromZero: true }),
    small("Tokens a second", "speed", (record) => record.tokensPerSecond, { fromZero: true }),
  ];
  if (parts.length === 0) return "";
  return (
    `<section id="charts"><h2>Loss</h2><fieldset><legend>Along the axis</legend>${choices.join("")}</fieldset>` +
    `${parts.join("\n")}\n<div class="small-charts">${smallCharts.join("\n")}</div>${evaluationTable(runs)}</section>`
  );
}

function figure(title: string, keys: readonly ReportRun[], plots: string): string {
  if (plots === "") return "";
  const key = keys.map((run, index) => `<li>${swatch(index)}${escapeHtml(run.name)}</li>`).join("");
  const list = key === "" ? "" : `<ul class="key">${key}</ul>`;
  return `<figure><figcaption><h3>${title}</h3>${list}</figcaption>${plots}</figure>`;
}

/** The held-out losses as numbers, for readers who cannot use a chart. */
function evaluationTable(runs: readonly ReportRun[]): string {
  const rows = runs.flatMap((run) =>
    run.records
      .filter((record) => record.type === "evaluation")
      .map(
        (record) =>
          `<tr><th scope="row">${escapeHtml(run.name)}</th><td>${grouped(record.step)}</td>` +
          `<td>${grouped(record.tokens)}</td><td>${clock(record.elapsedSeconds)}</td>` +
          `<td>${record.heldOutLoss.toFixed(4)}</td><td>${record.bitsPerByte?.toFixed(4) ?? "–"}</td></tr>`,
      ),
  );
  if (rows.length === 0) return "";
  return (
    `<details><summary>Held-out losses as a table</summary><div class="scroll"><table><thead><tr><th>Run</th><th>Step</th>` +
    `<th>Tokens</th><th>Time</th><th>Nats a token</th><th>Bits a byte</th></tr></thead>` +
    `<tbody>${rows.join("")}</tbody></table></div></details>`
  );
}

function headSection(run: ReportRun, named: boolean): string {
  const { heads } = run;
  if (heads === undefined) return "";
  const suffix = named ? `: ${escapeHtml(run.name)}` : "";
  const table = (title: string, note: string, values: HeadValues, scale?: (value: number) => number): string => {
    const columns = Array.from({ length: Math.max(...values.map((row) => row.length)) }, (_, index) => String(index));
    return heatTable({ title, note, corner: "Layer \\ head", rows: heads.layers, columns, values, scale });
  };
  return (
    `<section><h2>Importance by head${suffix}</h2>` +
    table("Lambda", "Weight of the importance term in the score.", heads.lambda) +
    table(
      "Half-life in tokens, by the learned bias",
      "After so many tokens half of an importance is forgotten: ln 2 / |log alpha|.",
      heads.halfLife,
      Math.log,
    ) +
    (heads.measuredHalfLife === undefined
      ? ""
      : table(
          "Half-life in tokens, measured",
          "From the mean decay on held-out text.",
          heads.measuredHalfLife,
          Math.log,
        )) +
    `</section>`
  );
}

function sampleSection(runs: readonly ReportRun[]): string {
  const parts = runs.map((run) => {
    const samples = run.records.filter((record) => record.type === "sample");
    if (samples.length === 0) return "";
    const lastStep = samples.at(-1)?.step;
    const last = samples.filter((sample) => sample.step === lastStep);
    const earlier = samples.filter((sample) => sample.step !== lastStep);
    const more =
      earlier.length === 0 ? "" : `<details><summary>Earlier samples</summary>${earlier.map(quote).join("")}</details>`;
    const heading = `<h3>${escapeHtml(run.name)}, step ${grouped(lastStep ?? 0)}</h3>`;
    return heading + last.map((sample) => quote(sample, false)).join("") + more;
  });
  const shown = parts.filter((part) => part !== "");
  return shown.length === 0 ? "" : `<section><h2>Samples</h2>${shown.join("")}</section>`;
}

function quote(sample: SampleRecord, withStep: unknown): string {
  const step = withStep === false ? "" : `<span class="soft">step ${grouped(sample.step)}: </span>`;
  return `<blockquote>${step}<b>${escapeHtml(sample.prompt)}</b>${escapeHtml(sample.text)}</blockquote>`;
}

function warningSection(runs: readonly ReportRun[]): string {
  const items = runs.flatMap((run) =>
    run.records
      .filter((record) => record.type === "warning")
      .map((record) => `<li>${escapeHtml(run.name)}, step ${grouped(record.step)}: ${escapeHtml(record.message)}</li>`),
  );
  return items.length === 0 ? "" : `<section><h2>Warnings</h2><ul>${items.join("")}</ul></section>`;
}

function configurationSection(runs: readonly ReportRun[]): string {
  const parts = runs
    .filter((run) => run.configuration !== undefined)
    .map(
      (run) =>
        `<details><summary>${escapeHtml(run.name)}</summary>` +
        `<pre>${escapeHtml(JSON.stringify(run.configuration, undefined, 2))}</pre></details>`,
    );
  return parts.length === 0 ? "" : `<section><h2>Configuration</h2>${parts.join("")}</section>`;
}
