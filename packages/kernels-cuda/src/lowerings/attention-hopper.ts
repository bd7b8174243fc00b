// Attention on Hopper, where each kernel has its own sizes of tiles and reads tensors through maps of the copy engine.

import type { Argument, TensorMapArgument } from "../device/arguments.ts";
import type { Context, Region, Value, View } from "../plan.ts";
import { rowsOf } from "../views.ts";
import { prepareSpans } from "./ssm-prepare.ts";

/** Compute capability of the only devices that have these instructions. */
export const hopperCapability = 90;

/** How many warpgroups of 64 queries a block has, keys of a tile, tiles on their way; by width and state width. */
const forwardTiles: { readonly [widths: string]: readonly [warpgroups: number, keys: number, stages: number] } = {
  "64_0": [3, 128, 3],
  "64_16": [3, 128, 3],
  "64_32": [3, 128, 3],
  "64_64": [2, 128, 3],
  "64_128": [2, 128, 2],
  "128_0": [2, 128, 2],
  "128_16": [2, 128, 2],
  "128_32": [2, 128, 2],
  "128_64": [2, 128, 2],
  "128_128": [2, 64, 2],
};

/** Gradients by q and c, by k, v and b, or all of them, those by q and c added up in memory in the order of arrival. */
type Pass = "Queries" | "Keys" | "Together";

/** Rows of a tile of the other side, tiles on their way; rows of the own side are always `backwardRows`. */
const backwardTiles: {
  readonly [P in Pass]: { readonly [widths: string]: readonly [others: number, stages: number] };
} = {
  Queries: {
    "64_0": [128, 3],
    "64_16": [64, 4],
    "64_32": [64, 4],
    "64_64": [64, 4],
    "64_128": [64, 3],
    "128_0": [64, 3],
    "128_16": [64, 3],
    "128_32": [64, 2],
    "128_64": [64, 2],
    "128_128": [64, 2],
  },
  Keys: {
    "64_0": [64, 4],
    "64_16": [64, 4],
    "64_32": [64, 4],
    "64_64": [32, 4],
    "64_128": [32, 4],
    "128_0": [32, 4],
    "128_16": [32, 4],
    "128_32": [32, 4],
    "128_64": [32, 4],
    "128_128": [16, 4],
  },
  Together: {
    "64_0": [64, 5],
    "64_16": [64, 4],
    "64_32": [64, 3],
  },
};
const backwardRows = 128;

/** What barriers take of shared memory; BARRIER_BYTES in kernels/attention-hopper-parts.cuh. */
const barrierBytes = 512;

/** Shared memory of a block: rows that stay, twice where there is room for those of the next piece of work, and all else. */
function sharedBytesFor(rowBytes: number, otherBytes: number): number {
  const others = otherBytes + barrierBytes;
  return (2 * rowBytes + others <= 227 * 1024 ? 2 : 1) * rowBytes + others;
}

/** How many heads are worked on at a time: those whose keys, values and states have up to so many bytes, but at least so many. */
interface Group {
  readonly bytes: number;
  readonly least: number;
}

/** Keys, values and states stay in the L2 cache. */
const ofOperands: Group = { bytes: 24e6, least: 1 };

/** So do queries and sums of the pass for all gradients, thrice as much. Of long sequences fewer heads were slower. */
const ofAll: Group = { bytes: 8e6, least: 4 };

export interface AttentionSizes {
  readonly batches: number;
  readonly length: number;
  readonly heads: number;
  readonly width: number;
  readonly stateWidth: number;
  readonly scale: number;
  /** An importance term is left out of tiles where no score can change by more. */
  readonly skip: number;
}

