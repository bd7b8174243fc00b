// Matrix products through cuBLASLt.

import { bytesOf } from "@sisa/core";
import type { ProductType } from "../device/cublas-lt.ts";
import type { Context, LoweringRule, View } from "../plan.ts";

interface MatmulAttributes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

export const matmul: LoweringRule = (context) => {
  const [a, b] = [context.input("a"), context.input("b")];
  const { transposeA, transposeB } = context.attributes<MatmulAttributes>();
  const value = context.output();
  const [m = 0, n = 0] = value.sizes.slice(-2);
  const k = a.sizes.at(transposeA ? -2 : -1) ?? 0;
  if (value.count === 0) return;
  if (k === 0) {
    context.zero(value, value.bytes);
    return;
  }
  const leading = value.sizes.slice(0, -2);
  const type = a.spec.dtype as ProductType;
  const resultType = value.spec.dtype as ProductType;
  // A weight that all leading axes use is one product over their rows.
  if (
    b.sizes.slice(0, -2).every((size) => size === 1) &&
    !transposeA &&
    a.count === leading.reduce((x, y) => x * y, m * k)
  ) {
    const rows = a.count / k;
    run(context, { m: rows, n, k, transposeA, transposeB, type, resultType }, 1, [a, b, value], [0, 0, 0]);
    return;
  }
  const places = (sizes: readonly number[], matrix: number) => batchPlaces(sizes.slice(0, -2), leading, matrix);
  const from = [places(a.sizes, m * k), places(b.sizes, k * n)] as const;
  for (const { first, count, strideA, strideB } of runsOf(...from)) {
    const at = (view: View, element: number, place: number) => ({
      storage: view.storage,
      offset: view.offset + place * element,
    });
    const views = [
      at(a, bytesOf(a.spec.dtype), from[0][first] ?? 0),
      at(b, bytesOf(b.spec.dtype), from[1][first] ?? 0),
      at(value, bytesOf(value.spec.dtype), first * m * n),
    ] as const;
    run(context, { m, n, k, transposeA, transposeB, type, resultType }, count, views, [strideA, strideB, m * n]);
  }
};

/** For each matrix of the result, where the operand's matrix begins, in elements. */
export function batchPlaces(sizes: readonly number[], leading: readonly number[], matrix: number): number[] {
  let places = [0];
  const extra = leading.length - sizes.length;
  const strides = new Array<number>(leading.length).fill(0);
  let stride = matrix;
  for (let axis = sizes.length - 1; axis >= 0; axis--) {
    if (sizes[axis] !== 1) strides[axis + extra] = stride;
    stride *= sizes[axis] ?? 1;
  }
  leading.forEach((size, axis) => {
    places = places.flatMap((place) => Array.from({ length: size }, (_, i) => place + i * (strides[axis] ?? 0)));
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
  sizes: {
    readonly m: number;
    readonly n: number;
    readonly k: number;
    readonly transposeA: boolean;
    readonly transposeB: boolean;
    readonly type: ProductType;
    readonly resultType: ProductType;
  },
  batch: number,
  [a, b, c]: readonly [View, View, View],
  [strideA, strideB, strideC]: readonly [number, number, number],
): void {
  const offsets = [a.offset, b.offset, c.offset];
  const alignment = [16, 8, 4, 2].find((size) => offsets.every((offset) => offset % size === 0)) ?? 1;
  context.product({ ...sizes, batch, strideA, strideB, strideC, accumulate: false, alignment }, a, b, c);
}
