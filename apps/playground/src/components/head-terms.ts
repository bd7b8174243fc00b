// One head's matrices out of a layer's, and what is read off them.

import type { LayerView } from "../worker/views.ts";

/** A square matrix, query before key; only keys up to the query count. */
export class TermMatrix {
  readonly length: number;
  readonly #values: Float32Array;

  constructor(values: Float32Array, length: number, head: number) {
    this.length = length;
    this.#values = values.subarray(head * length * length, (head + 1) * length * length);
  }

  at(query: number, key: number): number {
    return this.#values[query * this.length + key] ?? 0;
  }

  /** The values of keys 0 to `query`. */
  row(query: number): Float32Array {
    return this.#values.subarray(query * this.length, query * this.length + query + 1);
  }
}

export interface HeadTerms {
  readonly content: TermMatrix;
  readonly importance?: TermMatrix;
  readonly attention: TermMatrix;
}

export function headTerms(layer: LayerView, length: number, head: number): HeadTerms {
  const matrix = (values: Float32Array) => new TermMatrix(values, length, head);
  return {
    content: matrix(layer.content),
    attention: matrix(layer.attention),
    ...(layer.importance === undefined ? {} : { importance: matrix(layer.importance) }),
  };
}

/** The largest absolute value of a row, which gets the full colour. */
export function rowPeak(matrix: TermMatrix | undefined, query: number): number {
  return matrix?.row(query).reduce((peak, value) => Math.max(peak, Math.abs(value)), 0) ?? 0;
}

/** The keys with the largest values in a row, largest first. */
export function strongestKeys(matrix: TermMatrix, query: number, count: number): number[] {
  const keys = Array.from(matrix.row(query), (value, key) => ({ value, key }));
  return keys
    .sort((a, b) => b.value - a.value)
    .slice(0, count)
    .map(({ key }) => key);
}
