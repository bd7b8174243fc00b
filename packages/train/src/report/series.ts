// Numbers for charts: series out of records, smoothing, thinning, and round axis ticks.
import type { EvaluationRecord, MetricsRecord, StepRecord } from "../metrics/metrics.ts";

/** What a chart may have along its lower edge. */
export type XAxis = "steps" | "tokens" | "time";

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Records that charts show. */
type Charted = StepRecord | EvaluationRecord;

/** x of a record; time in seconds. */
export function xOf(record: Charted, axis: XAxis): number {
  return axis === "steps" ? record.step : axis === "tokens" ? record.tokens : record.elapsedSeconds;
}

/** Points of finite values, by increasing x. */
export function points<R extends Charted["type"]>(
  records: readonly MetricsRecord[],
  type: R,
  axis: XAxis,
  value: (record: Extract<Charted, { type: R }>) => number,
): Point[] {
  const isWanted = (record: MetricsRecord): record is Extract<Charted, { type: R }> => record.type === type;
  return records
    .filter(isWanted)
    .map((record) => ({ x: xOf(record, axis), y: value(record) }))
    .filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y));
}

/** Each value with the mean of its neighbours, up to half a window on either side. */
export function smoothed(series: readonly Point[], window: number): Point[] {
  const half = Math.floor(window / 2);
  return series.map(({ x }, index) => {
    const near = series.slice(Math.max(0, index - half), index + half + 1);
    return { x, y: near.reduce((sum, point) => sum + point.y, 0) / near.length };
  });
}

/** At most `most` points: means of equal groups, the first and the last point kept. */
export function thinned(series: readonly Point[], most: number): Point[] {
  const first = series[0];
  const last = series.at(-1);
  if (series.length <= most || first === undefined || last === undefined) return [...series];
  const groups = most - 2;
  const inner = series.slice(1, -1);
  const means = Array.from({ length: groups }, (_, group) => {
    const part = inner.slice(
      Math.floor((group * inner.length) / groups),
      Math.floor(((group + 1) * inner.length) / groups),
    );
    const mean = (pick: (point: Point) => number): number => part.reduce((sum, p) => sum + pick(p), 0) / part.length;
    return { x: mean((point) => point.x), y: mean((point) => point.y) };
  });
  return [first, ...means, last];
}

/** Round numbers, about `count` of them, that cover a range from inside. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9)) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** A number with the digits that matter for reading: 1,234,567, 12.3, 0.00123, 1.2e-5. */
export function shortNumber(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  if (size !== 0 && size < 1e-3) return value.toExponential(1).replace("e-", "e−");
  return Number(value.toPrecision(3)).toString().replace("-", "−");
}

/** Ticks in one common form: as many decimals as they need, or all with an exponent where they are small. */
export function tickTexts(values: readonly number[]): string[] {
  const largest = Math.max(...values.map(Math.abs));
  if (largest >= 0.01 || largest === 0) {
    const decimals = Math.max(0, ...values.map((value) => (String(value).split(".")[1] ?? "").length));
    const form = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    return values.map((value) => value.toLocaleString("en-US", form).replace("-", "−"));
  }
  return values.map((value) => (value === 0 ? "0" : value.toExponential().replaceAll("-", "−")));
}

/** A count as 950, 12.5K, 3M or 2.5G. */
export function countText(value: number): string {
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "K"],
  ] as const) {
    if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  return Number(value.toPrecision(3)).toString();
}
