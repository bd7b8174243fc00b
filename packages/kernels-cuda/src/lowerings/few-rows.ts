// Products x W^T of few rows, which are bound by reading W: alone, with a sum, or with the norm before them and a gate after.

import { bytesOf, type DType, type Node, sizesOf, type TensorSpec } from "@sisa/core";
import { packStruct } from "../device/arguments.ts";
import { everyGpu } from "../device/kernels.ts";
import { mostRows } from "../fusion/join-decoding.ts";
import type { ProductPhase } from "../join-phases.ts";
import type { Context, Value, View } from "../plan.ts";
import { rowsOf } from "../views.ts";
import type { Lowering } from "./index.ts";

/** Warps of a block; as in kernels/few-rows.cu. */
const warps = 8;
/** Rows of W that a warp copies ahead, at most; what waitForCopies in kernels/overlap.cuh can wait for. */
const deepest = 8;
/** What every GPU gives a block; of these, two fit on Hopper. */
const mostSharedBytes = everyGpu.sharedBytes;
/** From so many rows of W for each warp on, a warp takes two at a time. */
const manyRows = 8;

interface FewRows {
  readonly x: Value;
  readonly rows: number;
  readonly weights: readonly [Value, (Value | undefined)?];
  readonly results: readonly [Value, (Value | undefined)?];
  readonly addend?: Value | undefined;
  readonly norm?: { readonly weight: Value; readonly epsilon: number };
  /** int32 [rows], which of `length` rows of x [rows, length, k] each takes. */
  readonly taken?: {
    readonly row: Value;
    readonly length: number;
    readonly isFromZero: boolean;
    readonly fault: readonly [View, number];
  };
  readonly isGate?: boolean;
}

interface Sizes {
  readonly dtype: DType;
  readonly rows: number;
  readonly k: number;
  readonly hasNorm: boolean;
}

/** Bytes of shared memory, where each warp copies `depth` rows of W ahead, or as many times `unit` of them. */
function sharedBytesFor({ dtype, rows, k, hasNorm }: Sizes, unit: number, depth: number): number {
  return (rows + warps * depth * unit) * k * bytesOf(dtype) + (hasNorm ? 4 * k : 0);
}

/** Whether the kernel takes rows of these sizes. */
function fits(sizes: Sizes, unit: number): boolean {
  const { dtype, rows, k } = sizes;
  const isKnown = dtype === "float32" || dtype === "bfloat16";
  const isWhole = k > 0 && (k * bytesOf(dtype)) % 16 === 0;
  return isKnown && isWhole && rows > 0 && rows <= mostRows && sharedBytesFor(sizes, unit, 1) <= mostSharedBytes;
}

const isAligned = ({ offset }: View, pitch: number, dtype: DType) =>
  offset % 16 === 0 && (pitch * bytesOf(dtype)) % 16 === 0;

/** Rows of k elements that can be read 16 bytes at a time; undefined where they lie otherwise. */
function alignedPitch(value: Value, k: number): number | undefined {
  const found = rowsOf(value.sizes, value.strides, k);
  return found && isAligned(value, found.pitch, value.spec.dtype) ? found.pitch : undefined;
}

function launch(context: Context, given: FewRows): void {
  const { x, rows, weights, results, addend, norm, taken, isGate = false } = given;
  const { dtype } = x.spec;
  const k = x.sizes.at(-1) ?? 0;
  const n = weights.map((weight) => weight?.sizes.at(-2) ?? 0);
  const [first = 0, second = 0] = n;
  const all = isGate ? first : first + second;
  const everywhere = warps * context.multiprocessors;
  const sizes = { dtype, rows, k, hasNorm: norm !== undefined };
  const unit = isGate || (all >= manyRows * everywhere && fits(sizes, 2)) ? 2 : 1;
  const units = isGate ? all : Math.ceil(all / unit);
  const blocks = Math.min(context.multiprocessors, units);
  let depth = Math.min(deepest, Math.ceil(units / (warps * blocks)));
  while (depth > 1 && sharedBytesFor(sizes, unit, depth) > mostSharedBytes) depth -= 1;
  const pitches = [x, ...weights].map((value) => value && alignedPitch(value, k));
  const [xPitch = k, ...weightPitches] = pitches;
  const members = packStruct([
    x,
    norm?.weight ?? null,
    taken?.row ?? null,
    ...[0, 1].map((index) => weights[index] ?? null),
    addend ?? null,
    ...[0, 1].map((index) => results[index] ?? null),
    ...(taken?.fault ?? [null, 0]),
    first,
    second,
    ...[0, 1].map((index) => (results[index]?.spec.dtype === "float32" ? 1 : 0)),
    ...[0, 1].map((index) => weightPitches[index] ?? 0),
    rows,
    k,
    taken ? k : xPitch,
    taken?.length ?? 1,
    depth,
    isGate ? 1 : 0,
    taken?.isFromZero ? 1 : 0,
    { float: norm?.epsilon ?? 0 },
  ]);
  const sharedBytes = sharedBytesFor(sizes, unit, depth);
  const kernel = `fewRows_${dtype}_${rows > 1 ? mostRows : 1}_${unit}`;
  const isDense = [xPitch, ...weightPitches].every((pitch) => pitch === undefined || pitch === k);
  const phase: ProductPhase = {
    kind: "product",
    ...{ x, rows, k, norm, weights, n, results, addend, taken, isGate },
    isWide: results.map((result) => result?.spec.dtype === "float32"),
  };
  context.kernel(kernel, blocks, 32 * warps, [members], sharedBytes, {
    overlaps: true,
    phase: dtype === "bfloat16" && isDense ? phase : undefined,
  });
}