/** The structure AttentionSizes. */
function pack(sizes: AttentionSizes, { bytes, least }: Group = ofOperands): Uint8Array {
  const { batches, length, heads, width, stateWidth, scale, skip } = sizes;
  const packed = new Uint8Array(24);
  const view = new DataView(packed.buffer);
  const lines = batches * heads;
  const most = Math.max(Math.floor(bytes / (length * (2 * width + stateWidth) * 2)), least);
  // Equal groups: where the last has few heads, it has one piece of work for each block and ends with the longest.
  const group = Math.ceil(lines / Math.max(Math.ceil(lines / most), 1));
  const whole = [batches, length, heads, 0, 0, group];
  whole.forEach((value, index) => {
    view.setInt32(4 * index, value, true);
  });
  view.setFloat32(12, scale, true);
  view.setFloat32(16, skip, true);
  return packed;
}

/** Elements from one position of [B,T,H,W] to the next; undefined where there is no such number. */
function pitchOf({ strides }: Region, sizes: readonly number[]): number | undefined {
  return rowsOf(sizes, strides, (sizes[2] ?? 1) * (sizes[3] ?? 1))?.pitch;
}

/** An input where it lies, if the copy engine can read it there, in steps of 16 bytes. */
function mappable(context: Context, name: string): Value {
  const value = context.strided(name);
  const pitch = pitchOf(value, value.sizes);
  return pitch !== undefined && pitch % 8 === 0 && value.offset % 16 === 0 ? value : context.input(name);
}

/** Tensors as the copy engine reads them. */
function mapOf(value: Value, rows: number): TensorMapArgument {
  const [batches = 0, length = 0, heads = 0, width = 0] = value.sizes;
  const pitch = pitchOf(value, value.sizes) ?? heads * width;
  return { storage: value.storage, offset: value.offset, map: { sizes: [batches, length, heads, width], pitch, rows } };
}

/** What the prologue makes for spans of one size. */
interface Spans {
  readonly c: Value;
  readonly b: Value;
  readonly cHat: Value | undefined;
  readonly bHat: Value | undefined;
  /** decay, firsts, lasts. */
  readonly exponents: readonly View[];
  /** The largest of rows of cHat and of bHat. */
  readonly norms: readonly View[];
}

/** Memory for what is to be made for spans. */
function newSpans(context: Context, { batches, length, heads }: AttentionSizes, span: number): Spans {
  const spans = Math.ceil(length / span);
  const perSpan = (count = 1) => context.scratch(4 * batches * heads * spans * count);
  const [c, b] = [context.input("cRotated"), context.input("bRotated")];
  const exponents = [perSpan(span), perSpan(), perSpan()];
  return { c, b, cHat: undefined, bHat: undefined, exponents, norms: [perSpan(), perSpan()] };
}

/** @param hats those that are wanted in memory */
function spansOf(
  context: Context,
  sizes: AttentionSizes,
  span: number,
  hats: "none" | "b" | "both",
): Spans | undefined {
  const { batches, length, heads, stateWidth } = sizes;
  if (stateWidth === 0) return undefined;
  const spans = newSpans(context, sizes, span);
  const { c, b, exponents, norms } = spans;
  const like = (value: Value): Value => ({ ...value, ...context.scratch(value.bytes) });
  const bHat = hats === "none" ? undefined : like(b);
  const cHat = hats === "both" ? like(c) : undefined;
  const given = [c, b, context.input("gQuery"), context.input("lambda"), cHat ?? null, bHat ?? null];
  const args = [...given, ...exponents, ...norms, pack(sizes), stateWidth, span];
  context.kernel("decaySpans", [Math.ceil(length / span) * heads, batches, 1], 256, args);
  return { ...spans, cHat, bHat };
}

/** The same from states that are prepared here. */
function preparedSpans(context: Context, sizes: AttentionSizes, span: number): Spans {
  const { c, b, bHat, exponents, norms } = prepareSpans(context, { span, scale: sizes.scale });
  return { c, b, cHat: undefined, bHat: { ...b, ...bHat }, exponents, norms };
}

