// Reductions and running sums.

import { packAxes } from "../device/arguments.ts";
import { type ComputeSuffix, elementType, suffixOf } from "../device/element-type.ts";
import type { Context, LoweringRule, Value, View } from "../plan.ts";
import { denseStrides } from "../views.ts";
import { blocksFor } from "./elementwise.ts";

interface ReduceAttributes {
  readonly axes: readonly number[];
}

function reduction(name: "sum" | "max"): LoweringRule {
  return (context) => {
    const x = context.strided("x");
    const value = context.output();
    if (value.count === 0) return;
    const { axes } = context.attributes<ReduceAttributes>();
    reduce(context, name, x, value, axes);
  };
}

/** Sum or maximum over axes; either along rows, or down columns, in parts where there are too few columns. */
function reduce(context: Context, name: "sum" | "max", x: Value, value: Value, axes: readonly number[]): void {
  const { strides } = x;
  const all = x.sizes.map((_, axis) => axis);
  const kept = all.filter((axis) => !axes.includes(axis));
  const sizesAt = (which: readonly number[]) => which.map((axis) => x.sizes[axis] ?? 1);
  const stridesAt = (which: readonly number[]) => which.map((axis) => strides[axis] ?? 0);
  const suffix = value.spec.dtype === "float64" ? "d" : suffixOf(x.spec.dtype);
  const input = { type: elementType[x.spec.dtype], strides: stridesAt(kept) };
  const ownStrides = denseStrides(sizesAt(kept));
  const reducedAxes = packAxes(sizesAt(axes), [
    { type: 0, strides: axes.map(() => 0) },
    { type: elementType[x.spec.dtype], strides: stridesAt(axes) },
  ]);
  const keptAxes = (type: number) => packAxes(sizesAt(kept), [{ type, strides: ownStrides }, input]);
  const reduced = sizesAt(axes).reduce((a, b) => a * b, 1);
  const lastReduced = axes.includes(lastLongAxis(x.sizes));
  if (lastReduced || value.count < 32) {
    const threads = reduced >= 4096 ? 1024 : reduced >= 256 ? 256 : 32;
    const parts = value.count * 4 < context.multiprocessors && reduced >= 65_536 ? context.multiprocessors : 1;
    if (parts === 1 || name === "max") {
      const blocks = Math.min(value.count, context.multiprocessors * 64);
      const own = keptAxes(elementType[value.spec.dtype]);
      context.kernel(`${name}Rows_${suffix}`, blocks, threads, [x, value, own, reducedAxes]);
      return;
    }
  }
  const columns = Math.ceil(value.count / 32);
  const parts = Math.max(
    1,
    Math.min(Math.floor((context.multiprocessors * 4) / columns), Math.ceil(reduced / 64), 1024),
  );
  const args = (target: View, type: number): Parameters<Context["kernel"]>[3] => [
    x,
    target,
    keptAxes(type),
    reducedAxes,
    value.count,
  ];
  if (parts === 1) {
    context.kernel(`${name}Columns_${suffix}`, [columns, 1, 1], 256, args(value, elementType[value.spec.dtype]));
    return;
  }
  const wide = suffix === "f" ? elementType.float32 : suffix === "d" ? elementType.float64 : elementType.int32;
  const partial = context.scratch(parts * value.count * (suffix === "d" ? 8 : 4));
  context.kernel(`${name}Columns_${suffix}`, [columns, parts, 1], 256, args(partial, wide));
  columnSums(context, name, partial, parts, value, wide, suffix);
}

/** Joins parts [parts, count] of an element type into one result. */
function columnSums(
  context: Context,
  name: "sum" | "max",
  parts: View,
  count: number,
  value: Value,
  type: number,
  suffix: ComputeSuffix,
): void {
  const kept = packAxes(
    [value.count],
    [
      { type: elementType[value.spec.dtype], strides: [1] },
      { type, strides: [1] },
    ],
  );
  const reduced = packAxes(
    [count],
    [
      { type: 0, strides: [0] },
      { type, strides: [value.count] },
    ],
  );
  const columns = Math.ceil(value.count / 32);
  context.kernel(`${name}Columns_${suffix}`, [columns, 1, 1], 256, [parts, value, kept, reduced, 0]);
}