/** A product of few rows, with a sum. Returns false where the kernel cannot take it. */
export function multiplyFewRows(context: Context, a: Value, b: Value, addend: Value | undefined): boolean {
  const k = a.sizes.at(-1) ?? 0;
  const rows = a.count / Math.max(k, 1);
  const result = context.node.outputs.value?.dtype;
  const isWeight = b.sizes.slice(0, -2).every((size) => size === 1);
  const isResult = result === a.spec.dtype || result === "float32";
  if (
    !isWeight ||
    !isResult ||
    (b.sizes.at(-2) ?? 0) === 0 ||
    !fits({ dtype: a.spec.dtype, rows, k, hasNorm: false }, 1)
  ) {
    return false;
  }
  if (alignedPitch(a, k) === undefined || alignedPitch(b, k) === undefined) return false;
  launch(context, { x: a, rows, weights: [b], results: [context.output()], addend });
  return true;
}

/** An input as rows that can be read 16 bytes at a time: where it lies, or a dense copy. */
function alignedRows(context: Context, name: string): Value {
  const value = context.strided(name);
  return alignedPitch(value, value.sizes.at(-1) ?? 0) === undefined ? context.input(name) : value;
}

const rowsIn = ({ shape }: TensorSpec) => sizesOf(shape.slice(0, -1)).reduce((a, b) => a * b, 1);

function normDeclines({ inputs: { x, norm, row, ...others } }: Node, unit: number): boolean {
  if (!x || norm?.dtype !== "float32") return true;
  const rows = row ? rowsIn(row) * (row.shape[0]?.value ?? 0) : rowsIn(x);
  const weights = Object.values(others);
  const isPlain = weights.every(({ dtype, shape }) => dtype === x.dtype && (sizesOf(shape)[0] ?? 0) > 0);
  return !isPlain || !fits({ dtype: x.dtype, rows, k: sizesOf(x.shape).at(-1) ?? 0, hasNorm: true }, unit);
}

export const normProduct: Lowering = {
  declines: (node) => {
    const dtypes = [node.inputs.x?.dtype, "float32"];
    return normDeclines(node, 1) || !dtypes.includes(node.outputs.value?.dtype);
  },
  lower(context) {
    type Attributes = { readonly epsilon: number; readonly isFromZero?: boolean };
    const { epsilon, isFromZero = false } = context.attributes<Attributes>();
    const row = context.optional("row");
    // Which rows are taken is found by counting, so they must lie one after another.
    const x = row ? context.input("x") : alignedRows(context, "x");
    const hasWide = context.node.inputs.wideWeight !== undefined;
    const length = x.sizes[1] ?? 1;
    const fault = () => context.fault((value) => `takeRow: expected ids from 0 to ${length - 1}, got ${value}`);
    launch(context, {
      x,
      rows: row?.count ?? x.count / (x.sizes.at(-1) ?? 1),
      weights: [alignedRows(context, "weight"), hasWide ? alignedRows(context, "wideWeight") : undefined],
      results: [context.output(), hasWide ? context.output("wide") : undefined],
      norm: { weight: context.input("norm"), epsilon },
      ...(row ? { taken: { row, length, isFromZero, fault: fault() } } : {}),
    });
  },
};

export const normGates: Lowering = {
  declines: (node) => normDeclines(node, 2),
  lower(context) {
    const { epsilon } = context.attributes<{ readonly epsilon: number }>();
    const x = alignedRows(context, "x");
    launch(context, {
      x,
      rows: x.count / (x.sizes.at(-1) ?? 1),
      weights: [alignedRows(context, "gate"), alignedRows(context, "up")],
      results: [context.output()],
      norm: { weight: context.input("norm"), epsilon },
      isGate: true,
    });
  },
};
