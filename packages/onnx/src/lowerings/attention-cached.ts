// Attention over a cache, or over lengths that are not known: any query may start anywhere, keys end anywhere.
//
// A single query looks at the whole cache, which is read once and copied nowhere. Several queries, as in prefill, look at
// the keys up to the last one that any of them may see. All else is the same for both, so that a row's result does not
// depend on how many rows are computed with it.
//
// Where each row of the batch has a cache of its own, only what reads a cache is done row by row, each up to its own last
// key: three products. All else is done once for all rows.

import { Dim, type Shape, sizeOf } from "@sisa/core";
import type { Emitter, MatmulOperand } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { smallestExponent } from "./attention-tiles.ts";
import { shiftOf } from "./log-sum-exp.ts";
import { joinedRows } from "./shapes.ts";

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

/** How heads are brought in front of time, in shapes [..., T, keys] for scores. */
interface Layout {
  /** Axes in front of time: [H], [B,H] or [B*H]. */
  readonly leading: Shape;
  /** q [B,T,H,X] times k [B,C,H,X] transposed, times a factor. */
  scores(q: Value, k: Value, width: Dim, factor: number): Value;
  /** p [..., T, keys] times v [B,C,H,E]: [..., T, E]. */
  mix(p: Value, v: Value, width: Dim): Value;
  /** [B,T,H] as [..., T]. */
  perQuery(x: Value): Value;
  /** [B,C,H] as [..., keys]. */
  perKey(x: Value): Value;
  /** [B] as what scores are compared with. */
  perRow(x: Value): Value;
  /** [..., T, E] as [B,T,H,E]. */
  result(x: Value, width: Dim): Value;
}

function layoutOf(emit: Emitter, args: CachedAttention, keys: Keys): Layout {
  if (args.sizes.B.equals(1)) return ofOneRow(emit, args, keys);
  return keys.ofRows ? ofRowsApart(emit, args, keys.ofRows) : ofRowsTogether(emit, args, keys);
}

/** Products take heads where they lie. */
function ofOneRow(emit: Emitter, { sizes: { T, C, H } }: CachedAttention, keys: Keys): Layout {
  const kept = (x: Value, width: Dim) => cut(emit, emit.reshape(x, [C, H, width]), 0, C, keys);
  return {
    leading: [H],
    scores: (q, k, width, factor) => {
      const settings = { transBatchA: 1, transBatchB: 1, transB: 1, alpha: { float: factor } };
      return emit.microsoft("FusedMatMul", [emit.reshape(q, [T, H, width]), kept(k, width)], settings);
    },
    mix: (p, v, width) => emit.microsoft("FusedMatMul", [p, kept(v, width)], { transBatchB: 1 }),
    perQuery: (x) => headsFirst(x, T),
    perKey: (x) => cut(emit, headsFirst(x, C), 1, C, keys),
    perRow: (x) => emit.reshape(x, []),
    result: (x, width) => emit.reshape(T.equals(1) ? x : emit.transpose(x, [1, 0, 2]), [one, T, H, width]),
  };

  function headsFirst(x: Value, time: Dim): Value {
    return time.equals(1) ? emit.reshape(x, [H, one]) : emit.transpose(emit.reshape(x, [time, H]), [1, 0]);
  }
}

/** Heads are copied in front of time. */
function ofRowsTogether(emit: Emitter, { sizes: { B, C, H } }: CachedAttention, keys: Keys): Layout {
  const headsFirst = (x: Value) => emit.transpose(x, [0, 2, 1, 3]);
  const kept = (x: Value) => headsFirst(cut(emit, x, 1, C, keys));
  return {
    leading: [B, H],
    scores: (q, k, _width, factor) => {
      const operands = [headsFirst(q), kept(k)].map((value) => ({ value, rank: 4 })) as [MatmulOperand, MatmulOperand];
      return emit.matmul(...operands, { transposeB: true, factor });
    },
    mix: (p, v) => emit.node("MatMul", [p, kept(v)]),
    perQuery: (x) => emit.transpose(x, [0, 2, 1]),
    perKey: (x) => emit.transpose(cut(emit, x, 1, C, keys), [0, 2, 1]),
    perRow: (x) => emit.reshape(x, [B, one, one, one]),
    result: (x) => headsFirst(x),
  };
}

