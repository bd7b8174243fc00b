// One line chart as HTML: an SVG that stretches with the page, with labels outside of it so that they keep their size.
import { escapeHtml } from "./html.ts";
import { countText, type Point, shortNumber, ticks, tickTexts, type XAxis } from "./series.ts";

/** One line of a chart. */
export interface ChartLine {
  readonly name: string;
  /** Which colour and dash of the page's list. */
  readonly style: number;
  readonly points: readonly Point[];
  /** Drawn faintly below the line, such as the values that it smooths. */
  readonly faint?: readonly Point[];
  /** Draw a dot at every point. */
  readonly dots?: boolean;
}

export interface Chart {
  readonly title: string;
  readonly axis: XAxis;
  readonly lines: readonly ChartLine[];
  /** Let the vertical axis begin at 0. */
  readonly fromZero?: boolean;
}

/** What the page's script needs to show values under the pointer. */
export interface ChartData {
  readonly x: { readonly low: number; readonly high: number; readonly axis: XAxis };
  readonly y: { readonly low: number; readonly high: number };
  readonly lines: readonly { readonly name: string; readonly style: number; readonly points: readonly number[][] }[];
}

/** Drawing units of the SVG; it is stretched to the box it stands in. */
const extent = 1000;

/** The chart as HTML and as data, or undefined where there is nothing to draw. */
export function renderChart(chart: Chart, id: string): { readonly html: string; readonly data: ChartData } | undefined {
  const all = chart.lines.flatMap((line) => [...line.points, ...(line.faint ?? [])]);
  if (all.length === 0) return undefined;
  const x = { low: Math.min(0, ...all.map((point) => point.x)), high: Math.max(...all.map((point) => point.x)) };
  const y = paddedRange(
    all.map((point) => point.y),
    chart.fromZero === true,
  );
  if (x.high === x.low) x.high = x.low + 1;
  const toX = (value: number): number => ((value - x.low) / (x.high - x.low)) * extent;
  const toY = (value: number): number => (1 - (value - y.low) / (y.high - y.low)) * extent;
  const path = (points: readonly Point[]): string =>
    points.map((point, index) => `${index === 0 ? "M" : "L"}${round(toX(point.x))} ${round(toY(point.y))}`).join("");

  const xTicks = timeAware(chart.axis, x.high);
  const yTicks = ticks(y.low, y.high, 5);
  const yTexts = tickTexts(yTicks);
  const grid = [
    ...yTicks.map((value) => `<path class="grid" d="M0 ${round(toY(value))}H${extent}"/>`),
    ...xTicks.values.map((value) => `<path class="grid" d="M${round(toX(value))} 0V${extent}"/>`),
  ];
  const drawn = chart.lines.flatMap((line) => [
    line.faint === undefined ? "" : `<path class="line faint style-${line.style}" d="${path(line.faint)}"/>`,
    `<path class="line style-${line.style}" d="${path(line.points)}"/>`,
    // A line of no length with a round end stays a circle however the SVG is stretched.
    line.dots === true || line.points.length === 1
      ? `<path class="dots style-${line.style}" d="${line.points.map((p) => `M${round(toX(p.x))} ${round(toY(p.y))}h0`).join("")}"/>`
      : "",
  ]);
  const percent = (value: number): string => `${round(value / (extent / 100))}%`;
  const html =
    `<div class="plot" data-chart="${id}" tabindex="0" role="img" aria-label="${escapeHtml(summary(chart))}">` +
    `<svg viewBox="0 0 ${extent} ${extent}" preserveAspectRatio="none" aria-hidden="true">${grid.join("")}${drawn.join("")}</svg>` +
    yTicks
      .map((value, index) => `<span class="y tick" style="top:${percent(toY(value))}">${yTexts[index]}</span>`)
      .join("") +
    xTicks.values
      .map((value) => `<span class="x tick" style="left:${percent(toX(value))}">${xTicks.text(value)}</span>`)
      .join("") +
    `<span class="x unit">${xTicks.unit}</span></div>`;
  const data = {
    x: { ...x, axis: chart.axis },
    y,
    lines: chart.lines.map(({ name, style, points }) => ({
      name,
      style,
      points: points.map((point) => [significant(point.x), significant(point.y)]),
    })),
  };
  return { html, data };
}

function paddedRange(values: readonly number[], fromZero: boolean): { low: number; high: number } {
  const high = Math.max(...values);
  const low = fromZero ? Math.min(0, ...values) : Math.min(...values);
  const pad = high === low ? Math.abs(high) * 0.05 || 1 : (high - low) * 0.05;
  return { low: fromZero && low === 0 ? 0 : low - pad, high: high + pad };
}

/** Ticks of the lower axis in a unit that suits its length. */
function timeAware(axis: XAxis, high: number): { values: number[]; unit: string; text: (value: number) => string } {
  if (axis !== "time") {
    return { values: ticks(0, high, 5), unit: axis, text: (value) => countText(value) };
  }
  const [seconds, unit] = high > 2 * 3600 ? [3600, "hours"] : high > 120 ? [60, "minutes"] : [1, "seconds"];
  const values = ticks(0, high / seconds, 5).map((value) => value * seconds);
  return { values, unit, text: (value) => shortNumber(value / seconds) };
}

function summary(chart: Chart): string {
  const lines = chart.lines.map(({ name, points }) => {
    const first = points[0];
    const last = points.at(-1);
    return first === undefined || last === undefined
      ? `${name}: no values`
      : `${name} from ${shortNumber(first.y)} to ${shortNumber(last.y)}`;
  });
  return `${chart.title} by ${chart.axis}: ${lines.join("; ")}`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function significant(value: number): number {
  return Number(value.toPrecision(6));
}
