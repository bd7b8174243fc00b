// What decoding takes where several tokens are read: attention of some queries to a cache, and SISA's states from any position.

import { type Node, sizesOf } from "@sisa/core";
import { packStruct } from "../device/arguments.ts";
import type { Value } from "../plan.ts";
import { blocksFor } from "./elementwise.ts";
import type { Lowering } from "./index.ts";
import { declinesPages, rowsOfCache } from "./pages.ts";

const types: readonly string[] = ["float32", "bfloat16"];

/** Widths up to this; 32 lanes of perLane in kernels/decode.cu. */
const widest = 256;
/** Keys that a block of threads takes: multiples of the first, up to the second; BLOCK and mostBlocks there. */
const [leastSpan, mostSpan] = [64, 512];

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

/** Attention from positions on, over all keys up to each query: the cache in spans, which are joined afterwards. */
export const cachedAttention: Lowering = {
  declines: cacheDeclines,
  lower(context) {
    const [q, k, v] = ["q", "k", "v"].map((name) => context.input(name)) as [Value, Value, Value];
    const others = ["cRotated", "bRotated", "gQuery", "gKey", "lambda"].map((name) => context.optional(name) ?? null);
    const start = context.input("queryStart");
    const [value, logSumExp] = [context.output("value"), context.output("logSumExp")];
    const [batches = 0, length = 0, heads = 0, width = 0] = q.sizes;
    const valueWidth = v.sizes[3] ?? 0;
    const stateWidth = others[0]?.sizes[3] ?? 0;
    const { pages, capacity } = rowsOfCache(context, k);
    const queries = batches * length * heads;
    const share = (capacity * queries) / (4 * context.multiprocessors);
    const span = Math.min(mostSpan, Math.max(leastSpan, Math.ceil(share / leastSpan) * leastSpan));
    const splits = Math.ceil(capacity / span);
    const { scale } = context.attributes<{ readonly scale: number }>();
    const sizes = packStruct([
      pages,
      ...[batches, length, heads, width, valueWidth, stateWidth, span, splits],
      { float: scale },
    ]);
    const partial = context.scratch(4 * queries * splits * (2 + valueWidth));
    const type = q.spec.dtype;
    const grid = [splits, heads, batches * length] as const;
    context.kernel(`cachedAttention_${type}`, grid, 128, [q, k, v, ...others, start, partial, sizes]);
    context.kernel(`joinSpans_${type}`, [heads, batches * length, 1], 64, [partial, value, logSumExp, sizes]);
  },
};

export const continueStates: Lowering = {
  declines({ inputs: { c, b, logDecay, phase, start, gBefore, phaseBefore } }) {
    const sums = [logDecay, phase, gBefore, phaseBefore];
    const plain = c && c.dtype === b?.dtype && types.includes(c.dtype) && start;
    return !plain || sums.some((tensor) => tensor?.dtype !== "float32");
  },
  lower(context) {
    const names = ["c", "b", "logDecay", "phase", "gBefore", "phaseBefore", "start"];
    const inputs = names.map((name) => context.input(name));
    const outputs = ["cRotated", "bRotated", "g", "phi"].map((name) => context.output(name));
    const [c, , , phase] = inputs;
    const [batches = 0, length = 0, heads = 0, half = 0] = phase?.sizes ?? [];
    if (!c || c.count === 0) return;
    const lines = heads * half;
    const blocks = blocksFor(context, batches * (lines + heads), 64);
    const args = [...inputs, ...outputs, batches, length, heads, lines];
    context.kernel(`continueStates_${c.spec.dtype}`, blocks, 64, args);
  },
};
