// Attention over a cache, or over lengths that are not known: any query may start anywhere, keys end anywhere.
//
// A single query looks at the whole cache, which is read once and copied nowhere. Several queries, as in prefill, look at
// the keys up to the last one that any of them may see. All else is the same for both, so that a row's result does not
// depend on how many rows are computed with it.

import { Dim, type Shape } from "@sisa/core";
import type { Emitter } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { smallestExponent } from "./attention-tiles.ts";
import { shiftOf } from "./log-sum-exp.ts";

/** Positions after which sums of log decay begin anew. */
const block = 64;

export interface CachedAttention {
  /** [B,T,H,D] */
  readonly q: Value;
  /** [B,C,H,D] */
  readonly k: Value;
  /** [B,C,H,E] */
  readonly v: Value;
  readonly sizes: { readonly B: Dim; readonly T: Dim; readonly C: Dim; readonly H: Dim };
  readonly widths: { readonly D: Dim; readonly E: Dim; readonly S: Dim };
  readonly scale: number;
  readonly causal: boolean;
  /** Broadcasts to [B,H,T,C], with as many axes; with one row in the batch to [H,T,C]. */
  readonly bias?: Value | undefined;
  /** int32 [B] */
  readonly queryStart?: Value | undefined;
  readonly keyLength?: Value | undefined;
  readonly importance?: CachedImportance | undefined;
}

export interface CachedImportance {
  /** [B,T,H,S] read vectors times lambda */
  readonly c: Value;
  /** [B,C,H,S] */
  readonly b: Value;
  /** [B,T,H] */
  readonly gQuery: Value;
  /** [B,C,H] */
  readonly gKey: Value;
}

export interface CachedResult {
  /** [B,T,H,E] */
  readonly value: Value;
  /** [B,H,T] */
  readonly logSumExp?: Value;
}

const one = Dim.of(1);

/**
 * How heads are brought in front of time. With one row in the batch, matrix products take them where they lie; with
 * several they are copied.
 */
interface Layout {
  /** Axes in front of time: [H] or [B,H]. */
  readonly leading: Shape;
  /** Time, as the products of this layout take it in their operands. */
  readonly timeAxis: number;
  /** [B,T,H,X] as an operand of products. */
  operand(x: Value, time: Dim, width: Dim): Value;
  /** a b^T * factor over the last axis, for every head. */
  scores(a: Value, b: Value, factor: number): Value;
  /** p [..., T, keys] times v, for every head. */
  mix(p: Value, v: Value): Value;
  /** [B,T,H] as [..., T]. */
  perHead(x: Value, time: Dim): Value;
  /** [..., T, E] as [B,T,H,E]. */
  result(x: Value, time: Dim, width: Dim): Value;
}

function layoutOf(emit: Emitter, { B, H }: CachedAttention["sizes"]): Layout {
  if (B.equals(1)) {
    const settings = { transBatchA: 1, transBatchB: 1, transB: 1 };
    return {
      leading: [H],
      timeAxis: 0,
      operand: (x, time, width) => emit.reshape(x, [time, H, width]),
      scores: (a, b, factor) => emit.microsoft("FusedMatMul", [a, b], { ...settings, alpha: { float: factor } }),
      mix: (p, v) => emit.microsoft("FusedMatMul", [p, v], { transBatchB: 1 }),
      perHead: (x, time) =>
        time.equals(1) ? emit.reshape(x, [H, one]) : emit.transpose(emit.reshape(x, [time, H]), [1, 0]),
      result: (x, time, width) =>
        emit.reshape(time.equals(1) ? x : emit.transpose(x, [1, 0, 2]), [one, time, H, width]),
    };
  }
  return {
    leading: [B, H],
    timeAxis: 2,
    operand: (x) => emit.transpose(x, [0, 2, 1, 3]),
    scores: (a, b, factor) => emit.matmul({ value: a, rank: 4 }, { value: b, rank: 4 }, { transposeB: true, factor }),
    mix: (p, v) => emit.node("MatMul", [p, v]),
    perHead: (x) => emit.transpose(x, [0, 2, 1]),
    result: (x) => emit.transpose(x, [0, 2, 1, 3]),
  };
}

/** The keys that take part. */
interface Keys {
  /** int64 [1] */
  readonly count: Value;
  /** int64 [1] where the keys are cut there; undefined where all of the cache takes part */
  readonly end: Value | undefined;
}

/**
 * @param needsLogSumExp false where nobody asks for it; it is left out then
 */
