// Operations that move elements. All but the indexed ones are strided copies.

import { bytesOf, type Dim, type Node, sizesOf } from "@sisa/core";
import { elementType } from "../device/element-type.ts";
import type { GatherPhase } from "../join-phases.ts";
import type { Alias, Context, LoweringRule, Part, Region, Value, View } from "../plan.ts";
import { broadcastStrides, reshapeStrides } from "../views.ts";
import { copyElements } from "./copy.ts";
import { blocksFor } from "./elementwise.ts";
import { rowsOfCache } from "./pages.ts";

const elementOf = ({ spec }: Value) => bytesOf(spec.dtype);
const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);

/** The same place with other strides, from an element on. */
const at = (value: Value, first: number, strides: readonly number[]): Region => ({
  storage: value.storage,
  offset: value.offset + first * elementOf(value),
  strides,
});

export const broadcastTo: LoweringRule = (context) => {
  const x = context.strided("x");
  const value = context.stridedOutput();
  const from = at(x, 0, broadcastStrides(x.sizes, value.sizes, x.strides));
  copyElements(context, elementOf(x), value.sizes, from, value);
};

export const transpose: LoweringRule = (context) => {
  const x = context.strided("x");
  const value = context.stridedOutput();
  const { permutation } = context.attributes<{ readonly permutation: readonly number[] }>();
  const from = at(
    x,
    0,
    permutation.map((axis) => x.strides[axis] ?? 0),
  );
  copyElements(context, elementOf(x), value.sizes, from, value);
};

export const pad: LoweringRule = (context) => {
  const x = context.strided("x");
  const value = context.output();
  const { axis, before } = context.attributes<{ readonly axis: number; readonly before: Dim }>();
  const [first, count] = [before.value ?? 0, x.sizes[axis] ?? 0];
  if (context.keepsZeros(value, axis, first, count)) {
    // Nothing to write.
  } else if (product(value.sizes.slice(0, axis)) === 1) {
    const row = (value.strides[axis] ?? 1) * elementOf(value);
    const after = first + count;
    context.zero(value, first * row);
    context.zero(at(value, after * (value.strides[axis] ?? 1), []), value.bytes - after * row);
  } else {
    context.zero(value, value.bytes);
  }
  copyPart(context, x, value, axis, first);
};

/** Copies a part of an output along an axis to its place, unless it was made there. */
function copyPart(context: Context, part: Value, whole: Value, axis: number, start: number): void {
  const to = at(whole, start * (whole.strides[axis] ?? 0), whole.strides);
  const made = part.storage === to.storage && part.offset === to.offset;
  if (!made) copyElements(context, elementOf(part), part.sizes, part, to);
}

export const concat: LoweringRule = (context) => {
  const value = context.stridedOutput();
  const { axis } = context.attributes<{ readonly axis: number }>();
  let place = 0;
  for (const name of Object.keys(context.node.inputs)) {
    const part = context.strided(name);
    copyPart(context, part, value, axis, place);
    place += part.sizes[axis] ?? 0;
  }
};

/** Concatenation, whose parts may be made where they belong, and zeros around one. */
export function gatheringOf({ op, inputs, attributes }: Node): readonly Part[] | undefined {
  const { axis, before } = attributes as { readonly axis: number; readonly before?: Dim };
  // What others read too had better be dense.
  if (op.name === "pad")
    return inputs.x?.node.op.name === "concat" ? [{ input: "x", axis, start: before?.value ?? 0 }] : [];
  if (op.name !== "concat") return undefined;
  let place = 0;
  return Object.entries(inputs).map(([input, { shape }]) => {
    const start = place;
    place += sizesOf(shape)[axis] ?? 0;
    return { input, axis, start };
  });
}

/** [outer, length, inner] among rows that are longer on one side: what chunk and unchunk copy. */
function copyRows(context: Context, x: Value, value: Value, axis: number): void {
  const outer = product(x.sizes.slice(0, axis));
  const fromLength = product(x.sizes.slice(axis));
  const toLength = product(value.sizes.slice(axis));
  const length = Math.min(fromLength, toLength);
  copyElements(context, elementOf(x), [outer, length], at(x, 0, [fromLength, 1]), at(value, 0, [toLength, 1]));
}

export const chunk: LoweringRule = (context) => {
  const x = context.input("x");
  const value = context.output();
  const { axis } = context.attributes<{ readonly axis: number }>();
  if (value.count > x.count) context.zero(value, value.bytes);
  copyRows(context, x, value, axis);
};

export const unchunk: LoweringRule = (context) => {
  const { axis } = context.attributes<{ readonly axis: number }>();
  copyRows(context, context.input("x"), context.output(), axis);
};

export const iota: LoweringRule = (context) => {
  const value = context.output();
  if (value.count > 0) context.kernel("iota", blocksFor(context, value.count), 256, [value, value.count]);
};

const idsMessage = (op: string, rows: number) => (value: number) =>
  `${op}: expected ids from 0 to ${rows - 1}, got ${value}`;

/** Bytes that are copied at a time, of rows that follow each other from an offset on. */
function wordOf(bytes: number, offset: number): number {
  return [16, 8, 4, 2, 1].find((size) => bytes % size === 0 && offset % size === 0) ?? 1;
}

/** Threads that share a row of so many words. */
function threadsFor(words: number): number {
  return Math.min(256, Math.max(32, Math.ceil(words / 32) * 32));
}

