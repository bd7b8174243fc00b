// Sizes of tensor axes: integer polynomials in named symbols, plus ceilDiv(e, n), kept in one normal form so that
// equal sizes print and compare equal.

import { GraphError, ShapeError } from "./errors.ts";

/** Where a size is expected: a whole number, the name of a symbol, or a size computed before. */
export type DimLike = number | string | Dim;
/** Sizes of the axes, outermost first; a scalar has none. */
export type Shape = readonly Dim[];

/** What a factor of a term stands for: a symbol, or a rounded-up quotient. */
type Atom = { readonly symbol: string } | { readonly ceilDiv: Dim; readonly by: number };

/** A whole number times symbols and quotients. */
interface Term {
  readonly coefficient: number;
  /** Sorted by their text; the product of none is 1. */
  readonly atoms: readonly Atom[];
}

function atomText(atom: Atom): string {
  return "symbol" in atom ? atom.symbol : `ceilDiv(${atom.ceilDiv}, ${atom.by})`;
}

function atomsKey(atoms: readonly Atom[]): string {
  return atoms.map(atomText).join("*");
}

/** The size of an axis. Immutable. */
export class Dim {
  /**
   * What is added up, in the order in which it is printed; the sum of nothing is 0.
   * @internal read by `Dim`s of another copy of the package; for all else there is `fold`
   */
  readonly terms: readonly Term[];
  /** The normal form as text. Equal sizes have equal texts. */
  readonly text: string;

  private constructor(terms: readonly Term[]) {
    this.terms = terms;
    this.text = print(terms);
  }

  /** Tells sizes from other values, also those of another copy of this package. */
  get kind(): "dim" {
    return "dim";
  }

  /** True for sizes made by any copy of this package. */
  static is(value: unknown): value is Dim {
    return typeof value === "object" && value !== null && "kind" in value && value.kind === "dim";
  }

  /**
   * A size from a whole number, a symbol, or a size.
   * @throws GraphError for a number that is not whole, or text that is no symbol
   */
  static of(value: DimLike): Dim {
    if (Dim.is(value)) return value;
    if (typeof value === "number") return Dim.#constant(value);
    if (typeof value !== "string" || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(value)) {
      throw new GraphError(
        `dim: expected a whole number or a symbol such as "T", got "${value}"; write arithmetic as dim("P").plus("T")`,
      );
    }
    return new Dim([{ coefficient: 1, atoms: [{ symbol: value }] }]);
  }

