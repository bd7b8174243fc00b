// Attention over a cache, or over lengths that are not known: any query may start anywhere, keys end anywhere.
//
// A single query looks at the whole cache, which is read once and copied nowhere. Several queries, as in prefill, look at
// the keys up to the last one that any of them may see. All else is the same for both, so that a row's result does not
// depend on how many rows are computed with it.

import { Dim, type Shape } from "@sisa/core";
import type { Emitter } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { smallestExponent } from "./attention-tiles.ts";

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
  /** Broadcasts to [B,H,T,C]. */
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
  readonly logSumExp: Value;
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
      perHead: (x, time) => emit.transpose(emit.reshape(x, [time, H]), [1, 0]),
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

export function cachedAttention(emit: Emitter, args: CachedAttention): CachedResult {
  const { sizes, widths } = args;
  const { B, T, H } = sizes;
  const specs = [
    { dtype: "float32" as const, shape: [B, T, H, widths.E] },
    { dtype: "float32" as const, shape: [B, H, T] },
  ];
  const compute = (time: Dim) => (inner: Emitter) => {
    const { value, logSumExp } = attend(inner, { ...args, sizes: { ...sizes, T: time } });
    return [value, logSumExp];
  };
  if (T.value !== undefined || args.queryStart === undefined) return attend(emit, args);
  const single = emit.node("Equal", [emit.sizes.size(T), emit.builder.int64(1)]);
  const condition = emit.node("Squeeze", [single, emit.builder.int64(0)]);
  const [value = "", logSumExp = ""] = emit.choose(condition, specs, compute(one), compute(T));
  return { value, logSumExp };
}