/** How far each span reaches, back to keys or ahead to queries. */
function reachOf(context: Context, sizes: AttentionSizes, { exponents, norms }: Spans, ahead: boolean): View {
  const [spans, lines] = [Math.ceil(sizes.length / backwardRows), sizes.batches * sizes.heads];
  const reach = context.scratch(4 * lines * spans);
  const args = [...exponents.slice(1), ...norms, reach, pack(sizes), spans, ahead ? 1 : 0];
  context.kernel("decayReach", [Math.ceil(spans / 8), lines, 1], 256, args);
  return reach;
}

/** A map that a kernel without states does not read. */
const unusedMap = new Uint8Array(128);

const stateMap = (value: Value | undefined, rows: number): Argument => (value ? mapOf(value, rows) : unusedMap);

/** Adds the steps of `attention` and `decayAttention`. */
export function forwardOnHopper(context: Context, sizes: AttentionSizes): void {
  const { batches, length, heads, width, stateWidth } = sizes;
  const widths = `${width}_${stateWidth}`;
  const [warpgroups, keys, stages] = forwardTiles[widths] ?? [0, 0, 0];
  const rows = 64 * warpgroups;
  const [q, k, v] = ["q", "k", "v"].map((name) => mappable(context, name)) as [Value, Value, Value];
  const [value, logSumExp] = [context.output("value"), context.output("logSumExp")];
  if (value.count === 0) return;
  const spans = context.node.inputs.phase ? preparedSpans(context, sizes, keys) : spansOf(context, sizes, keys, "b");
  const maps = [mapOf(q, rows), mapOf(k, keys), mapOf(v, keys)];
  const states = [stateMap(spans?.c, rows), stateMap(spans?.b, keys), stateMap(spans?.bHat, keys)];
  const decays = spans ? [context.input("lambda"), ...spans.exponents, ...spans.norms] : new Array<null>(6).fill(null);
  const blocks = Math.min(Math.ceil(length / rows) * batches * heads, context.multiprocessors);
  const rowBytes = 2 * rows * (width + stateWidth) + (spans ? 4 * (rows + (rows % keys)) : 0);
  const sharedBytes = sharedBytesFor(rowBytes, 2 * stages * keys * (2 * width + stateWidth));
  const args = [...maps, ...states, ...decays, context.counters(1), value, logSumExp, pack(sizes)];
  const name = `attentionForwardHopper_${widths}_${warpgroups}_${keys}_${stages}`;
  context.kernel(name, blocks, 128 * (warpgroups + 1), args, sharedBytes, { overlaps: true });
}

/** What the backward kernels give of SISA's states. */
export interface StateGradients {
  readonly c: { readonly wide: Value; readonly narrow: Value | undefined };
  readonly b: { readonly wide: Value; readonly narrow: Value | undefined };
  /** c . dc of each position and head, [B,T,H], and b . db. */
  readonly read: View;
  readonly write: View;
}

/**
 * Adds the steps of all backward operations up to the gradients of decay.
 * @returns where gradients by c are, if that is in sums: the operation goes on to gradients of states, which take them from there
 */
