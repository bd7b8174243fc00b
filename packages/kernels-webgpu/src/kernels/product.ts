// What a matrix product is of, and the text that its kernels have in common.

import { count, Place } from "../codegen/index-space.ts";
import type { Slot } from "../codegen/shader.ts";
import type { Finish } from "../lowering.ts";

/** What is multiplied: [batch, m, k] x [batch, k, n], where leading axes of a and b may be broadcast. */
export interface Product {
  readonly a: Slot;
  readonly b: Slot;
  readonly out: Slot;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** Leading axes of the result and of the operands. */
  readonly leading: readonly number[];
  readonly leadingA: readonly number[];
  readonly leadingB: readonly number[];
  readonly finish?: Finish | undefined;
  /** Elements of each array that come before; multiples of four. Default 0. */
  readonly offsets?: { readonly a?: number; readonly b?: number; readonly out?: number };
  /** Added to what is there. */
  readonly accumulate?: boolean;
}

export const outStart = ({ offsets }: Product) => (offsets?.out ? `${offsets.out}u + ` : "");
export const assign = ({ accumulate }: Product) => (accumulate ? "+=" : "=");
export const finished = (finish: Finish | undefined, place: string, value: string) =>
  finish ? `finish(${place}, ${value})` : value;

export function inFours(slot: Slot, four: boolean): Slot {
  return four ? { ...slot, type: `vec4<${slot.value.type}>` } : slot;
}

export const lines = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => line(index)).join("\n");

/** Where the matrices of `batch` begin in a and b. */
export function batchStarts({ leading, leadingA, leadingB, m, n, k, offsets }: Product) {
  const lines: string[] = [];
  const names = new Map<string, string>();
  const scope = {
    define(expression: string): string {
      const known = names.get(expression);
      if (known !== undefined) return known;
      const name = `p${names.size}`;
      names.set(expression, name);
      lines.push(`let ${name} = ${expression};`);
      return name;
    },
  };
  const place = Place.flat(scope, leading, "batch");
  const startOf = (sizes: readonly number[], matrix: number, offset = 0) => {
    if (count(sizes) === 1) return `${offset}u`;
    return scope.define(`${offset > 0 ? `${offset}u + ` : ""}${place.broadcastFrom(sizes).flat} * ${matrix}u`);
  };
  const [startA, startB] = [startOf(leadingA, m * k, offsets?.a), startOf(leadingB, k * n, offsets?.b)];
  return { lines, startA, startB };
}
