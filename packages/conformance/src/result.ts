// What a run of a case gave, and tables of such results.

export const modes = ["forward", "grad", "fuzz", "perf"] as const;
export type Mode = (typeof modes)[number];

export type Status = "passed" | "failed" | "unsupported";

export interface Row {
  readonly op: string;
  readonly case: string;
  readonly mode: Mode;
  readonly status: Status;
  /** What went wrong, or why it is unsupported. */
  readonly error?: string;
  readonly note?: string;
}

/** How many rows have each status. */
export function counts(rows: readonly Row[]): Readonly<Record<Status, number>> {
  const total = { passed: 0, failed: 0, unsupported: 0 };
  for (const { status } of rows) total[status]++;
  return total;
}

/** A markdown table. Bars in cells are escaped. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), `|${head.map(() => "---").join("|")}|`, ...rows.map(line)].join("\n");
}

/** One line for each row, for reading. */
export function rowsTable(rows: readonly Row[]): string {
  const cells = rows.map((row) => [row.op, row.case, row.mode, row.status, row.error ?? row.note ?? ""]);
  return markdownTable(["op", "case", "mode", "status", "detail"], cells);
}