/** Heads of all rows are one axis. Products take those of a row's cache where they lie, as with one row. */
function ofRowsApart(emit: Emitter, args: CachedAttention, ofRows: readonly KeysOfRow[]): Layout {
  const { B, T, C, H } = args.sizes;
  const { builder } = emit;
  const all = B.times(H);
  const rows = (x: Value) => emit.nodes(ofRows.length, "Split", [x], { axis: 0, num_outputs: ofRows.length });
  const upToEnd = (x: Value, axis: number, { end }: KeysOfRow) =>
    emit.node("Slice", [x, builder.int64(0), end, builder.int64(axis)]);
  const padded = (x: Value, axis: number, { padding }: KeysOfRow) =>
    emit.node("Pad", [x, padding, undefined, builder.int64(axis)]);
  const eachRow = (x: Value, of: (part: Value, keys: KeysOfRow, row: number) => Value) => {
    const parts = emit.kept(joinedRows, x) ?? [];
    return emit.node(
      "Concat",
      ofRows.map((keys, row) => of(parts[row] ?? "", keys, row)),
      { axis: 0 },
    );
  };
  const kept = (part: Value, width: Dim, keys: KeysOfRow) => upToEnd(emit.reshape(part, [C, H, width]), 0, keys);
  return {
    leading: [all],
    scores: (q, k, width, factor) => {
      const settings = { transBatchB: 1, transB: 1, alpha: { float: factor } };
      const queries = rows(emit.reshape(emit.transpose(q, [0, 2, 1, 3]), [all, T, width]));
      return eachRow(k, (part, keys, row) =>
        padded(emit.microsoft("FusedMatMul", [queries[row], kept(part, width, keys)], settings), 2, keys),
      );
    },
    mix: (p, v, width) => {
      const weights = rows(p);
      return eachRow(v, (part, keys, row) =>
        emit.microsoft("FusedMatMul", [upToEnd(weights[row] ?? "", 2, keys), kept(part, width, keys)], {
          transBatchB: 1,
        }),
      );
    },
    perQuery: (x) => emit.reshape(emit.transpose(x, [0, 2, 1]), [all, T]),
    perKey: (x) => {
      const together = eachRow(x, (part, keys) => padded(upToEnd(part, 1, keys), 1, keys));
      return emit.node("Reshape", [emit.transpose(together, [0, 2, 1]), builder.int64(sizeOf(all), -1)]);
    },
    perRow: (x) => {
      const spread = emit.node("Expand", [emit.reshape(x, [B, one]), emit.sizes.shape([B, H])]);
      return emit.reshape(spread, [all, one, one]);
    },
    result: (x, width) => emit.transpose(emit.reshape(x, [B, H, T, width]), [0, 2, 1, 3]),
  };
}

/** The keys that take part. */
interface Keys {
  /** int64 [1] */
  readonly count: Value;
  /** int64 [1] where the keys are cut there; undefined where all of the cache takes part */
  readonly end?: Value;
  /** Where each row of the batch has a cache of its own. */
  readonly ofRows?: readonly KeysOfRow[];
}

/** Keys of one row of the batch. */
interface KeysOfRow {
  /** int64 [1] where they are cut */
  readonly end: Value;
  /** int64 [2] zeros before and after them, for as many as the row with the most has */
  readonly padding: Value;
}

/**
 * @param needsLogSumExp false where nobody asks for it; it is left out then
 */
export function cachedAttention(emit: Emitter, args: CachedAttention, needsLogSumExp: boolean): CachedResult {
  const { sizes, widths, queryStart } = args;
  const { B, T, H } = sizes;
  const many = attend(args, keysOf(emit, args), visibilityOf(emit, args, keysOf(emit, args)));
  // Tokens and a row more are never a single row.
  const mayBeSingle = T.value === undefined && T.symbols.has(T.text);
  if (!mayBeSingle || queryStart === undefined) return many(emit, needsLogSumExp);

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
    const layout = layoutOf(emit, args, keys);
    const product = layout.scores(args.q, args.k, widths.D, scale);
    const decayed = importance && importanceOf(emit, args, importance, layout, keys, visible);
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
    const mixed = layout.mix(weights, args.v, widths.E);
    // The largest score counts one, so the sum is smaller only where there is none.
    const isNothing = mayHideAll ? emit.node("Less", [total, builder.float(1)]) : undefined;
    const unless = (x: Value, nothing: number) =>
      isNothing ? emit.node("Where", [isNothing, builder.float(nothing), x]) : x;
    const value = layout.result(unless(emit.node("Div", [mixed, total]), 0), widths.E);
    if (!needsLogSumExp) return { value };
    const logSumExp = unless(emit.node("Add", [largest, emit.node("Log", [total])]), Number.NEGATIVE_INFINITY);
    return { value, logSumExp: emit.reshape(logSumExp, [B, H, T]) };
  };
}