  static #constant(value: number): Dim {
    if (!Number.isSafeInteger(value)) throw new GraphError(`dim: expected a whole number, got ${value}`);
    return new Dim(value === 0 ? [] : [{ coefficient: value, atoms: [] }]);
  }

  static #from(terms: Iterable<Term>): Dim {
    const merged = new Map<string, Term>();
    for (const term of terms) {
      const key = atomsKey(term.atoms);
      const coefficient = (merged.get(key)?.coefficient ?? 0) + term.coefficient;
      if (!Number.isSafeInteger(coefficient)) {
        throw new GraphError(`dim: a size is too large to be exact, got ${coefficient}${key && `*${key}`}`);
      }
      if (coefficient === 0) merged.delete(key);
      else merged.set(key, { coefficient, atoms: term.atoms });
    }
    const sorted = [...merged].sort(([a], [b]) => (a === "" ? 1 : b === "" ? -1 : a < b ? -1 : 1));
    return new Dim(sorted.map(([, term]) => term));
  }

  /** The number where no symbol is left, else undefined. */
  get value(): number | undefined {
    const first = this.terms[0];
    if (first === undefined) return 0;
    return this.terms.length === 1 && first.atoms.length === 0 ? first.coefficient : undefined;
  }

  /** Names of the symbols in it. */
  get symbols(): ReadonlySet<string> {
    const names = new Set<string>();
    for (const term of this.terms) {
      for (const atom of term.atoms) {
        if ("symbol" in atom) names.add(atom.symbol);
        else for (const name of atom.ceilDiv.symbols) names.add(name);
      }
    }
    return names;
  }

  /** Sum of two sizes. @throws GraphError where a coefficient grows too large to be exact */
  plus(other: DimLike): Dim {
    return Dim.#from([...this.terms, ...Dim.of(other).terms]);
  }

  /** Difference of two sizes. @throws GraphError where a coefficient grows too large to be exact */
  minus(other: DimLike): Dim {
    return this.plus(Dim.of(other).times(-1));
  }

  /** Product of two sizes. @throws GraphError where a coefficient grows too large to be exact */
  times(other: DimLike): Dim {
    const products: Term[] = [];
    for (const a of this.terms) {
      for (const b of Dim.of(other).terms) {
        const atoms = [...a.atoms, ...b.atoms].sort((x, y) => (atomText(x) < atomText(y) ? -1 : 1));
        products.push({ coefficient: a.coefficient * b.coefficient, atoms });
      }
    }
    return Dim.#from(products);
  }

  /**
   * This size divided by a whole number, rounded up.
   *
   * Multiples of the divisor are taken out of the quotient, so that what stays inside is not negative where its symbols
   * are not; common factors cancel; and the quotient of a quotient is one quotient.
   *
   * @throws GraphError unless the divisor is a whole number >= 1
   */
  ceilDiv(by: number): Dim {
    if (!Number.isSafeInteger(by) || by < 1) throw new GraphError(`ceilDiv: expected a divisor >= 1, got ${by}`);
    const scaled = (factor: (coefficient: number) => number) =>
      Dim.#from(this.terms.map(({ coefficient, atoms }) => ({ coefficient: factor(coefficient), atoms })));
    const whole = scaled((coefficient) => Math.floor(coefficient / by));
    const rest = scaled((coefficient) => coefficient - by * Math.floor(coefficient / by));
    const constant = rest.terms.find(({ atoms }) => atoms.length === 0)?.coefficient ?? 0;
    const open = rest.terms.filter(({ atoms }) => atoms.length > 0);
    const [first] = open;
    if (first === undefined) return whole.plus(Math.ceil(constant / by));

    // ceil((g x + c) / (g n)) = ceil((x + ceil(c / g)) / n), since x is whole.
    const common = open.reduce((divisor, { coefficient }) => greatestCommonDivisor(divisor, coefficient), by);
    if (common > 1) {
      const smaller = open.map(({ coefficient, atoms }) => ({ coefficient: coefficient / common, atoms }));
      return Dim.#from(smaller)
        .plus(Math.ceil(constant / common))
        .ceilDiv(by / common)
        .plus(whole);
    }
    // ceil((ceil(e / m) + c) / n) = ceil((e + c m) / (m n))
    const [atom, ...others] = first.atoms;
    if (open.length === 1 && first.coefficient === 1 && others.length === 0 && atom && "ceilDiv" in atom) {
      return atom.ceilDiv
        .plus(constant * atom.by)
        .ceilDiv(atom.by * by)
        .plus(whole);
    }
    return whole.plus(new Dim([{ coefficient: 1, atoms: [{ ceilDiv: rest, by }] }]));
  }

  /** True where both are the same polynomial, so that they are equal whatever is bound. */
  equals(other: DimLike): boolean {
    return this.text === Dim.of(other).text;
  }

  /**
   * This size with symbols replaced; symbols that are not named stay.
   * @throws GraphError where a symbol is bound to what is no size
   */
  bind(symbols: Readonly<Record<string, DimLike>>): Dim {
    let sum = Dim.of(0);
    for (const term of this.terms) {
      let product = Dim.#constant(term.coefficient);
      for (const atom of term.atoms) {
        if ("symbol" in atom) product = product.times(ownEntry(symbols, atom.symbol) ?? atom.symbol);
        else product = product.times(atom.ceilDiv.bind(symbols).ceilDiv(atom.by));
      }
      sum = sum.plus(product);
    }
    return sum;
  }

  /** This size computed in another algebra, such as nodes of an exported graph. */
  fold<T>(algebra: DimAlgebra<T>): T {
    const atom = (factor: Atom) =>
      "symbol" in factor ? algebra.symbol(factor.symbol) : algebra.ceilDiv(factor.ceilDiv.fold(algebra), factor.by);
    const terms = this.terms.map(({ coefficient, atoms }) => {
      const factors = atoms.map(atom);
      const [first, ...rest] =
        coefficient === 1 && factors.length > 0 ? factors : [algebra.constant(coefficient), ...factors];
      return rest.reduce(algebra.times, first as T);
    });
    const [first, ...rest] = terms;
    return first === undefined ? algebra.constant(0) : rest.reduce(algebra.plus, first);
  }

  /** As messages show it: "2*T+1". */
  toString(): string {
    return this.text;
  }
}

