// What decoding takes where several tokens are read: attention of some queries to a cache, and SISA's states from any position,
// each by itself or both with all that stands around them.

import { type Node, sizesOf } from "@sisa/core";
import { packStruct, type StructArgument } from "../device/arguments.ts";
import type { Context, Value, View } from "../plan.ts";
import { declinesStep, tokenRows, writtenCaches } from "./decode-step.ts";
import type { Lowering } from "./index.ts";
import { declinesPages, rowsOfCache } from "./pages.ts";

const types: readonly string[] = ["float32", "bfloat16"];

/** Widths up to this; 32 lanes of perLane in kernels/decode.cu. */
const widest = 256;
/** Keys that a block of threads takes: multiples of the first, up to the second; BLOCK and mostBlocks there. */
const [leastSpan, mostSpan] = [64, 512];

/** Queries and keys of a tile, and the widths for which there are kernels by tiles; TILE and TILES there. */
const tileSize = 64;
const [tileWidths, tileStateWidths] = [
  [64, 128],
  [0, 16, 32, 64, 128],
];

function cacheDeclines({ inputs, attributes }: Node): boolean {
  const { q, k, v, bias, queryStart, keyLength, cRotated, bRotated, gQuery, gKey, lambda } = inputs;
  const { causal = true } = attributes as { readonly causal?: boolean };
  if (!q || !k || !v || bias || keyLength || !queryStart || !causal || declinesPages(inputs.pages, k)) return true;
  const vectors = [q, k, v, ...(cRotated && bRotated ? [cRotated, bRotated] : [])];
  const scalars = [gQuery, gKey, lambda].flatMap((tensor) => tensor ?? []);
  const narrow = vectors.every(({ dtype, shape }) => dtype === q.dtype && (sizesOf(shape)[3] ?? 0) <= widest);
  const empty = vectors.some(({ shape }) => sizesOf(shape).includes(0));
  return !types.includes(q.dtype) || !narrow || empty || scalars.some(({ dtype }) => dtype !== "float32");
}

type Sizes = readonly [batches: number, length: number, heads: number];

/** What attention reads, and how wide it is. */
interface Attended {
  readonly q: View;
  readonly k: View;
  readonly v: View;
  /** c, b, g of queries and of keys, and lambda. */
  readonly states: readonly (View | null)[];
  readonly start: View;
  readonly pages: StructArgument;
  readonly capacity: number;
  readonly type: string;
  readonly sizes: Sizes;
  readonly width: number;
  readonly valueWidth: number;
  readonly stateWidth: number;
  readonly scale: number;
}

/** Attention from positions on, over all keys up to each query: the cache in parts, which are joined afterwards. */
function attend(context: Context, attended: Attended, value: View, logSumExp: View | null): void {
  const { q, k, v, states, start, pages, capacity, type, sizes, width, valueWidth, stateWidth, scale } = attended;
  const [batches, length, heads] = sizes;
  const known = tileWidths.includes(width) && valueWidth === width && tileStateWidths.includes(stateWidth);
  const byTiles = type === "bfloat16" && length > 1 && known && scale > 0;
  const queries = batches * length * heads;
  const tiles = batches * Math.ceil(length / tileSize);
  const share = (capacity * queries) / (4 * context.multiprocessors);
  const span = Math.min(mostSpan, Math.max(leastSpan, Math.ceil(share / leastSpan) * leastSpan));
  // Two blocks for each multiprocessor, where there are so many tiles of keys.
  const parts = Math.ceil((2 * context.multiprocessors) / (tiles * heads));
  const splits = byTiles ? Math.min(parts, Math.ceil(capacity / tileSize)) : Math.ceil(capacity / span);
  const numbers = [...sizes, width, valueWidth, stateWidth, span, splits];
  const structure = packStruct([pages, ...numbers, { float: scale }]);
  const partial = context.scratch(4 * queries * splits * (2 + valueWidth));
  const args = [q, k, v, ...states, start, partial, structure];
  const options = { overlaps: true };
  if (byTiles) {
    const tileBytes = (count: number, elements: number) => count * 2 * tileSize * (elements + 8);
    const sharedBytes = tileBytes(3, width) + (stateWidth > 0 ? tileBytes(2, stateWidth) : 0);
    context.kernel(`attentionTiles_${width}_${stateWidth}`, [splits, heads, tiles], 128, args, sharedBytes, options);
  } else {
    context.kernel(`cachedAttention_${type}`, [splits, heads, batches * length], 128, args, 0, options);
  }
  const joined = [partial, value, logSumExp, structure];
  context.kernel(`joinSpans_${type}`, [heads, batches * length, 1], 64, joined, 0, options);
}

export const cachedAttention: Lowering = {
  declines: cacheDeclines,
  lower(context) {
    const [q, k, v] = ["q", "k", "v"].map((name) => context.input(name)) as [Value, Value, Value];
    const states = ["cRotated", "bRotated", "gQuery", "gKey", "lambda"].map((name) => context.optional(name) ?? null);
    const start = context.input("queryStart");
    const [value, logSumExp] = [context.output("value"), context.output("logSumExp")];
    const [batches = 0, length = 0, heads = 0, width = 0] = q.sizes;
    const widths = { width, valueWidth: v.sizes[3] ?? 0, stateWidth: states[0]?.sizes[3] ?? 0 };
    const { scale } = context.attributes<{ readonly scale: number }>();
    const attended = { q, k, v, states, start, ...rowsOfCache(context, k), type: q.spec.dtype };
    attend(context, { ...attended, sizes: [batches, length, heads], ...widths, scale }, value, logSumExp);
  },
};