/** All keys for one query and for none that start somewhere; else up to the last that any query sees, in whole blocks. */
function keysOf(emit: Emitter, args: CachedAttention): Keys {
  const { sizes, queryStart, causal } = args;
  const { B, T, C } = sizes;
  if (queryStart === undefined || !causal || T.equals(1)) return { count: emit.sizes.size(C) };
  const { builder } = emit;
  const lengths = emit.node("Add", [emit.cast(queryStart, "int64"), emit.sizes.size(T)]);
  const blocks = emit.node("Div", [emit.node("Add", [lengths, builder.int64(block - 1)]), builder.int64(block)]);
  const ends = emit.node("Mul", [blocks, builder.int64(block)]);
  const count = B.equals(1) ? ends : emit.node("ReduceMax", [ends, builder.int64(0)], { keepdims: 1 });
  if (!hasRowsApart(emit, args)) return { count, end: count };
  const rows = sizeOf(B);
  const eachRow = (x: Value) => emit.nodes(rows, "Split", [x], { axis: 0, num_outputs: rows });
  const missing = eachRow(emit.node("Sub", [count, ends]));
  const ofRows = eachRow(ends).map((end, row) => ({
    end,
    padding: emit.node("Concat", [builder.int64(0), missing[row]], { axis: 0 }),
  }));
  return { count, end: count, ofRows };
}

/** True where whatever is read of a cache was put together from one array for each row. */
function hasRowsApart(emit: Emitter, { sizes, k, v, importance, bias }: CachedAttention): boolean {
  const { B, C, H } = sizes;
  const read = [k, v, ...(importance ? [importance.b, importance.gKey] : [])];
  const areApart = read.every((x) => emit.kept(joinedRows, x)?.length === B.value);
  return areApart && isWhole(C) && H.value !== undefined && bias === undefined;
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

/** Masks over keys, to be broadcast to the scores. */
interface Visibility {
  /** Zero for keys that a query sees, minus infinity for others; undefined where it sees all. */
  readonly hidden?: Value;
  /** One for keys that a query sees, zero for others. */
  readonly factor?: Value;
  /** True for blocks of keys before the query's own: [..., T, blocks, 1]. */
  readonly earlierBlocks?: Value;
}

function visibilityOf(emit: Emitter, args: CachedAttention, keys: Keys): Visibility {
  const { builder } = emit;
  const { causal, keyLength, importance, queryStart, sizes } = args;
  const { T } = sizes;
  const { perRow } = layoutOf(emit, args, keys);
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
): Value {
  const { builder, sizes } = emit;
  const { leading } = layout;
  const rank = leading.length;
  const product = layout.scores(c, b, S, 1);
  const shape = (...ends: readonly Value[]) =>
    emit.node("Concat", [...leading.map((size) => sizes.size(size)), ...ends], { axis: 0 });

  // Log decay within blocks of keys [..., 1, blocks, 64], and of each block as a whole.
  const key = filled(emit, layout.perKey(gKey), rank, C, keys);
  const blocks = emit.node("Reshape", [key, shape(builder.int64(1), builder.int64(-1), builder.int64(block))]);
  const ends = [builder.int64(block - 1), builder.int64(block), builder.int64(rank + 2)];
  const totals = emit.node("Slice", [blocks, ...ends]);
  // What comes between the key's block and the query's: sums over whole blocks, from the query backwards.
  const counted = emit.node("Where", [visible.earlierBlocks, totals, builder.float(0)]);
  const between = emit.node("CumSum", [counted, builder.int64Scalar(rank + 1)], { reverse: 1 });
  const query = emit.reshape(layout.perQuery(gQuery), [...leading, T, one, one]);
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
