// Items of public data sets: one JSON object a line. Errors name the file and the line.
import { DataError } from "@sisa/core";

/** A file that the user named, read. */
export interface ItemFile {
  /** For messages. */
  readonly path: string;
  /** One JSON object a line. */
  readonly text: string;
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * What `read` makes of each line.
 * @param expected the form of a line, for the message
 * @param read undefined for an object of another form
 * @throws DataError naming file and line
 */
export function readItems<T>({ path, text }: ItemFile, expected: string, read: (fields: Fields) => T | undefined): T[] {
  const items = text.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    const fields = fieldsOf(line);
    const item = fields === undefined ? undefined : read(fields);
    if (item !== undefined) return [item];
    throw new DataError(`${path}: line ${index + 1}: expected ${expected}, got ${line.slice(0, 60)}`);
  });
  if (items.length === 0) throw new DataError(`${path}: expected lines of ${expected}, got none`);
  return items;
}

function fieldsOf(line: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null) return value as Fields;
  } catch {
    // Told by the caller, with the line's number.
  }
  return undefined;
}

export function isText(value: unknown): value is string {
  return typeof value === "string";
}

export function areTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.length > 1 && value.every(isText);
}

/** A whole number, or the digits of one, below a bound; undefined for anything else. */
export function indexBelow(bound: number, value: unknown): number | undefined {
  const index = typeof value === "string" && /^\d+$/.test(value) ? Number(value) : value;
  return typeof index === "number" && Number.isInteger(index) && index >= 0 && index < bound ? index : undefined;
}