function attend(emit: Emitter, args: CachedAttention): CachedResult {
  const { builder } = emit;
  const { sizes, widths, scale, importance, bias } = args;
  const { B, T, C, H } = sizes;
  const layout = layoutOf(emit, sizes);
  const keys = keysOf(emit, args);
  const keyOperand = (x: Value, width: Dim) => cut(emit, layout.operand(x, C, width), layout.timeAxis, C, keys);

  const product = layout.scores(layout.operand(args.q, T, widths.D), keyOperand(args.k, widths.D), scale);
  const decayed = importance && importanceOf(emit, args, importance, layout, keys, keyOperand);
  const withImportance = decayed ? emit.node("Add", [product, decayed]) : product;
  const scores = bias ? emit.node("Add", [withImportance, cut(emit, bias, 3, C, keys)]) : withImportance;

  const allowed = allowedOf(emit, args, keys, layout);
  const infinite = builder.float(Number.NEGATIVE_INFINITY);
  const hidden = allowed && emit.node("Where", [allowed, builder.float(0), infinite]);
  const masked = hidden ? emit.node("Add", [scores, hidden]) : scores;
  const last = builder.int64(layout.leading.length + 1);
  const largest = emit.node("ReduceMax", [masked, last], { keepdims: 1 });
  // Exponents are raised before and zeros set after the exponential: of numbers that underflow it is slow.
  const exponent = emit.node("Max", [emit.node("Sub", [masked, largest]), builder.float(smallestExponent)]);
  const grown = emit.node("Exp", [exponent]);
  const weights = allowed ? emit.node("Mul", [grown, emit.cast(allowed, "float32")]) : grown;
  const total = emit.node("ReduceSum", [weights, last], { keepdims: 1 });
  const mixed = layout.mix(weights, keyOperand(args.v, widths.E));
  const logSumExp = emit.node("Add", [largest, emit.node("Log", [total])]);
  return {
    value: layout.result(emit.node("Div", [mixed, total]), T, widths.E),
    logSumExp: emit.reshape(logSumExp, [B, H, T]),
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
  if (C.value !== undefined && C.value % block === 0) return kept;
  const missing = emit.node("Max", [emit.node("Sub", [end, sizes.size(C)]), builder.int64(0)]);
  const amounts = emit.node("Concat", [builder.int64(0), missing], { axis: 0 });
  return emit.node("Pad", [kept, amounts, undefined, builder.int64(axis)]);
}

const scalar = (emit: Emitter, size: Value) => emit.node("Squeeze", [size, emit.builder.int64(0)]);

/** 0, 1, 2, ... int32 */
function upTo(emit: Emitter, count: Value): Value {
  const { builder } = emit;
  return emit.node("Range", [builder.int32(0), emit.cast(scalar(emit, count), "int32"), builder.int32(1)]);
}

/** int32 position of each query: [T,1], or [B,1,T,1] where rows of a batch start at different places. */
function positionsOf(emit: Emitter, { sizes, queryStart }: CachedAttention): Value {
  const { B, T } = sizes;
  const row = emit.reshape(upTo(emit, emit.sizes.size(T)), [T, one]);
  if (queryStart === undefined) return row;
  return emit.node("Add", [row, perRow(emit, queryStart, B)]);
}

/** int32 [B] beside [B,H,T,C]; of one row, without axes. */
function perRow(emit: Emitter, x: Value, B: Dim): Value {
  return emit.reshape(x, B.equals(1) ? [] : [B, one, one, one]);
}

/** Which keys each query sees, to be broadcast over heads; undefined where it sees all. */
function allowedOf(emit: Emitter, args: CachedAttention, keys: Keys, { leading }: Layout): Value | undefined {
  const { causal, keyLength, sizes } = args;
  const key = upTo(emit, keys.count);
  const past = causal ? emit.node("LessOrEqual", [key, positionsOf(emit, args)]) : undefined;
  const length = keyLength && perRow(emit, keyLength, sizes.B);
  const present = length && emit.node("Less", [key, length]);
  // Keys that were added to fill a block come after all positions, so the causal mask hides them.
  if (past && present) return emit.node("And", [past, present]);
  return past ?? (present && leading.length > 0 ? present : undefined);
}

/** lambda * exp(g_i - g_j) * (c_i . b_j) for every head, query and key. */
function importanceOf(
  emit: Emitter,
  args: CachedAttention,
  { c, b, gQuery, gKey }: CachedImportance,
  layout: Layout,
  keys: Keys,
  keyOperand: (x: Value, width: Dim) => Value,
): Value {
  const { builder } = emit;
  const { T, C } = args.sizes;
  const { S } = args.widths;
  const { leading } = layout;
  const product = layout.scores(layout.operand(c, T, S), keyOperand(b, S), 1);

  // Log decay within blocks of keys, and of each block as a whole.
  const timeOfKeys = leading.length;
  const key = filled(emit, cut(emit, layout.perHead(gKey, C), timeOfKeys, C, keys), timeOfKeys, C, keys);
  const ones = [...leading.map((size) => emit.sizes.size(size))];
  const shape = (...sizes: readonly Value[]) => emit.node("Concat", [...ones, ...sizes], { axis: 0 });
  const inBlocks = emit.node("Reshape", [key, shape(builder.int64(-1), builder.int64(block))]);
  const ends = [builder.int64(block - 1), builder.int64(block), builder.int64(timeOfKeys + 1)];
  const totals = emit.node("Reshape", [
    emit.node("Slice", [inBlocks, ...ends]),
    shape(builder.int64(1), builder.int64(-1)),
  ]);

  // What comes between the key's block and the query's: sums over whole blocks, from the query backwards.
  const last = builder.int64Scalar(leading.length + 1);
  const count = emit.node("Div", [emit.node("Add", [keys.count, builder.int64(block - 1)]), builder.int64(block)]);
  const ownBlock = emit.node("Div", [positionsOf(emit, args), builder.int32(block)]);
  const earlier = emit.node("Less", [upTo(emit, count), ownBlock]);
  const between = emit.node("CumSum", [emit.node("Where", [earlier, totals, builder.float(0)]), last], { reverse: 1 });
  const query = emit.reshape(layout.perHead(gQuery, T), [...leading, T, one]);
  const untilBlock = emit.node("Add", [query, between]);

  const axes = (axis: number) => builder.int64(axis);
  const difference = emit.node("Sub", [
    emit.node("Unsqueeze", [untilBlock, axes(leading.length + 2)]),
    emit.node("Unsqueeze", [inBlocks, axes(leading.length)]),
  ]);
  const decay = emit.node("Exp", [emit.node("Clip", [difference, builder.float(smallestExponent), builder.float(0)])]);
  const flat = emit.node("Reshape", [decay, shape(emit.sizes.size(T), builder.int64(-1))]);
  const wide = keys.end === undefined && !isWhole(C);
  const fitting = wide
    ? emit.node("Slice", [flat, builder.int64(0), keys.count, builder.int64(leading.length + 1)])
    : flat;
  return emit.node("Mul", [product, fitting]);
}

function isWhole(C: Dim): boolean {
  return C.value !== undefined && C.value % block === 0;
}

/** Log decays filled up to whole blocks. Those that were cut are whole. */
function filled(emit: Emitter, x: Value, axis: number, C: Dim, keys: Keys): Value {
  if (keys.end !== undefined || isWhole(C)) return x;
  const missing = C.ceilDiv(block).times(block).minus(C);
  const amounts = emit.node("Concat", [emit.builder.int64(0), emit.sizes.size(missing)], { axis: 0 });
  return emit.node("Pad", [x, amounts, undefined, emit.builder.int64(axis)]);
}
