// What one setting is: its type, default, unit and description. One table of fields drives validation, command-line
// overrides, help and the TypeScript types, so that they cannot disagree.

/** The outcome of checking a value: the value in its final form, or what was expected instead. */
export type Checked<T> = { readonly value: T } | { readonly expected: string };

/** One setting. */
export interface Field<T> {
  /** What a value must be, as in "a whole number >= 1". */
  readonly expected: string;
  /** All the words that a value can be, where there are only some. */
  readonly choices?: readonly string[];
  /** Used where the field is not given. Without one, the field stays undefined, or its owner derives it. */
  readonly default?: T;
  /** How a derived default comes about, for help. */
  readonly derived?: string;
  /** Such as "tokens"; for help. */
  readonly unit?: string;
  /** A sentence; for help. */
  readonly description: string;
  /** The value in its final form, or what was expected instead. */
  check(value: unknown): Checked<T>;
  /** A command-line word as the value it stands for, to be given to `check`. */
  fromText(text: string): unknown;
}

/** A nested object of fields. */
export interface FieldTable {
  readonly [name: string]: Field<unknown> | FieldTable;
}

/** What a user may write: every field optional. */
export type Given<T extends FieldTable> = {
  readonly [N in keyof T]?: T[N] extends Field<infer V> ? V : T[N] extends FieldTable ? Given<T[N]> : never;
};

/** What comes out of parsing: fields with a default are always there. */
export type Parsed<T extends FieldTable> = {
  readonly [N in keyof T as T[N] extends Field<unknown> ? (HasDefault<T[N]> extends true ? N : never) : N]: ParsedEntry<
    T[N]
  >;
} & {
  readonly [N in keyof T as T[N] extends Field<unknown> ? (HasDefault<T[N]> extends true ? never : N) : never]?:
    | ParsedEntry<T[N]>
    | undefined;
};

type HasDefault<F> = F extends { readonly default: unknown } ? true : false;
type ParsedEntry<E> = E extends Field<infer V> ? V : E extends FieldTable ? Parsed<E> : never;

interface About {
  readonly unit?: string;
  readonly description: string;
  readonly derived?: string;
}
interface WithDefault<T> extends About {
  readonly default: T;
}
type Defaulted<T> = Field<T> & { readonly default: T };

interface Bounds {
  readonly minimum?: number;
  /** The value must be greater than this. */
  readonly above?: number;
  readonly maximum?: number;
  /** The value must be less than this. */
  readonly below?: number;
  /** One further number that is allowed, such as -1 for "off". */
  readonly or?: number;
}

/** A whole number within bounds. */
export function integer(options: WithDefault<number> & Bounds): Defaulted<number>;
export function integer(options: About & Bounds): Field<number>;
export function integer(options: (About | WithDefault<number>) & Bounds): Field<number> {
  return { ...numeric("a whole number", options, Number.isSafeInteger), ...options };
}

/** A finite number within bounds. */
export function number(options: WithDefault<number> & Bounds): Defaulted<number>;
export function number(options: About & Bounds): Field<number>;
export function number(options: (About | WithDefault<number>) & Bounds): Field<number> {
  return { ...numeric("a number", options, Number.isFinite), ...options };
}

function numeric(noun: string, bounds: Bounds, isNumber: (value: unknown) => boolean) {
  const limits = [
    bounds.minimum === undefined ? undefined : `>= ${bounds.minimum}`,
    bounds.above === undefined ? undefined : `> ${bounds.above}`,
    bounds.maximum === undefined ? undefined : `<= ${bounds.maximum}`,
    bounds.below === undefined ? undefined : `< ${bounds.below}`,
  ].filter((limit) => limit !== undefined);
  const expected = `${[noun, limits.join(" and ")].join(" ").trim()}${bounds.or === undefined ? "" : `, or ${bounds.or}`}`;
  const within = (value: number): boolean =>
    value === bounds.or ||
    (value >= (bounds.minimum ?? Number.NEGATIVE_INFINITY) &&
      value > (bounds.above ?? Number.NEGATIVE_INFINITY) &&
      value <= (bounds.maximum ?? Number.POSITIVE_INFINITY) &&
      value < (bounds.below ?? Number.POSITIVE_INFINITY));
  return {
    expected,
    check: (value: unknown): Checked<number> =>
      typeof value === "number" && isNumber(value) && within(value) ? { value } : { expected },
    // Digits may be grouped, as in 524_288. What is not a number goes to `check` as it is, to be shown in its error.
    fromText: (text: string): unknown =>
      /^[-+]?(\d[\d_]*)?(\.\d+)?(e[-+]?\d+)?$/i.test(text) && /\d/.test(text) ? Number(text.replaceAll("_", "")) : text,
  };
}

/** true or false. On the command line the bare flag means true. */
export function boolean(options: WithDefault<boolean>): Defaulted<boolean> {
  const expected = "true or false";
  return {
    expected,
    check: (value) => (typeof value === "boolean" ? { value } : { expected }),
    fromText: (text) => (text === "true" || text === "" ? true : text === "false" ? false : text),
    ...options,
  };
}

/** Any text that is not empty. */
export function text(options: WithDefault<string>): Defaulted<string>;
export function text(options: About): Field<string>;
export function text(options: About | WithDefault<string>): Field<string> {
  const expected = "text that is not empty";
  return {
    expected,
    check: (value) => (typeof value === "string" && value !== "" ? { value } : { expected }),
    fromText: (word) => word,
    ...options,
  };
}

/** One of some words. */
export function choice<const C extends readonly string[]>(
  choices: C,
  options: WithDefault<C[number]>,
): Defaulted<C[number]>;
export function choice<const C extends readonly string[]>(choices: C, options: About): Field<C[number]>;
export function choice<const C extends readonly string[]>(
  choices: C,
  options: About | WithDefault<C[number]>,
): Field<C[number]> {
  const expected = `one of ${choices.join(", ")}`;
  return {
    choices,
    expected,
    check: (value) => {
      const found = choices.find((word) => word === value);
      return found === undefined ? { expected } : { value: found };
    },
    fromText: (word) => word,
    ...options,
  };
}

/** A value of a shape of its own, checked by a function. On the command line it is JSON, or a plain word. */
export function custom<T>(
  expected: string,
  check: (value: unknown) => T | undefined,
  options: WithDefault<T>,
): Defaulted<T>;
export function custom<T>(expected: string, check: (value: unknown) => T | undefined, options: About): Field<T>;
export function custom<T>(
  expected: string,
  check: (value: unknown) => T | undefined,
  options: About | WithDefault<T>,
): Field<T> {
  return {
    expected,
    check: (value) => {
      const checked = check(value);
      return checked === undefined ? { expected } : { value: checked };
    },
    fromText: jsonOrWord,
    ...options,
  };
}

/** What a word on the command line means without a field that says so: JSON where it is JSON, else the word. */
export function jsonOrWord(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

export function isField(entry: Field<unknown> | FieldTable): entry is Field<unknown> {
  return typeof entry.check === "function";
}