/** Threads of a block that prepares; 32 WARPS in kernels/decode.cu. */
const preparing = 512;

/** What the structure Tokens of kernels/decode.cu holds; what is left out there is not. */
interface Tokens {
  readonly type: string;
  readonly sizes: Sizes;
  readonly width: number;
  /** Pairs of states of all heads. */
  readonly lines: number;
  /** q, k, v, c, b, decay and phase of each token. */
  readonly rows: readonly ReturnType<typeof tokenRows>[];
  readonly start: View;
  readonly pages: StructArgument;
  /** Keys, values, importances, decays and phases. */
  readonly written: readonly (View | null)[];
  readonly reads: View | null;
  readonly bias?: View | null;
  readonly tables?: readonly (Value | null)[];
  readonly before?: readonly View[];
  readonly queries?: View;
  readonly g?: View | null;
  readonly fault?: readonly [View | null, number];
}

function prepareTokens(context: Context, tokens: Tokens): void {
  const { type, sizes, width, lines, rows, start, pages, written, reads } = tokens;
  const { bias = null, tables = [null, null], before = [null, null], queries = null, g = null } = tokens;
  const { fault = [null, 0] } = tokens;
  const [batches, length, heads] = sizes;
  const [decay = null, phase = null] = rows.slice(5).map(({ value }) => value);
  const vectors = rows.slice(0, 5).map(({ value }) => value);
  const given = [...vectors, decay, bias, phase, ...tables, ...before, start, pages];
  const pitches = rows.map(({ pitch }) => pitch);
  const positions = tables[0]?.sizes[0] ?? 0;
  const numbers = [...pitches, batches, length, positions, heads, width, lines];
  const structure = packStruct([...given, ...written, queries, reads, g, ...fault, ...numbers]);
  const stateBlocks = lines > 0 ? Math.ceil(lines / 32) + Math.ceil(heads / 32) : 0;
  const eights = (3 * length * heads * width) / 8;
  const blocks = stateBlocks + (queries ? Math.ceil(eights / preparing) : 0);
  context.kernel(`prepareTokens_${type}`, [blocks, batches, 1], preparing, [structure]);
}

export const continueStates: Lowering = {
  declines({ inputs: { c, b, logDecay, phase, start, gBefore, phaseBefore } }) {
    const sums = [logDecay, phase, gBefore, phaseBefore];
    const plain = c && c.dtype === b?.dtype && types.includes(c.dtype) && start;
    return !plain || sums.some((tensor) => tensor?.dtype !== "float32");
  },
  lower(context) {
    const rows = ["q", "k", "v", "c", "b", "logDecay", "phase"].map((name) => tokenRows(context, name));
    const before = ["gBefore", "phaseBefore"].map((name) => context.input(name));
    const [reads, importances, decays, phases] = ["cRotated", "bRotated", "g", "phi"].map((name) =>
      context.output(name),
    ) as [Value, Value, Value, Value];
    const [batches = 0, length = 0, heads = 0, half = 0] = phases.sizes;
    if (reads.count === 0) return;
    const written = [null, null, importances, decays, phases];
    const pages = packStruct([null, 0, 0, 0, 0, null]);
    const sizes: Sizes = [batches, length, heads];
    const [type, lines, start] = [reads.spec.dtype, heads * half, context.input("start")];
    prepareTokens(context, { type, sizes, width: 0, lines, rows, start, pages, written, reads, before });
  },
};

/** The mixer of several tokens between its projections, see decodeStepOp: what they bring, then attention. */
export const decodeChunk: Lowering = {
  declines: (node) => declinesStep(node) || (node.inputs.q && sizesOf(node.inputs.q.shape)[1]) === 0,
  lower(context) {
    const rows = ["q", "k", "v", "c", "b", "strength", "phase"].map((name) => tokenRows(context, name));
    const [bias, lambda, ...tables] = ["bias", "lambda", "cosine", "sine"].map(
      (name) => context.optional(name) ?? null,
    );
    const { pages, capacity } = rowsOfCache(context, context.input("keys"));
    const written = writtenCaches(context);
    const [keys, values, importances = null, decays = null, phases] = written;
    const value = context.output();
    const [batches = 0, length = 0, heads = 0, width = 0] = value.sizes;
    if (!keys || !values) return;
    const start = context.input("start");
    const sizes: Sizes = [batches, length, heads];
    const stateWidth = importances?.sizes[3] ?? 0;
    const type = value.spec.dtype;
    const queries = context.scratch(value.bytes);
    const reads = importances && context.scratch((value.bytes / width) * stateWidth);
    const g = importances && context.scratch(4 * batches * length * heads);
    const fault = context.fault(
      (from) => `cacheWrite: expected rows within 0 to ${capacity - 1}, got ${from} to ${from + length - 1}`,
    );
    const lines = phases ? heads * (phases.sizes[3] ?? 0) : 0;
    prepareTokens(context, {
      ...{ type, sizes, width, lines, rows, start, pages, written, reads },
      ...{ bias: bias ?? null, tables, queries, g, fault },
    });
    const states = [reads, importances, g, decays, lambda ?? null];
    const { scale } = context.attributes<{ readonly scale: number }>();
    const attended = { q: queries, k: keys, v: values, states, start, pages, capacity };
    attend(context, { ...attended, type, sizes, width, valueWidth: width, stateWidth, scale }, value, null);
  },
};