export function backwardOnHopper(
  context: Context,
  sizes: AttentionSizes,
  states: StateGradients | undefined,
): View | undefined {
  const { batches, length, heads, width, stateWidth } = sizes;
  const [q, k, v] = ["q", "k", "v"].map((name) => mappable(context, name)) as [Value, Value, Value];
  const [value, gradient, logSumExp] = ["value", "gradient", "logSumExp"].map((name) => context.input(name)) as [
    Value,
    Value,
    Value,
  ];
  const fits = (region: Region) => (pitchOf(region, q.sizes) ?? 1) % 8 === 0 && region.offset % 16 === 0;
  const [dq, dk, dv] = ["q", "k", "v"].map((name) => context.stridedOutput(name, [], fits)) as [Value, Value, Value];
  if (dq.count === 0) return undefined;
  const tables = ["cos", "sin"].map((name) => context.optional(name) ?? null);
  const together = !context.deterministic && backwardTiles.Together[`${width}_${stateWidth}`] !== undefined;
  const packed = pack(sizes, together ? ofAll : ofOperands);
  const lines = context.scratch(4 * batches * heads * Math.ceil(length / 64) * 128);
  const [cSquares, bSquares] = [context.optional("cSquares"), context.optional("bSquares")];
  const ofRows = [value, gradient, logSumExp, lines];
  let spans: Spans | undefined;
  if (together && cSquares && bSquares) {
    spans = newSpans(context, sizes, backwardRows);
    const count = Math.ceil(length / backwardRows);
    const ofSpans = [cSquares, bSquares, context.input("gQuery"), context.input("lambda")];
    const args = [...ofRows, ...ofSpans, ...spans.exponents, ...spans.norms, packed, width, count];
    // A warp for each span, and for rows as many blocks as are at work at once.
    const grid = Math.ceil((batches * heads * count) / 8) + context.multiprocessors * 6;
    context.kernel("attentionRowsAndSpans", grid, 256, args);
  } else {
    spans = spansOf(context, sizes, backwardRows, together ? "none" : "both");
    context.kernel("attentionRows", context.multiprocessors * 8, 256, [...ofRows, packed, width]);
  }
  const blocks = Math.min(Math.ceil(length / backwardRows) * batches * heads, context.multiprocessors);
  const lambda = spans ? context.input("lambda") : null;
  const run = (
    pass: Pass,
    own: readonly (Value | undefined)[],
    others: readonly (Value | undefined)[],
    out: Argument[],
  ) => {
    const [count, stages] = backwardTiles[pass][`${width}_${stateWidth}`] ?? [0, 0];
    const maps = [...own.map((x) => stateMap(x, backwardRows)), ...others.map((x) => stateMap(x, count))];
    const decays = spans
      ? [lambda, ...spans.exponents, reachOf(context, sizes, spans, pass !== "Queries")]
      : new Array<null>(5).fill(null);
    const stage = count * (2 * (2 * width + stateWidth) + (pass === "Queries" ? 0 : 8));
    const rowBytes = 2 * backwardRows * (2 * width + stateWidth);
    // Gradients of scores, twice, and what a tile of queries gets of them; hats of states, in rows as wide as keys.
    const handedOver = together ? 2 * 2 * backwardRows * count + 4 * count * (width + stateWidth) : 0;
    const hats = together && stateWidth > 0 ? 2 * backwardRows * width : 0;
    const sharedBytes = sharedBytesFor(rowBytes, stages * stage + handedOver + hats);
    const name = `attentionBackward${pass}Hopper_${width}_${stateWidth}_${count}_${stages}`;
    const args = [...maps, ...decays, context.counter(), lines, ...out];
    context.kernel(name, blocks, together ? 512 : 384, args, sharedBytes);
  };
  const pitch = (x: Value) => pitchOf(x, x.sizes) ?? heads * width;
  const queries = [q, gradient, spans?.c];
  const keys = [k, v, spans?.b];
  const { c, b, read, write } = states ?? { c: null, b: null, read: null, write: null };
  const ofKeys = (sums: View | null) => {
    return [dk, dv, b?.wide ?? null, write, sums, ...tables, packed, pitch(dk), pitch(dv)];
  };
  if (!together) {
    const ofQueries = [dq, null, c?.wide ?? null, read, null, ...tables, packed, pitch(dq), 0];
    run("Queries", queries, [...keys, spans?.bHat], ofQueries);
    run("Keys", keys, [...queries, spans?.cHat], ofKeys(null));
    return undefined;
  }
  const bytes = 4 * batches * heads * Math.ceil(length / 64) * 64 * (width + stateWidth);
  const sums = context.scratch(bytes);
  context.zero(sums, bytes);
  run("Together", keys, [...queries, spans?.cHat], ofKeys(sums));
  const goesOn = context.node.outputs.phase !== undefined;
  const given = [sums, spans?.c ?? null, ...tables, dq, c?.wide ?? null, read, packed, width, stateWidth, pitch(dq)];
  context.kernel("attentionQueryGradients", [context.multiprocessors * 8, spans && !goesOn ? 2 : 1, 1], 256, given);
  return goesOn ? sums : undefined;
}
