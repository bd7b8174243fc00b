// Sizes of axes inside a model: constants where they are known, arithmetic on the shapes of inputs where they are not.

import { type Dim, GraphError, type Shape } from "@sisa/core";
import type { GraphBuilder, Value } from "./model-proto.ts";

/** Where a symbol's size can be read: an axis of an input that is that symbol and, at most, others that are known. */
export interface SymbolSource {
  readonly value: Value;
  readonly axis: number;
  /** What else the axis has. */
  readonly others?: Dim;
}

/** Sizes and shapes as values of a model. */
export class Sizes {
  readonly #builder: GraphBuilder;
  readonly #sources: ReadonlyMap<string, SymbolSource>;
  readonly #known = new Map<string, Value>();

  constructor(builder: GraphBuilder, sources: ReadonlyMap<string, SymbolSource>) {
    this.#builder = builder;
    this.#sources = sources;
  }

  /** A size as int64 [1]. @throws GraphError where a symbol is no input's axis */
  size(size: Dim): Value {
    const text = size.toString();
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const builder = this.#builder;
    const value = size.fold<Value>({
      constant: (number) => builder.int64(number),
      symbol: (name) => this.#symbol(name),
      plus: (a, b) => builder.node("Add", [a, b]),
      times: (a, b) => builder.node("Mul", [a, b]),
      // Sizes are not negative, so the quotient may be rounded towards zero.
      ceilDiv: (a, by) => builder.node("Div", [builder.node("Add", [a, builder.int64(by - 1)]), builder.int64(by)]),
    });
    this.#known.set(text, value);
    return value;
  }

  #symbol(name: string): Value {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const source = this.#sources.get(name);
    if (source === undefined) {
      throw new GraphError(`size ${name} is not the size of an axis of any input; add such an axis or bind ${name}`);
    }
    const { value, axis, others } = source;
    const whole = this.#builder.node("Shape", [value], { start: axis, end: axis + 1 });
    const size = others ? this.#builder.node("Sub", [whole, this.size(others)]) : whole;
    this.#known.set(name, size);
    return size;
  }

  /** A shape as int64 [rank]. @throws GraphError where a symbol is no input's axis */
  shape(shape: Shape): Value {
    const values = shape.map((size) => size.value);
    if (values.every((value) => value !== undefined)) return this.#builder.int64(...values);
    return this.#builder.node(
      "Concat",
      shape.map((size) => this.size(size)),
      { axis: 0 },
    );
  }
}
