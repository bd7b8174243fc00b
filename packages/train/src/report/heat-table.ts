// A table whose cells are shaded by value.
import { escapeHtml } from "./html.ts";
import { shortNumber } from "./series.ts";

export interface HeatTable {
  readonly title: string;
  readonly note?: string;
  /** What the rows and columns are, in the corner. */
  readonly corner: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** values[row][column] */
  readonly values: readonly (readonly number[])[];
  /** Where a value stands between pale and dark; by default the value itself. */
  readonly scale?: ((value: number) => number) | undefined;
  /** Ends of the shades on the scale; by default the smallest and the largest value. */
  readonly range?: readonly [low: number, high: number];
  /** Default: three digits. */
  readonly text?: (value: number) => string;
}

export function heatTable(table: HeatTable): string {
  const { title, note, corner, rows, columns, values, scale = (value) => value, text = cellText } = table;
  // Values that read alike look alike.
  const shade = (value: number): number => scale(Number(value.toPrecision(3)));
  const scaled = values.flat().map(shade).filter(Number.isFinite);
  const [low, high] = table.range ?? [Math.min(...scaled), Math.max(...scaled)];
  const range = high - low || 1;
  // The page's text stays readable on shades up to about half of the full colour.
  const share = (value: number): number => Math.round((55 * (shade(value) - low)) / range) || 0;
  const head = columns.map((name) => `<th scope="col">${escapeHtml(name)}</th>`).join("");
  const body = values.map((row, index) => {
    const cells = row.map((value) => `<td style="--share:${share(value)}%">${text(value)}</td>`).join("");
    return `<tr><th scope="row">${escapeHtml(rows[index] ?? String(index))}</th>${cells}</tr>`;
  });
  return (
    `<h3>${escapeHtml(title)}</h3>${note === undefined ? "" : `<p class="soft">${escapeHtml(note)}</p>`}` +
    `<div class="scroll"><table class="heat"><thead>` +
    `<tr><th scope="col">${escapeHtml(corner)}</th>${head}</tr></thead><tbody>${body.join("")}</tbody></table></div><br>`
  );
}

/** Three digits, so that the cells of a column line up. */
function cellText(value: number): string {
  return value >= 0.001 && value < 1000 ? value.toPrecision(3) : shortNumber(value);
}
