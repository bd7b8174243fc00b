// Medians, ratios and tables of measurements.

import { loadavg } from "node:os";

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  const at = (index: number) => sorted[index] ?? Number.NaN;
  return sorted.length % 2 === 0 ? (at(middle - 1) + at(middle)) / 2 : at(Math.floor(middle));
}

export function least(values: readonly number[]): number {
  return Math.min(...values);
}

/** Four significant digits, so that lines of JSON stay readable. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

/** Columns as wide as their widest cell; the first is aligned to the left, the others to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ");
  return [line(header), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}

/** Processes that wanted a core over the last minute; above the number of cores, timings are not to be trusted. */
export function load(): number {
  return rounded(loadavg()[0] ?? 0);
}

/** Calls each measurement in turn, `rounds` times, so that whatever else the machine does falls on all alike. */
export async function alternating(rounds: number, measurements: readonly (() => Promise<void>)[]): Promise<void> {
  for (let round = 0; round < rounds; round++) for (const measure of measurements) await measure();
}