/** What sizes are made of, for `Dim.fold`. */
export interface DimAlgebra<T> {
  /** A whole number. */
  constant(value: number): T;
  /** A size by its name. */
  symbol(name: string): T;
  /** Sum. */
  plus(a: T, b: T): T;
  /** Product. */
  times(a: T, b: T): T;
  /** a / by, rounded up; `by` is at least 1. */
  ceilDiv(a: T, by: number): T;
}

/** Symbols may be called like members that every object inherits. */
function ownEntry<T>(entries: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(entries, name) ? entries[name] : undefined;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

function print(terms: readonly Term[]): string {
  if (terms.length === 0) return "0";
  return terms
    .map(({ coefficient, atoms }, index) => {
      const magnitude = Math.abs(coefficient);
      const factors = [...(magnitude !== 1 || atoms.length === 0 ? [String(magnitude)] : []), ...atoms.map(atomText)];
      const sign = coefficient < 0 ? (index === 0 ? "-" : " - ") : index === 0 ? "" : " + ";
      return sign + factors.join("*");
    })
    .join("");
}

/**
 * A size for arithmetic: `dim("P").plus("T")`.
 * @throws GraphError for a number that is not whole, or text that is no symbol
 */
export function dim(value: DimLike): Dim {
  return Dim.of(value);
}

/** Sizes of a shape. @throws ShapeError where one is known to be negative; GraphError where one is no size */
export function shapeOf(dims: readonly DimLike[]): Shape {
  const shape = dims.map((value) => Dim.of(value));
  checkSizes(shape);
  return shape;
}

/** Refuses impossible shapes. @throws ShapeError where a size is known to be negative */
export function checkSizes(shape: Shape): void {
  if (shape.some(({ value }) => value !== undefined && value < 0)) {
    throw new ShapeError(`sizes must be >= 0, got ${shapeText(shape)}`);
  }
}

/** A shape as messages show it: "[B,T,64]". */
export function shapeText(shape: Shape): string {
  return `[${shape.join(",")}]`;
}

/** True where both have as many axes, all equal. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size.equals(b[axis] ?? -1));
}

/** Number of elements, as a size; 1 for a scalar. */
export function elementsOf(shape: Shape): Dim {
  return shape.reduce((product, size) => product.times(size), Dim.of(1));
}

/**
 * The number that a bound size stands for.
 * @throws GraphError where a symbol is left or the number is negative
 */
export function sizeOf(size: Dim): number {
  const value = size.value;
  if (value === undefined) {
    const [symbol] = size.symbols;
    throw new GraphError(`size ${size} is not bound; call graph.bind({ ${symbol}: ... }) first`);
  }
  if (value < 0) throw new GraphError(`size is negative: ${value}`);
  return value;
}

/** The sizes of a bound shape. @throws GraphError where a symbol is left or a size is negative */
export function sizesOf(shape: Shape): number[] {
  return shape.map(sizeOf);
}