export function cachedAttention(emit: Emitter, args: CachedAttention, needsLogSumExp: boolean): CachedResult {
  const { sizes, widths, queryStart } = args;
  const { B, T, H } = sizes;
  const many = attend(args, keysOf(emit, args), visibilityOf(emit, args, keysOf(emit, args)));
  if (T.value !== undefined || queryStart === undefined) return many(emit, needsLogSumExp);

  // Masks are the same in all layers, so they are made outside of what is chosen.
  const alone = { ...args, sizes: { ...sizes, T: one } };
  const single = attend(alone, keysOf(emit, alone), visibilityOf(emit, alone, keysOf(emit, alone)));
  const spec = (...shape: readonly Dim[]) => ({ dtype: "float32" as const, shape });
  const specs = [spec(B, T, H, widths.E), ...(needsLogSumExp ? [spec(B, H, T)] : [])];
  const branch = (compute: typeof many) => (inner: Emitter) => {
    const { value, logSumExp } = compute(inner, needsLogSumExp);
    return logSumExp === undefined ? [value] : [value, logSumExp];
  };
  const isSingle = emit.node("Equal", [emit.sizes.size(T), emit.builder.int64(1)]);
  const condition = emit.node("Squeeze", [isSingle, emit.builder.int64(0)]);
  const [value = "", logSumExp] = emit.choose(condition, specs, branch(single), branch(many));
  return logSumExp === undefined ? { value } : { value, logSumExp };
}

/** Which keys take part, and which of them each query sees. */
function attend(args: CachedAttention, keys: Keys, visible: Visibility) {
  const { sizes, widths, scale, importance, bias } = args;
  const { B, T, C, H } = sizes;
  return (emit: Emitter, needsLogSumExp: boolean): CachedResult => {
    const { builder } = emit;
    const layout = layoutOf(emit, sizes);
    const keyOperand = (x: Value, width: Dim) => cut(emit, layout.operand(x, C, width), layout.timeAxis, C, keys);
    const product = layout.scores(layout.operand(args.q, T, widths.D), keyOperand(args.k, widths.D), scale);
    const decayed = importance && importanceOf(emit, args, importance, layout, keys, visible, keyOperand);
    const withImportance = decayed ? emit.node("Add", [product, decayed]) : product;
    const scores = bias
      ? emit.node("Add", [withImportance, cut(emit, bias, layout.leading.length + 1, C, keys)])
      : withImportance;

    const masked = visible.hidden ? emit.node("Add", [scores, visible.hidden]) : scores;
    const last = builder.int64(layout.leading.length + 1);
    // A query whose every key is hidden sees nothing; by position alone each sees at least the first key.
    const mayHideAll = args.keyLength !== undefined || bias !== undefined;
    const found = emit.node("ReduceMax", [masked, last], { keepdims: 1 });
    const largest = mayHideAll ? shiftOf(emit, found) : found;
    // Exponents are raised before and zeros set after the exponential: of numbers that underflow it is slow.
    const exponent = emit.node("Max", [emit.node("Sub", [masked, largest]), builder.float(smallestExponent)]);
    const grown = emit.node("Exp", [exponent]);
    const weights = visible.factor ? emit.node("Mul", [grown, visible.factor]) : grown;
    const total = emit.node("ReduceSum", [weights, last], { keepdims: 1 });
    const mixed = layout.mix(weights, keyOperand(args.v, widths.E));
    // The largest score counts one, so the sum is smaller only where there is none.
    const isNothing = mayHideAll ? emit.node("Less", [total, builder.float(1)]) : undefined;
    const unless = (x: Value, nothing: number) =>
      isNothing ? emit.node("Where", [isNothing, builder.float(nothing), x]) : x;
    const value = layout.result(unless(emit.node("Div", [mixed, total]), 0), T, widths.E);
    if (!needsLogSumExp) return { value };
    const logSumExp = unless(emit.node("Add", [largest, emit.node("Log", [total])]), Number.NEGATIVE_INFINITY);
    return { value, logSumExp: emit.reshape(logSumExp, [B, H, T]) };
  };
}

/** All keys for one query and for none that start somewhere; else up to the last that any query sees, in whole blocks. */
function keysOf(emit: Emitter, { sizes, queryStart, causal }: CachedAttention): Keys {
  const { T, C } = sizes;
  const all = { count: emit.sizes.size(C), end: undefined };
  if (queryStart === undefined || !causal || T.equals(1)) return all;
  const { builder } = emit;
  const start = emit.node("ReduceMax", [emit.cast(queryStart, "int64"), builder.int64(0)], { keepdims: 1 });
  const length = emit.node("Add", [start, emit.sizes.size(T)]);
  const blocks = emit.node("Div", [emit.node("Add", [length, builder.int64(block - 1)]), builder.int64(block)]);
  const count = emit.node("Mul", [blocks, builder.int64(block)]);
  return { count, end: count };
}

/** An array of the cache with as many keys as take part; where that is more than there are, with zeros after them. */
function cut(emit: Emitter, x: Value, axis: number, C: Dim, { end }: Keys): Value {
  if (end === undefined) return x;
  const { builder, sizes } = emit;
  const kept = emit.node("Slice", [x, builder.int64(0), end, builder.int64(axis)]);
  if (isWhole(C)) return kept;
  const missing = emit.node("Max", [emit.node("Sub", [end, sizes.size(C)]), builder.int64(0)]);
  const amounts = emit.node("Concat", [builder.int64(0), missing], { axis: 0 });
  return emit.node("Pad", [kept, amounts, undefined, builder.int64(axis)]);
}

function isWhole(C: Dim): boolean {
  return C.value !== undefined && C.value % block === 0;
}