export const gather: LoweringRule = (context) => {
  const [table, ids, value] = [context.input("table"), context.input("ids"), context.output()];
  if (ids.count === 0) return;
  const rows = table.sizes[0] ?? 0;
  const bytes = product(table.sizes.slice(1)) * elementOf(table);
  const word = wordOf(bytes, table.offset);
  const fault = context.fault(idsMessage("gather", rows));
  const blocks = Math.min(ids.count, context.multiprocessors * 64);
  const args = [table, ids, value, ids.count, rows, bytes / word, ...fault];
  const phase: GatherPhase = { kind: "gather", table, ids, value, fault, rows: ids.count, k: bytes / 2, length: rows };
  const isPhase = value.spec.dtype === "bfloat16";
  context.kernel(`gather_${word}`, blocks, threadsFor(bytes / word), args, 0, { phase: isPhase ? phase : undefined });
};

export const takeRow: LoweringRule = (context) => {
  const [x, row, value] = [context.input("x"), context.input("row"), context.output()];
  if (row.count === 0) return;
  const { pages, size, capacity } = rowsOfCache(context, x);
  const bytes = product(x.sizes.slice(2)) * elementOf(x);
  const word = wordOf(bytes, x.offset);
  const fault = context.fault(idsMessage("takeRow", capacity));
  const blocks = Math.min(row.count, context.multiprocessors * 64);
  const args = [x, row, value, row.count, size, bytes / word, ...fault, pages];
  context.kernel(`takeRow_${word}`, blocks, threadsFor(bytes / word), args);
};

export const cacheWrite: LoweringRule = (context) => {
  const [cache, update, start] = [context.input("cache"), context.input("update"), context.input("start")];
  const value = context.output("value", ["cache"]);
  context.copy(cache, value, value.bytes);
  const [batches = 0, rows = 0] = update.sizes;
  if (batches === 0) return;
  const { pages, size, capacity } = rowsOfCache(context, cache);
  const bytes = product(update.sizes.slice(2)) * elementOf(update);
  const word = wordOf(bytes, update.offset);
  const fault = context.fault(
    (from) => `cacheWrite: expected rows within 0 to ${capacity - 1}, got ${from} to ${from + rows - 1}`,
  );
  const blocks = Math.min(Math.max(rows, 1), context.multiprocessors * 8);
  const args = [update, start, value, rows, size, bytes / word, ...fault, pages];
  context.kernel(`cacheWrite_${word}`, [blocks, batches, 1], threadsFor(bytes / word), args);
};

/** Indices that a block sorts; SORTED in kernels/movement.cu. */
const sortedAtOnce = 1024;
/** Rows whose first updates a block reads at once; ROWS there. */
const rowsAtOnce = 4;

/** Sums in order of index: the updates of each row are found by sorting, and never added by atomics. */
export const scatterAdd: LoweringRule = (context) => {
  sumRows(context, context.output(), false);
};

/** The same, added to what is there: rows that get nothing are not touched. */
export const addRows: LoweringRule = (context) => {
  const value = context.outputOver("value", ["addend"]);
  context.copy(context.input("addend"), value, value.bytes);
  sumRows(context, value, true);
};

function sumRows(context: Context, value: Value, adds: boolean): void {
  const [updates, ids] = [context.input("updates"), context.input("ids")];
  const rows = value.sizes[0] ?? 0;
  const columns = product(value.sizes.slice(1));
  const fault = context.fault(idsMessage("scatterAdd", rows));
  const words = (count: number) => context.scratch(4 * Math.max(count, 1));
  const sorters = Math.ceil(ids.count / sortedAtOnce);
  const orders = [words(ids.count), words(ids.count)];
  const counts = words(256 * sorters);
  let order: View | null = null;
  // `rows` itself stands for ids that are no row.
  const digits = ids.count === 0 ? 0 : Math.max(1, Math.ceil(Math.log2(rows + 1) / 8));
  for (let digit = 0; digit < digits; digit++) {
    const sorted = orders[digit % 2] as View;
    const given = [ids, order, ids.count, rows, 8 * digit];
    context.kernel("scatterCount", sorters, sortedAtOnce, [...given, counts, ...fault]);
    context.kernel("scatterPlaces", 1, 1024, [counts, 256 * sorters]);
    context.kernel("scatterMove", sorters, sortedAtOnce, [...given, counts, sorted]);
    order = sorted;
  }
  if (value.count === 0) return;
  const starts = words(rows + 1);
  context.kernel("scatterStarts", blocksFor(context, rows + 1), 256, [ids, order, ids.count, rows, starts]);
  const suffix = updates.spec.dtype === "float64" || value.spec.dtype === "float64" ? "d" : "f";
  const threads = columns >= 256 ? 256 : Math.ceil(columns / 32) * 32;
  const slices = Math.min(8, Math.ceil(columns / threads));
  const [from, to] = [elementType[updates.spec.dtype], elementType[value.spec.dtype]];
  const blocks = Math.min(Math.ceil(rows / rowsAtOnce), Math.ceil((context.multiprocessors * 8) / slices));
  const args = [updates, from, order, starts, value, to, rows, columns, adds ? 1 : 0];
  context.kernel(`scatterSum_${suffix}`, [blocks, slices, 1], threads, args);
}

/** Reshapes and slices. */
export function aliasOf(node: Node): Alias | undefined {
  const x = node.inputs.x;
  const [output] = Object.values(node.outputs);
  if (!x || !output) return undefined;
  if (node.op.name === "reshape") {
    const [sizes, target] = [sizesOf(x.shape), sizesOf(output.shape)];
    return {
      input: "x",
      place(strides) {
        const found = reshapeStrides(sizes, strides, target);
        return found && { first: 0, strides: found };
      },
    };
  }
  if (node.op.name !== "slice") return undefined;
  const { axis, start } = node.attributes as { readonly axis: number; readonly start: Dim };
  return { input: "x", place: (strides) => ({ first: (start.value ?? 0) * (strides[axis] ?? 0), strides }) };
}
