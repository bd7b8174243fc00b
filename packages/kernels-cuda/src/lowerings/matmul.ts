// Matrix products through cuBLASLt.

import { bytesOf } from "@sisa/core";
import type { Product, ProductType } from "../device/cublas-lt.ts";
import type { Context, LoweringRule, Value, View } from "../plan.ts";
import { broadcastStrides, rowsOf } from "../views.ts";
import { multiplyFewRows } from "./few-rows.ts";

/** What cuBLASLt is told of addresses; storages start at multiples of the first. */
export const alignments = [256, 128, 64, 32, 16, 8, 4, 2];

interface MatmulAttributes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

export const matmul: LoweringRule = (context) => {
  multiply(context);
};

/** A product, to which `addend`, where there is one, is added before it is rounded. */
export function multiply(context: Context, addend?: Value): void {
  const [a, b] = [matrices(context, "a"), matrices(context, "b")];
  const { transposeA, transposeB } = context.attributes<MatmulAttributes>();
  if (!transposeA && transposeB && multiplyFewRows(context, a, b, addend)) return;
  const value = context.output();
  const [m = 0, n = 0] = value.sizes.slice(-2);
  const k = a.sizes.at(transposeA ? -2 : -1) ?? 0;
  if (value.count === 0) return;
  if (k === 0) {
    if (addend) context.copy(addend, value, value.bytes);
    else context.zero(value, value.bytes);
    return;
  }
  const leading = value.sizes.slice(0, -2);
  const type = a.spec.dtype as ProductType;
  const resultType = value.spec.dtype as ProductType;
  const kinds = { k, transposeA, transposeB, type, resultType };
  // A weight that all leading axes use is one product over their rows.
  const rows = leading.reduce((x, y) => x * y, m);
  const flat = rowsOf(a.sizes, a.strides);
  if (b.sizes.slice(0, -2).every((size) => size === 1) && !transposeA && a.count === rows * k && flat) {
    const pitches = [flat.pitch, pitchOf(b), n] as const;
    run(context, { ...kinds, m: rows, n }, 1, [a, b, value, addend], [0, 0, 0], pitches);
    return;
  }
  const from = [placesOf(a, leading), placesOf(b, leading)] as const;
  for (const { first, count, strideA, strideB } of runsOf(...from)) {
    const at = (view: View, element: number, place: number) => ({
      storage: view.storage,
      offset: view.offset + place * element,
    });
    const inValue = (view: Value) => at(view, bytesOf(view.spec.dtype), first * m * n);
    const views = [
      at(a, bytesOf(a.spec.dtype), from[0][first] ?? 0),
      at(b, bytesOf(b.spec.dtype), from[1][first] ?? 0),
      inValue(value),
      addend && inValue(addend),
    ] as const;
    run(context, { ...kinds, m, n }, count, views, [strideA, strideB, m * n], [pitchOf(a), pitchOf(b), n]);
  }
}

/** An operand whose matrices have rows of neighbouring elements. */
function matrices(context: Context, name: string): Value {
  const value = context.strided(name);
  const [rows = 1, columns = 1] = value.sizes.slice(-2);
  const [pitch = 0, step = 0] = value.strides.slice(-2);
  const readable = (columns === 1 || step === 1) && (rows === 1 || pitch >= columns);
  return readable && value.offset % bytesOf(value.spec.dtype) === 0 ? value : context.input(name);
}

/** Elements from one row of a matrix to the next. */
function pitchOf({ sizes, strides }: Value): number {
  const [rows = 1, columns = 1] = sizes.slice(-2);
  return rows === 1 ? columns : (strides.at(-2) ?? columns);
}

function placesOf({ sizes, strides }: Value, leading: readonly number[]): number[] {
  return batchPlaces(sizes.slice(0, -2), leading, strides.slice(0, -2));
}

/** For each matrix of the result, where the operand's matrix begins, in elements. */
export function batchPlaces(
  sizes: readonly number[],
  leading: readonly number[],
  strides: readonly number[],
): number[] {
  const steps = broadcastStrides(sizes, leading, strides);
  let places = [0];
  leading.forEach((size, axis) => {
    places = places.flatMap((place) => Array.from({ length: size }, (_, i) => place + i * (steps[axis] ?? 0)));
  });
  return places;
}

/** Runs of matrices that lie at even distances in both operands. */
export function runsOf(a: readonly number[], b: readonly number[]) {
  const runs: { first: number; count: number; strideA: number; strideB: number }[] = [];
  for (let index = 0; index < a.length; index++) {
    const last = runs.at(-1);
    const stepA = (a[index] ?? 0) - (a[index - 1] ?? 0);
    const stepB = (b[index] ?? 0) - (b[index - 1] ?? 0);
    if (last?.count === 1) Object.assign(last, { count: 2, strideA: stepA, strideB: stepB });
    else if (last && last.strideA === stepA && last.strideB === stepB) last.count += 1;
    else runs.push({ first: index, count: 1, strideA: 0, strideB: 0 });
  }
  // cuBLASLt steps forwards only.
  return runs.flatMap((run) =>
    run.strideA >= 0 && run.strideB >= 0
      ? [run]
      : Array.from({ length: run.count }, (_, i) => ({ first: run.first + i, count: 1, strideA: 0, strideB: 0 })),
  );
}

function run(
  context: Context,
  sizes: Pick<Product, "m" | "n" | "k" | "transposeA" | "transposeB" | "type" | "resultType">,
  batch: number,
  [a, b, c, addend]: readonly [View, View, View, View | undefined],
  [strideA, strideB, strideC]: readonly [number, number, number],
  [pitchA, pitchB, pitchC]: readonly [number, number, number],
): void {
  const offsets = [a, b, c, addend ?? c].map(({ offset }) => offset);
  const alignment = alignments.find((size) => offsets.every((offset) => offset % size === 0)) ?? 1;
  const layout = { batch, strideA, strideB, strideC, pitchA, pitchB, pitchC, alignment };
  context.product({ ...sizes, ...layout }, a, b, c, addend);
}
