// Sizes of tensor axes: integer polynomials in named symbols, plus ceilDiv(e, n), kept in one normal form so that
// equal sizes print and compare equal.

import { GraphError } from "./errors.ts";

export type DimLike = number | string | Dim;
export type Shape = readonly Dim[];

/** What a factor of a term stands for: a symbol, or a rounded-up quotient. */
type Atom = { readonly symbol: string } | { readonly ceilDiv: Dim; readonly by: number };

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
  readonly #terms: readonly Term[];
  readonly #text: string;

  private constructor(terms: readonly Term[]) {
    this.#terms = terms;
    this.#text = print(terms);
  }

  /** A size from a number (a whole number >= 0), a symbol, or a size. */
  static of(value: DimLike): Dim {
    if (value instanceof Dim) return value;
    if (typeof value === "number") return Dim.#constant(value);
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(value)) {
      throw new GraphError(
        `dim: expected a symbol such as "T", got "${value}"; write arithmetic as dim("P").plus("T")`,
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
      if (coefficient === 0) merged.delete(key);
      else merged.set(key, { coefficient, atoms: term.atoms });
    }
    const sorted = [...merged].sort(([a], [b]) => (a === "" ? 1 : b === "" ? -1 : a < b ? -1 : 1));
    return new Dim(sorted.map(([, term]) => term));
  }

  /** The number where no symbol is left, else undefined. */
  get value(): number | undefined {
    const [first, ...rest] = this.#terms;
    if (first === undefined) return 0;
    return rest.length === 0 && first.atoms.length === 0 ? first.coefficient : undefined;
  }

  /** Names of the symbols in it. */
  get symbols(): ReadonlySet<string> {
    const names = new Set<string>();
    for (const term of this.#terms) {
      for (const atom of term.atoms) {
        if ("symbol" in atom) names.add(atom.symbol);
        else for (const name of atom.ceilDiv.symbols) names.add(name);
      }
    }
    return names;
  }

  plus(other: DimLike): Dim {
    return Dim.#from([...this.#terms, ...Dim.of(other).#terms]);
  }

  minus(other: DimLike): Dim {
    return this.plus(Dim.of(other).times(-1));
  }

  times(other: DimLike): Dim {
    const products: Term[] = [];
    for (const a of this.#terms) {
      for (const b of Dim.of(other).#terms) {
        const atoms = [...a.atoms, ...b.atoms].sort((x, y) => (atomText(x) < atomText(y) ? -1 : 1));
        products.push({ coefficient: a.coefficient * b.coefficient, atoms });
      }
    }
    return Dim.#from(products);
  }

  /** This size divided by a whole number, rounded up. Multiples of the divisor are taken out of the quotient. */
  ceilDiv(by: number): Dim {
    if (!Number.isSafeInteger(by) || by < 1) throw new GraphError(`ceilDiv: expected a divisor >= 1, got ${by}`);
    const whole: Term[] = [];
    const rest: Term[] = [];
    for (const term of this.#terms) {
      if (term.coefficient % by === 0) whole.push({ coefficient: term.coefficient / by, atoms: term.atoms });
      else rest.push(term);
    }
    const remainder = Dim.#from(rest);
    const constant = remainder.value;
    if (constant !== undefined) return Dim.#from(whole).plus(Math.ceil(constant / by));
    return Dim.#from([...whole, { coefficient: 1, atoms: [{ ceilDiv: remainder, by }] }]);
  }

  equals(other: DimLike): boolean {
    return this.#text === Dim.of(other).#text;
  }

  /** This size with symbols replaced; symbols that are not named stay. */
  bind(symbols: Readonly<Record<string, DimLike>>): Dim {
    let sum = Dim.of(0);
    for (const term of this.#terms) {
      let product = Dim.#constant(term.coefficient);
      for (const atom of term.atoms) {
        if ("symbol" in atom) product = product.times(symbols[atom.symbol] ?? atom.symbol);
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
    const terms = this.#terms.map(({ coefficient, atoms }) => {
      const factors = atoms.map(atom);
      const [first, ...rest] =
        coefficient === 1 && factors.length > 0 ? factors : [algebra.constant(coefficient), ...factors];
      return rest.reduce(algebra.times, first as T);
    });
    const [first, ...rest] = terms;
    return first === undefined ? algebra.constant(0) : rest.reduce(algebra.plus, first);
  }

  toString(): string {
    return this.#text;
  }
}

/** What sizes are made of, for `Dim.fold`. */
export interface DimAlgebra<T> {
  constant(value: number): T;
  symbol(name: string): T;
  plus(a: T, b: T): T;
  times(a: T, b: T): T;
  ceilDiv(a: T, by: number): T;
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

/** A size for arithmetic: `dim("P").plus("T")`. */
export function dim(value: DimLike): Dim {
  return Dim.of(value);
}

export function shapeOf(dims: readonly DimLike[]): Shape {
  return dims.map((value) => Dim.of(value));
}

export function shapeText(shape: Shape): string {
  return `[${shape.join(",")}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size.equals(b[axis] ?? -1));
}

/** Number of elements, as a size. */
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

/** The sizes of a bound shape. */
export function sizesOf(shape: Shape): number[] {
  return shape.map(sizeOf);
}
