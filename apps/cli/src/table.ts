// Tables as plain text: columns of equal width, numbers to the right.

/**
 * @param rows cells; the first column is for names, all others are aligned to the right
 * @returns lines, indented by two
 */
export function textTable(rows: readonly (readonly string[])[]): string[] {
  const columns = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  return rows.map((row) => {
    const cells = row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
    );
    return `  ${cells.join("  ")}`.trimEnd();
  });
}

/** A count with commas: 1,234,567. */
export function countText(value: number): string {
  return value.toLocaleString("en-US");
}

/** A count of things: 1 document, 1,234 documents. */
export function countOf(value: number, thing: string): string {
  return `${countText(value)} ${thing}${value === 1 ? "" : "s"}`;
}

/** Three digits that matter: 0.313, 103, 1.2e+4. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 100_000)) return value.toExponential(1);
  return size >= 1000 ? countText(Math.round(value)) : value.toPrecision(3);
}

/** A size: 512 B, 1.5 kB, 20.3 MB. */
export function byteText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** Seconds as 0:07, 12:34 or 1:02:03. */
export function clockText(seconds: number): string {
  const whole = Math.round(seconds);
  const pad = (value: number): string => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}