/** Sums rows of float32 [count, columns] into a result of as many columns. */
export function sumColumns(context: Context, parts: View, count: number, value: Value): void {
  const args = [parts, value, elementType[value.spec.dtype], count, value.count] as const;
  context.kernel("sumParts", Math.ceil(value.count / 32), 1024, args);
}

/** The last axis with more than one element: neighbours in memory differ along it. */
function lastLongAxis(sizes: readonly number[]): number {
  return sizes.findLastIndex((size) => size > 1);
}

export const sum = reduction("sum");
export const max = reduction("max");

export const argmax: LoweringRule = (context) => {
  const x = context.input("x");
  const value = context.output();
  if (value.count === 0) return;
  const suffix = suffixOf(x.spec.dtype);
  const blocks = Math.min(value.count, context.multiprocessors * 8);
  const columns = x.sizes.at(-1) ?? 1;
  const type = elementType[x.spec.dtype];
  context.kernel(`argmax_${suffix}`, blocks, 256, [x, type, value, value.count, columns]);
};

export const cumulativeSum: LoweringRule = (context) => {
  const x = context.input("x");
  const value = context.output("value", ["x"]);
  if (value.count === 0) return;
  const { axis, exclusive, reverse } = context.attributes<{
    readonly axis: number;
    readonly exclusive: boolean;
    readonly reverse: boolean;
  }>();
  const length = x.sizes[axis] ?? 1;
  const inner = x.sizes.slice(axis + 1).reduce((a, b) => a * b, 1);
  const lines = x.count / length;
  const args = [x, value, elementType[x.spec.dtype], lines, length, inner, exclusive ? 1 : 0, reverse ? 1 : 0] as const;
  // One thread for each line keeps no device busy where lines are few and long.
  if (length >= 128 && lines < context.multiprocessors * 512) {
    context.kernel("cumulativeSumStrips", Math.min(lines, context.multiprocessors * 16), 256, args);
  } else {
    context.kernel("cumulativeSum", blocksFor(context, lines, 64), 64, args);
  }
};

/** [batches, length, row] of a tensor whose axis 1 is time. */
function timeSizes({ sizes }: Value): readonly [number, number, number] {
  const [batches = 1, length = 1, ...rest] = sizes;
  return [batches, length, rest.reduce((a, b) => a * b, 1)];
}

export const blockCumulativeSum: LoweringRule = (context) => {
  const [x, before, start] = [context.input("x"), context.optional("before"), context.optional("start")];
  const value = context.output("value", ["x"]);
  if (value.count === 0) return;
  const { size, reverse } = context.attributes<{ readonly size: number; readonly reverse: boolean }>();
  const [batches, length, row] = timeSizes(x);
  const type = elementType[x.spec.dtype];
  const lines = batches * row * (start ? 1 : Math.ceil(length / size));
  context.kernel("blockCumulativeSum", blocksFor(context, lines, 64), 64, [
    x,
    before ?? null,
    start ?? null,
    value,
    type,
    batches,
    length,
    row,
    size,
    reverse ? 1 : 0,
  ]);
};

export const cumulativePhase: LoweringRule = (context) => {
  const [x, before] = [context.input("x"), context.optional("before")];
  // Not over x, which other warps read again.
  const value = context.output();
  if (value.count === 0) return;
  const [batches, length, row] = timeSizes(x);
  const args = [x, before ?? null, value, elementType[x.spec.dtype], batches, length, row];
  context.kernel("cumulativePhase", blocksFor(context, batches * row, 32), 256, args);
};

export const linearScan: LoweringRule = (context) => {
  const [a, b, h0] = [context.input("a"), context.input("b"), context.optional("h0")];
  const value = context.output("value", ["a", "b"]);
  if (value.count === 0) return;
  const { reverse } = context.attributes<{ readonly reverse: boolean }>();
  const [batches, length, row] = timeSizes(a);
  const suffix = suffixOf(a.spec.dtype);
  const args = [a, b, h0 ?? null, value, elementType[a.spec.dtype], batches, length, row, reverse ? 1 : 0];
  context.kernel(`linearScan_${suffix}`, blocksFor(context, batches * row, 64), 64, args);
};