/** 0, 1, 2, ... int32 */
function upTo(emit: Emitter, count: Value): Value {
  const { builder } = emit;
  const end = emit.cast(emit.node("Squeeze", [count, builder.int64(0)]), "int32");
  return emit.node("Range", [builder.int32(0), end, builder.int32(1)]);
}

/** Masks over keys, to be broadcast over heads. */
interface Visibility {
  /** Zero for keys that a query sees, minus infinity for others; undefined where it sees all. */
  readonly hidden?: Value;
  /** One for keys that a query sees, zero for others. */
  readonly factor?: Value;
  /** True for blocks of keys before the query's own: [T,blocks,1] or [B,1,T,blocks,1]. */
  readonly earlierBlocks?: Value;
}

function visibilityOf(emit: Emitter, args: CachedAttention, keys: Keys): Visibility {
  const { builder } = emit;
  const { causal, keyLength, importance, queryStart, sizes } = args;
  const { B, T } = sizes;
  // One row's start and length need no axis of their own.
  const perRow = (x: Value) => emit.reshape(x, B.equals(1) ? [] : [B, one, one, one]);
  const row = emit.reshape(upTo(emit, emit.sizes.size(T)), [T, one]);
  const position = queryStart ? emit.node("Add", [row, perRow(queryStart)]) : row;

  const key = upTo(emit, keys.count);
  // Keys that fill up a block come after all positions, so that this hides them too.
  const past = causal ? emit.node("LessOrEqual", [key, position]) : undefined;
  const present = keyLength && emit.node("Less", [key, perRow(keyLength)]);
  const seen = past && present ? emit.node("And", [past, present]) : (past ?? present);
  const infinite = builder.float(Number.NEGATIVE_INFINITY);
  const masks = seen && {
    hidden: emit.node("Where", [seen, builder.float(0), infinite]),
    factor: emit.cast(seen, "float32"),
  };
  if (importance === undefined) return { ...masks };

  const whole = emit.node("Div", [emit.node("Add", [keys.count, builder.int64(block - 1)]), builder.int64(block)]);
  const earlier = emit.node("Less", [upTo(emit, whole), emit.node("Div", [position, builder.int32(block)])]);
  return { ...masks, earlierBlocks: emit.node("Unsqueeze", [earlier, builder.int64(-1)]) };
}

/** lambda * exp(g_i - g_j) * (c_i . b_j) for every head, query and key. */
function importanceOf(
  emit: Emitter,
  { sizes: { T, C }, widths: { S } }: CachedAttention,
  { c, b, gQuery, gKey }: CachedImportance,
  layout: Layout,
  keys: Keys,
  visible: Visibility,
  keyOperand: (x: Value, width: Dim) => Value,
): Value {
  const { builder, sizes } = emit;
  const { leading } = layout;
  const rank = leading.length;
  const product = layout.scores(layout.operand(c, T, S), keyOperand(b, S), 1);
  const shape = (...ends: readonly Value[]) =>
    emit.node("Concat", [...leading.map((size) => sizes.size(size)), ...ends], { axis: 0 });

  // Log decay within blocks of keys [..., 1, blocks, 64], and of each block as a whole.
  const key = filled(emit, cut(emit, layout.perHead(gKey, C), rank, C, keys), rank, C, keys);
  const blocks = emit.node("Reshape", [key, shape(builder.int64(1), builder.int64(-1), builder.int64(block))]);
  const ends = [builder.int64(block - 1), builder.int64(block), builder.int64(rank + 2)];
  const totals = emit.node("Slice", [blocks, ...ends]);
  // What comes between the key's block and the query's: sums over whole blocks, from the query backwards.
  const counted = emit.node("Where", [visible.earlierBlocks, totals, builder.float(0)]);
  const between = emit.node("CumSum", [counted, builder.int64Scalar(rank + 1)], { reverse: 1 });
  const query = emit.reshape(layout.perHead(gQuery, T), [...leading, T, one, one]);
  const difference = emit.node("Sub", [emit.node("Add", [query, between]), blocks]);
  const decay = emit.node("Exp", [emit.node("Clip", [difference, builder.float(smallestExponent), builder.float(0)])]);

  const flat = emit.node("Reshape", [decay, shape(sizes.size(T), builder.int64(-1))]);
  const isFilled = keys.end === undefined && !isWhole(C);
  const fitting = isFilled ? emit.node("Slice", [flat, builder.int64(0), keys.count, builder.int64(rank + 1)]) : flat;
  return emit.node("Mul", [product, fitting]);
}

/** Log decays filled up to whole blocks. Those that were cut are whole. */
function filled(emit: Emitter, x: Value, axis: number, C: Dim, keys: Keys): Value {
  if (keys.end !== undefined || isWhole(C)) return x;
  const missing = C.ceilDiv(block).times(block).minus(C);
  const amounts = emit.node("Concat", [emit.builder.int64(0), emit.sizes.size(missing)], { axis: 0 });
  return emit.node("Pad", [x, amounts, undefined, emit.builder.int64(axis)]);
}
