// Work on tables of fields: parsing values into settings, naming the nearest field, and writing help.
import { ConfigError } from "@sisa/core";
import { type Field, type FieldTable, type Given, isField, type Parsed } from "./field.ts";

/** A field with its address, as in "optimizer.learningRate". */
export interface AddressedField {
  /** Names of the tables around it and its own, joined by dots. */
  readonly path: string;
  /** What it may hold. */
  readonly field: Field<unknown>;
}

/** All fields of a table in order. */
export function fieldsOf(table: FieldTable, prefix = ""): AddressedField[] {
  return Object.entries(table).flatMap(([name, entry]) =>
    isField(entry) ? [{ path: prefix + name, field: entry }] : fieldsOf(entry, `${prefix}${name}.`),
  );
}

/**
 * Checks every value and fills in defaults.
 *
 * @param value what the user gave: a plain object, nested like the table
 * @throws ConfigError with one line for the first problem: an unknown field (naming the nearest one) or a wrong value
 */
export function parseTable<T extends FieldTable>(table: T, value: unknown): Parsed<T> {
  return parseLevel(table, value, "", fieldsOf(table)) as Parsed<T>;
}

function parseLevel(
  table: FieldTable,
  value: unknown,
  prefix: string,
  all: readonly AddressedField[],
): Record<string, unknown> {
  const given = value ?? {};
  if (typeof given !== "object" || Array.isArray(given)) {
    throw new ConfigError(`${prefix.slice(0, -1) || "configuration"}: expected an object, got ${shown(value)}`);
  }
  const entries = new Map<string, unknown>(Object.entries(given));
  for (const name of entries.keys()) {
    if (!Object.hasOwn(table, name)) throw unknownField(prefix + name, all);
  }
  const parsed: Record<string, unknown> = {};
  for (const [name, entry] of Object.entries(table)) {
    const path = prefix + name;
    const item = entries.get(name);
    if (!isField(entry)) {
      parsed[name] = parseLevel(entry, item, `${path}.`, all);
    } else if (item === undefined) {
      if (entry.default !== undefined) parsed[name] = entry.default;
    } else {
      const checked = entry.check(item);
      if ("expected" in checked) {
        throw new ConfigError(`${path}: expected ${checked.expected}, got ${shown(item)}`);
      }
      parsed[name] = checked.value;
    }
  }
  return parsed;
}

/** A value as an error message shows it: short, and plainly text or not. */
export function shown(value: unknown): string {
  const json = value === undefined ? "nothing" : typeof value === "number" ? String(value) : JSON.stringify(value);
  if (json === undefined) return `a ${typeof value}`;
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}

/** The error for a name that is no field. */
export function unknownField(path: string, fields: readonly AddressedField[]): ConfigError {
  const paths = fields.flatMap((field) => {
    const names = field.path.split(".");
    return names.map((_, index) => names.slice(0, index + 1).join("."));
  });
  const nearest = nearestPath(path, paths);
  const hint = nearest === undefined ? "" : `; did you mean "${nearest}"?`;
  return new ConfigError(`"${path}" is not a field of the configuration${hint}`);
}

/** The field meant by a name where case, "-" and "_" do not count: a full address, or a last part that only one has. */
export function findField(name: string, fields: readonly AddressedField[]): AddressedField | undefined {
  const wanted = plain(name);
  const exact = fields.find(({ path }) => plain(path) === wanted);
  if (exact !== undefined) return exact;
  const [only, ...others] = fields.filter(({ path }) => plain(lastPart(path)) === wanted);
  return others.length === 0 ? only : undefined;
}

/** The address most like a name, or undefined where none is like it. */
export function nearestPath(name: string, paths: readonly string[]): string | undefined {
  let best: { path: string; distance: number } | undefined;
  for (const path of paths) {
    const distance = Math.min(
      editDistance(plain(name), plain(path)),
      // The right name at the wrong level is the better guess, so levels cost half a letter.
      editDistance(plain(lastPart(name)), plain(lastPart(path))) + 0.5,
    );
    if (best === undefined || distance < best.distance) best = { path, distance };
  }
  return best !== undefined && best.distance <= Math.max(2, name.length / 3) ? best.path : undefined;
}

function lastPart(path: string): string {
  return path.slice(path.lastIndexOf(".") + 1);
}

function plain(name: string): string {
  return name.replace(/[-_]/g, "").toLowerCase();
}

/** Letters to insert, remove or replace to turn one word into another (Levenshtein 1966). */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replaced, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? a.length;
}

/**
 * Values from the command line as a nested object, ready to be merged over a configuration file.
 *
 * @param words pairs of a name and its text: `["optimizer.learning-rate", "1e-3"]`, or the flat `["learning-rate", "1e-3"]`
 * @param open tables that are checked by their owner, such as "model": their fields, and how a value is read; other
 *   names below them are passed on as they are, for the owner to refuse
 * @throws ConfigError for a name that is no field, or that several fields share
 */
export function overridesFromText(
  table: FieldTable,
  words: readonly (readonly [name: string, text: string])[],
  open: Readonly<Record<string, { readonly fields: readonly string[]; fromText(text: string): unknown }>> = {},
): Record<string, unknown> {
  const fields = fieldsOf(table);
  const result: Record<string, unknown> = {};
  for (const [name, word] of words) {
    const [head = "", ...rest] = name.split(".");
    const owner = open[head];
    if (owner !== undefined && rest.length > 0) {
      const own = rest.join(".");
      const field = owner.fields.find((known) => plain(known) === plain(own)) ?? own;
      setPath(result, `${head}.${field}`, owner.fromText(word));
      continue;
    }
    const found = findField(name, fields);
    if (found === undefined) throw unknownField(name, fields);
    setPath(result, found.path, found.field.fromText(word));
  }
  return result;
}

function setPath(target: Record<string, unknown>, path: string, value: unknown): void {
  const names = path.split(".");
  const last = names.pop() ?? "";
  let level = target;
  for (const name of names) {
    const next = level[name];
    const object = isRecord(next) ? next : {};
    level[name] = object;
    level = object;
  }
  level[last] = value;
}

/** One configuration laid over another: objects are merged, everything else is replaced. */
export function mergeConfig(base: unknown, over: unknown): unknown {
  if (over === undefined) return base;
  if (!isRecord(base) || !isRecord(over)) return over;
  const merged: Record<string, unknown> = { ...base };
  for (const [name, value] of Object.entries(over)) merged[name] = mergeConfig(base[name], value);
  return merged;
}

/** True for plain objects, not for lists or null. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value at an address, or undefined. */
export function valueAt(config: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((level, name) => (isRecord(level) ? level[name] : undefined), config);
}

/** Help for every field: flag, type, default, unit and description, two lines a field. */
export function tableHelp(table: FieldTable): string {
  return fieldsOf(table)
    .map(({ path, field }) => {
      const fallback = field.derived ?? (field.default === undefined ? undefined : defaultText(field.default));
      const facts = [field.expected, field.unit && `in ${field.unit}`, fallback && `default ${fallback}`];
      return `  --${flagOf(path)}  (${facts.filter(Boolean).join("; ")})\n      ${field.description}`;
    })
    .join("\n");
}

/** The flag of an address: "optimizer.learningRate" is "optimizer.learning-rate". */
export function flagOf(path: string): string {
  return path.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function defaultText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

export type { Given, Parsed };
