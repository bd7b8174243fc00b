// The mixer of one token between its projections, by one kernel: see decodeStepOp.

import { bytesOf, type Node, sizesOf } from "@sisa/core";
import { packStruct } from "../device/arguments.ts";
import type { AttentionPhase } from "../join-phases.ts";
import type { Context, Value } from "../plan.ts";
import { rowsOf } from "../views.ts";
import type { Lowering } from "./index.ts";
import { declinesPages, rowsOfCache } from "./pages.ts";

/** Widths for which kernels/decode-step.cu has kernels. */
const [widths, stateWidths] = [
  [64, 128],
  [0, 16, 32, 64, 128],
];
/** Keys that a block of threads takes at a time; BLOCK there. */
const keysAtOnce = 64;

const cacheNames = ["keys", "values", "importances", "decays", "phases"];

/** Whether a node is other than what the kernels for one token or several are for. */
export function declinesStep({ inputs }: Node): boolean {
  const { q, keys, values, c, start, ...others } = inputs;
  if (!q || !keys || !values || !start || declinesPages(inputs.pages, keys)) return true;
  const vectors = [inputs.k, inputs.v, keys, values, c, inputs.b, inputs.importances];
  const sums = ["cosine", "sine", "strength", "bias", "phase", "lambda", "decays", "phases"].map(
    (name) => others[name],
  );
  const isNarrow = vectors.every((tensor) => !tensor || tensor.dtype === q.dtype);
  const isWide = sums.every((tensor) => !tensor || tensor.dtype === "float32");
  const [batches = 0, , heads = 0, width = 0] = sizesOf(q.shape);
  const [, capacity = 0, , valueWidth] = sizesOf(values.shape);
  const stateWidth = c ? (sizesOf(c.shape)[3] ?? 0) : 0;
  const known = widths.includes(width) && valueWidth === width && stateWidths.includes(stateWidth);
  const isKnownType = q.dtype === "float32" || q.dtype === "bfloat16";
  return !known || !isKnownType || !isNarrow || !isWide || batches * heads * capacity === 0;
}

/** Inputs with a row for each token of which numbers are read one by one; others are read up to 16 bytes at a time. */
const numberNames = ["strength", "logDecay", "phase"];

/** [B,T,...] as rows, where they lie, or as a dense copy. */
export function tokenRows(context: Context, name: string): { readonly value: Value | null; readonly pitch: number } {
  if (context.node.inputs[name] === undefined) return { value: null, pitch: 0 };
  const value = context.strided(name);
  const width = value.sizes.slice(2).reduce((a, b) => a * b, 1);
  const found = rowsOf(value.sizes, value.strides, width);
  const bytes = (found?.pitch ?? 0) * bytesOf(value.spec.dtype);
  const isAligned = value.offset % 16 === 0 && bytes % 16 === 0;
  if (found && (isAligned || numberNames.includes(name))) return { value, pitch: found.pitch };
  return { value: context.input(name), pitch: width };
}

/** The caches as the step leaves them; null for those that there are not. */
export function writtenCaches(context: Context): readonly (Value | null)[] {
  return cacheNames.map((name) => {
    if (context.node.inputs[name] === undefined) return null;
    const cache = context.input(name);
    const written = context.output(name, [name]);
    context.copy(cache, written, written.bytes);
    return written;
  });
}

export const decodeStep: Lowering = {
  declines: (node) => declinesStep(node) || (node.inputs.q && sizesOf(node.inputs.q.shape)[1]) !== 1,
  lower(context) {
    const { scale } = context.attributes<{ readonly scale: number }>();
    const rows = ["q", "k", "v", "c", "b", "strength", "phase"].map((name) => tokenRows(context, name));
    const [q, k, v, c, b, strength, phases] = rows.map(({ value }) => value);
    const [cosine, sine, bias, lambda] = ["cosine", "sine", "bias", "lambda"].map(
      (name) => context.optional(name) ?? null,
    );
    const caches = writtenCaches(context);
    const value = context.output();
    const [batches = 0, , heads = 0, width = 0] = q?.sizes ?? [];
    const { pages, capacity } = rowsOfCache(context, context.input("keys"));
    const states = c?.sizes[3] ?? 0;
    // Two blocks for each multiprocessor, where there is enough to do.
    const share = (capacity * batches * heads) / (4 * context.multiprocessors);
    const span = keysAtOnce * Math.max(1, Math.ceil(share / keysAtOnce / 2));
    const splits = Math.ceil(capacity / span);
    const partial = context.scratch(4 * batches * heads * splits * (2 + width));
    const fault = context.fault(
      (from) => `cacheWrite: expected rows within 0 to ${capacity - 1}, got ${from} to ${from}`,
    );
    const structure = packStruct([
      ...[q, k, v, c, b, strength, bias, phases, cosine, sine, lambda].map((operand) => operand ?? null),
      context.input("start"),
      pages,
      ...caches,
      value,
      partial,
      context.counters(batches * heads),
      ...fault,
      ...[0, 1, 2, 3, 4, 5, 6].map((index) => rows[index]?.pitch ?? 0),
      batches,
      cosine?.sizes[0] ?? 0,
      heads,
      span,
      splits,
      { float: scale },
    ]);
    const kernel = `decodeStep_${value.spec.dtype}_${width}_${states}`;
    const phase: AttentionPhase = {
      kind: "attention",
      inputs: [q, k, v, c, b, phases, strength].map((operand) => operand ?? null),
      ...{ rotation: [cosine ?? null, sine ?? null], tables: [bias ?? null, lambda ?? null] },
      start: context.input("start"),
      positions: cosine?.sizes[0] ?? 0,
      stateWidth: states,
      ...{ caches, value, pages, fault, batches, heads, width, scale },
    };
    context.kernel(kernel, [splits, heads, batches], 256, [structure], 0, {
      overlaps: true,
      phase: value.spec.dtype === "bfloat16" ? phase : undefined,
    });
  },
};
