// Places in tensors while code is generated: as one number, row major, or one number for each axis. Either is computed
// from the other, once, where it is asked for.

/** Where generated lines go. */
export interface Scope {
  /** Adds `let name = expression` and returns the name; an expression that was added before keeps its name. */
  define(expression: string): string;
}

/** A place in a tensor, in code that is being generated. */
export class Place {
  /** Of the tensor's axes. */
  readonly sizes: readonly number[];
  readonly #scope: Scope;
  #flat: string | undefined;
  #coordinates: readonly string[] | undefined;

  private constructor(scope: Scope, sizes: readonly number[], flat?: string, coordinates?: readonly string[]) {
    this.#scope = scope;
    this.sizes = sizes;
    this.#flat = flat;
    this.#coordinates = coordinates;
  }

  /** A place given as one number, row major. */
  static flat(scope: Scope, sizes: readonly number[], flat: string): Place {
    return new Place(scope, sizes, flat);
  }

  /** Axes of size 1 have coordinate 0, whatever is passed. */
  static at(scope: Scope, sizes: readonly number[], coordinates: readonly string[]): Place {
    return new Place(
      scope,
      sizes,
      undefined,
      coordinates.map((coordinate, axis) => (sizes[axis] === 1 ? "0u" : coordinate)),
    );
  }

  /** The same place in a tensor of another shape with as many elements. */
  reshaped(sizes: readonly number[]): Place {
    return sizes.length === this.sizes.length && sizes.every((size, axis) => size === this.sizes[axis])
      ? this
      : new Place(this.#scope, sizes, this.flat);
  }

  /** The place in a tensor that was broadcast to this shape. */
  broadcastFrom(sizes: readonly number[]): Place {
    const extra = this.sizes.length - sizes.length;
    if (sizes.every((size, axis) => size === this.sizes[axis + extra])) {
      if (extra === 0) return this;
      if (this.sizes.slice(0, extra).every((size) => size === 1)) return this.reshaped(sizes);
    }
    if (sizes.every((size) => size === 1)) {
      return new Place(this.#scope, sizes, "0u");
    }
    // One trailing block that repeats: a remainder is all it takes.
    const inner = count(sizes);
    if (sizes.every((size, axis) => size === this.sizes[axis + extra]) && this.#coordinates === undefined) {
      return new Place(this.#scope, sizes, this.#scope.define(`${this.flat} % ${inner}u`));
    }
    // One leading block whose last axes have size 1: a quotient.
    const kept = sizes.findLastIndex((size) => size !== 1) + 1;
    const leading = extra === 0 && sizes.slice(0, kept).every((size, axis) => size === this.sizes[axis]);
    if (leading && this.#coordinates === undefined) {
      const below = count(this.sizes.slice(kept));
      return new Place(this.#scope, sizes, this.#scope.define(`${this.flat} / ${below}u`));
    }
    return Place.at(this.#scope, sizes, this.coordinates.slice(extra));
  }

  /** As one number, row major: an expression of u32. */
  get flat(): string {
    if (this.#flat !== undefined) return this.#flat;
    const terms: string[] = [];
    let stride = 1;
    for (let axis = this.sizes.length - 1; axis >= 0; axis--) {
      const coordinate = this.#coordinates?.[axis] ?? "0u";
      if (coordinate !== "0u") terms.unshift(stride === 1 ? coordinate : `${coordinate} * ${stride}u`);
      stride *= this.sizes[axis] ?? 1;
    }
    const [only, second] = terms;
    this.#flat = only === undefined ? "0u" : second === undefined && !only.includes(" ") ? only : this.#define(terms);
    return this.#flat;
  }

  #define(terms: readonly string[]): string {
    return this.#scope.define(terms.join(" + "));
  }

  /** As one number for each axis: expressions of u32. */
  get coordinates(): readonly string[] {
    if (this.#coordinates !== undefined) return this.#coordinates;
    const result = new Array<string>(this.sizes.length).fill("0u");
    let rest = this.#flat ?? "0u";
    const wide = this.sizes.findIndex((size) => size !== 1);
    for (let axis = this.sizes.length - 1; axis >= 0; axis--) {
      const size = this.sizes[axis] ?? 1;
      if (size === 1) continue;
      if (axis === wide) {
        result[axis] = rest;
        break;
      }
      result[axis] = this.#scope.define(`${rest} % ${size}u`);
      rest = this.#scope.define(`${rest} / ${size}u`);
    }
    this.#coordinates = result;
    return result;
  }

  /** The place with other coordinates, in a tensor of another shape. */
  moved(sizes: readonly number[], coordinates: readonly string[]): Place {
    return Place.at(this.#scope, sizes, coordinates);
  }
}

export function count(sizes: readonly number[]): number {
  return sizes.reduce((a, b) => a * b, 1);
}
