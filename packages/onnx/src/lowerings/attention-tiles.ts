// Causal attention over sequences of known length, forward and backward, a tile of queries at a time: keys that come
// after a tile are never looked at, and arrays stay small enough for caches.
//
// With an importance term, let A be the sum of log decay from the beginning of a tile. For a query i and a key j of an
// earlier tile,
//
//   exp(g_i - g_j) = exp(A_i) * exp(what is left of j's tile after j, plus the tiles between).
//
// Both factors are at most 1, so they go into c_i and b_j, and the importance term becomes part of the one matrix product
// with the content term. Only within a tile is the decay an array of pairs. Scores that forget get the sum of both exponents.

import type { Emitter, Slot } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

/** Positions after which sums of log decay begin anew. */
const block = 64;

/** Exponents of decay are raised to this: e^-60 is nothing beside 1, and numbers that underflow are slow. */
export const smallestExponent = -60;

/** Sizes of an attention whose every size is known. */
export interface TileSizes {
  readonly B: number;
  readonly T: number;
  readonly H: number;
  readonly D: number;
  readonly E: number;
  /** 0 without an importance term. */
  readonly S: number;
}

/** Values with heads before time. */
export interface HeadsFirst {
  /** [B,H,T,D] */
  readonly q: Value;
  readonly k: Value;
  /** [B,H,T,E] */
  readonly v: Value;
  readonly importance?: ImportanceHeads | undefined;
  /** What is added to scores; importance has sums of its own. */
  readonly forgetting?: DecaySums | undefined;
}

/** [B,H,T] sums of log decay within blocks. */
export interface DecaySums {
  readonly gQuery: Value;
  readonly gKey: Value;
}

export interface ImportanceHeads extends DecaySums {
  /** [B,H,T,S] read vectors times lambda */
  readonly c: Value;
  /** [B,H,T,S] */
  readonly b: Value;
}

/** How scores become weights. */
export interface TileRules {
  /** Factor of q . k. */
  readonly scale: number;
  readonly weights: "softmax" | "sigmoid";
  /** Keys that a query sees, itself included; 0 for all. */
  readonly window: number;
  /** First positions that every query sees, whatever its window. */
  readonly sinks: number;
}

/** One tile of queries, rows `start` to `end`, and what its keys 0 to `end` are multiplied with. */
interface Tile {
  readonly start: number;
  readonly end: number;
  /** [B,H,rows,D+S] queries, and read vectors with the decay since the tile began; D wide for the first tile */
  readonly left: Value;
  /** [B,H,end,D+S] keys, and write vectors with the decay until the tile begins, zero for those in the tile */
  readonly right: Value;
  /** [B,H,end,E] */
  readonly v: Value;
  readonly pairs?: Pairs;
  /** [B,H,rows,end] g_i - g_j, to be added to scores */
  readonly forgotten?: Value;
}

/** What is computed for each pair within a tile. */
interface Pairs {
  /** [B,H,rows,rows] exp(g_i - g_j), 1 where j comes after i */
  readonly decay: Value;
  /** [B,H,rows,S] of the tile */
  readonly c: Value;
  readonly b: Value;
  /** [B,H,start,1] decay of each earlier key until the tile begins */
  readonly writeFactor?: Value;
}

export interface Tiles {
  readonly sizes: TileSizes;
  readonly rules: TileRules;
  readonly heads: HeadsFirst;
  readonly list: readonly Tile[];
  /** [B,H,T,1] exp(A) / scale */
  readonly readFactor?: Value;
}

export interface TiledForward {
  readonly tiles: Tiles;
  /** [B,H,T,E] */
  readonly value: Value;
  /** Of each tile [B,H,rows,end]; with softmax after the mask. */
  readonly scores: readonly Value[];
  /** What they weigh: their softmax, or the sigmoid of each, zero for keys that are not seen. */
  readonly weights: readonly Value[];
}

export interface TiledGradients {
  /** Of each tile [B,H,rows,end], by the scores. */
  readonly scores: readonly Value[];
  /** [B,H,T,D] */
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
  /** [B,H,T] sum over queries of the gradients by the scores, where scores forget */
  readonly forgotten?: Value;
  readonly importance?: {
    /** [B,H,T,S] gradient by c, not yet multiplied with lambda */
    readonly c: Value;
    readonly b: Value;
  };
}

/** Queries per tile: at most eight tiles where the length can be cut so, and no tile that begins within a block. */
export function tileFor(T: number): number {
  const sizes = [64, 128, 256].filter((size) => size === block || T % size === 0);
  return sizes.find((size) => T / size <= 8) ?? sizes.at(-1) ?? block;
}

const rows = (emit: Emitter, x: Value, start: number, end: number): Value =>
  emit.node("Slice", [x, emit.builder.int64(start), emit.builder.int64(end), emit.builder.int64(2)]);

const raised = (emit: Emitter, exponent: Value): Value =>
  emit.node("Exp", [emit.node("Clip", [exponent, emit.builder.float(smallestExponent), emit.builder.float(0)])]);

/** The operands of all tiles. */
export function cutIntoTiles(
  emit: Emitter,
  heads: HeadsFirst,
  sizes: TileSizes,
  rules: TileRules,
  size: number,
): Tiles {
  const { builder } = emit;
  const { B, T, H } = sizes;
  const { q, k, v, importance, forgetting } = heads;
  const cut = (x: Value, start: number, end: number) => (start === 0 && end === T ? x : rows(emit, x, start, end));
  const sums = importance ?? forgetting;
  const starts = Array.from({ length: Math.ceil(T / size) }, (_, index) => index * size);
  if (sums === undefined) {
    const list = starts.map((start): Tile => {
      const end = Math.min(start + size, T);
      return { start, end, left: cut(q, start, end), right: cut(k, 0, end), v: cut(v, 0, end) };
    });
    return { sizes, rules, heads, list };
  }

  const [aQuery = "", aKey = ""] = [sums.gQuery, sums.gKey].map((g) => sumsWithinTiles(emit, g, sizes, size));
  const column = (x: Value, length: number) => emit.node("Reshape", [x, builder.int64(B, H, length, 1)]);
  const across = (x: Value, length: number) => emit.node("Reshape", [x, builder.int64(B, H, 1, length)]);
  const query = column(aQuery, T);
  const key = column(aKey, T);
  const read = importance && {
    ...importance,
    factor: emit.node("Mul", [raised(emit, query), builder.float(1 / rules.scale)]),
  };
  const left = read ? emit.node("Concat", [q, emit.node("Mul", [read.c, read.factor])], { axis: 3 }) : q;

  const list: Tile[] = [];
  // Log of the decay of each earlier key from its position to the beginning of the tile at hand.
  let untilTile: Value | undefined;
  for (const start of starts) {
    const end = Math.min(start + size, T);
    const keys = cut(k, 0, end);
    const queryInTile = cut(query, start, end);
    const keyInTile = cut(key, start, end);
    const common = { start, end, v: cut(v, 0, end) };
    if (read === undefined) {
      const since = untilTile
        ? emit.node("Concat", [emit.node("Neg", [untilTile]), keyInTile], { axis: 2 })
        : keyInTile;
      const forgotten = emit.node("Sub", [queryInTile, across(since, end)]);
      list.push({ ...common, left: cut(left, start, end), right: keys, forgotten });
    } else {
      const own = { c: cut(read.c, start, end), b: cut(read.b, start, end) };
      const decay = raised(emit, emit.node("Sub", [queryInTile, across(keyInTile, end - start)]));
      if (untilTile === undefined) {
        list.push({ ...common, left: cut(q, start, end), right: keys, pairs: { decay, ...own } });
      } else {
        const writeFactor = raised(emit, untilTile);
        const earlier = emit.node("Mul", [cut(read.b, 0, start), writeFactor]);
        const padded = emit.node("Pad", [earlier, builder.int64(0, end - start), undefined, builder.int64(2)]);
        const right = emit.node("Concat", [keys, padded], { axis: 3 });
        list.push({ ...common, left: cut(left, start, end), right, pairs: { decay, ...own, writeFactor } });
      }
    }
    if (end === T) break;
    const total = rows(emit, key, end - 1, end);
    const left1 = emit.node("Sub", [total, keyInTile]);
    untilTile =
      untilTile === undefined ? left1 : emit.node("Concat", [emit.node("Add", [untilTile, total]), left1], { axis: 2 });
  }
  return { sizes, rules, heads, list, ...(read && { readFactor: read.factor }) };
}

/** Sums of log decay since the tile began, from sums since the block began: [B,H,T]. */
function sumsWithinTiles(emit: Emitter, g: Value, { B, T, H }: TileSizes, size: number): Value {
  if (size === block) return g;
  const { builder } = emit;
  const split = emit.node("Reshape", [g, builder.int64(B, H, T / size, size / block, block)]);
  const totals = emit.node("Slice", [split, builder.int64(block - 1), builder.int64(block), builder.int64(4)]);
  const before = emit.node("CumSum", [totals, builder.int64Scalar(3)], { exclusive: 1 });
  return emit.node("Reshape", [emit.node("Add", [split, before]), builder.int64(B, H, T)]);
}

const masks: Slot<Value> = { name: "masks" };

/** A constant for the pairs of rows `start` to `end` with keys `from` to `end`; the same in all layers. */
function pairConstant(
  emit: Emitter,
  kind: "hidden" | "seen",
  { start, end, from = 0 }: { readonly start: number; readonly end: number; readonly from?: number },
  { window, sinks }: TileRules,
): Value {
  const key = [kind, start - from, end - from, ...(window === 0 ? [] : [start, window, sinks])].join(" ");
  const known = emit.kept(masks, key);
  if (known !== undefined) return known;
  const width = end - from;
  const isSeen = (index: number) => {
    const [i, j] = [start + Math.floor(index / width), from + (index % width)];
    return j <= i && (window === 0 || j > i - window || j < sinks);
  };
  const shape = [end - start, width];
  const length = (end - start) * width;
  const value =
    kind === "seen"
      ? emit.builder.constant(
          Uint8Array.from({ length }, (_, index) => (isSeen(index) ? 1 : 0)),
          shape,
        )
      : emit.builder.constant(
          Float32Array.from({ length }, (_, index) => (isSeen(index) ? 0 : Number.NEGATIVE_INFINITY)),
          shape,
        );
  return emit.keep(masks, key, value);
}

const operand = (value: Value) => ({ value, rank: 4 });

function scoresOf(emit: Emitter, { start, end, left, right, pairs, forgotten }: Tile, rules: TileRules): Value {
  const product = emit.matmul(operand(left), operand(right), { transposeB: true, factor: rules.scale });
  if (pairs === undefined) {
    const scores = forgotten ? emit.node("Add", [product, forgotten]) : product;
    return emit.node("Add", [scores, pairConstant(emit, "hidden", { start, end }, rules)]);
  }
  const importance = emit.matmul(operand(pairs.c), operand(pairs.b), { transposeB: true });
  const decayed = emit.node("Mul", [importance, pairs.decay]);
  const own =
    rules.weights === "softmax"
      ? emit.node("Add", [decayed, pairConstant(emit, "hidden", { start, end, from: start }, rules)])
      : decayed;
  if (start === 0) return emit.node("Add", [product, own]);
  const { builder } = emit;
  const padded = emit.node("Pad", [own, builder.int64(start, 0), undefined, builder.int64(3)]);
  return emit.node("Add", [product, padded]);
}

function weightsOf(emit: Emitter, scores: Value, { start, end }: Tile, rules: TileRules): Value {
  if (rules.weights === "softmax") return emit.node("Softmax", [scores], { axis: -1 });
  const { builder } = emit;
  const counts = Float32Array.from({ length: end - start }, (_, row) => Math.log(start + row + 1));
  const weights = emit.node("Sigmoid", [emit.node("Sub", [scores, builder.constant(counts, [end - start, 1])])]);
  return emit.node("Where", [pairConstant(emit, "seen", { start, end }, rules), weights, builder.float(0)]);
}

export function tiledForward(emit: Emitter, tiles: Tiles): TiledForward {
  const { list, rules } = tiles;
  const scores = list.map((tile) => scoresOf(emit, tile, rules));
  const weights = list.map((tile, index) => weightsOf(emit, scores[index] ?? "", tile, rules));
  const values = list.map((tile, index) => emit.node("MatMul", [weights[index] ?? "", tile.v]));
  return { tiles, value: joined(emit, values), scores, weights };
}

function joined(emit: Emitter, parts: readonly Value[]): Value {
  const [only = ""] = parts;
  return parts.length === 1 ? only : emit.node("Concat", parts, { axis: 2 });
}

/** @param gradient [B,H,T,E] by the value */
export function tiledBackward(emit: Emitter, { tiles, value, weights }: TiledForward, gradient: Value): TiledGradients {
  const { builder } = emit;
  const { sizes, rules, heads, list, readFactor } = tiles;
  const { scale } = rules;
  const { D, S } = sizes;
  const one = list.length === 1;
  const sums = { k: new GrowingSum(emit), v: new GrowingSum(emit), b: new GrowingSum(emit) };
  const forgotten = new GrowingSum(emit);
  const dq: Value[] = [];
  const dc: Value[] = [];
  const scores: Value[] = [];
  // sum_j p_ij dp_ij = o_i . do_i, [B,H,T,1]
  const delta = rules.weights === "softmax" ? emit.sum(emit.node("Mul", [gradient, value]), [3], true) : undefined;
  for (const [index, { start, end, left, right, v, pairs }] of list.entries()) {
    const p = operand(weights[index] ?? "");
    const g = operand(one ? gradient : rows(emit, gradient, start, end));
    const dp = emit.matmul(g, operand(v), { transposeB: true });
    const ds = operand(
      delta
        ? emit.node("Mul", [p.value, emit.node("Sub", [dp, one ? delta : rows(emit, delta, start, end)])])
        : emit.node("Mul", [dp, emit.node("Sub", [p.value, emit.node("Mul", [p.value, p.value])])]),
    );
    scores.push(ds.value);
    if (heads.forgetting) forgotten.add(emit.sum(ds.value, [2], false), end - start);
    sums.v.add(emit.matmul(p, g, { transposeA: true }), end - start);
    const dLeft = emit.matmul(ds, operand(right), { factor: scale });
    const dRight = emit.matmul(ds, operand(left), { transposeA: true, factor: scale });
    if (pairs === undefined) {
      dq.push(dLeft);
      sums.k.add(dRight, end - start);
      continue;
    }

    const within = one
      ? ds.value
      : emit.node("Slice", [ds.value, builder.int64(start), builder.int64(end), builder.int64(3)]);
    const decayed = operand(emit.node("Mul", [within, pairs.decay]));
    const dcWithin = emit.matmul(decayed, operand(pairs.b), {});
    const dbWithin = emit.matmul(decayed, operand(pairs.c), { transposeA: true });
    if (pairs.writeFactor === undefined || readFactor === undefined) {
      dq.push(dLeft);
      dc.push(dcWithin);
      sums.k.add(dRight, end - start);
      sums.b.add(dbWithin, end - start);
      continue;
    }
    const [dqTile = "", dcScaled = ""] = splitWidths(emit, dLeft, D, S);
    const [dkTile = "", dbAll = ""] = splitWidths(emit, dRight, D, S);
    dq.push(dqTile);
    const dcBefore = emit.node("Mul", [dcScaled, rows(emit, readFactor, start, end)]);
    dc.push(emit.node("Add", [dcBefore, dcWithin]));
    sums.k.add(dkTile, end - start);
    const dbBefore = emit.node("Mul", [rows(emit, dbAll, 0, start), pairs.writeFactor]);
    sums.b.add(emit.node("Concat", [dbBefore, dbWithin], { axis: 2 }), end - start);
  }
  const content = {
    scores,
    q: joined(emit, dq),
    k: sums.k.value,
    v: sums.v.value,
    ...(heads.forgetting && { forgotten: forgotten.value }),
  };
  return heads.importance ? { ...content, importance: { c: joined(emit, dc), b: sums.b.value } } : content;
}

function splitWidths(emit: Emitter, x: Value, first: number, second: number): readonly Value[] {
  return emit.nodes(2, "Split", [x, emit.builder.int64(first, second)], { axis: 3 });
}

/** A sum of arrays each of which has more rows than the one before. */
class GrowingSum {
  readonly #emit: Emitter;
  value: Value = "";

  constructor(emit: Emitter) {
    this.#emit = emit;
  }

  /** Adds an array that has `more` rows more than the sum so far. */
  add(x: Value, more: number): void {
    const emit = this.#emit;
    if (this.value === "") {
      this.value = x;
      return;
    }
    const padded = emit.node("Pad", [this.value, emit.builder.int64(0, more), undefined, emit.builder.int64(2)]);
    this.value = emit.node("Add", [x, padded]);
  }
}

/** log sum e^score of every query: [B,H,T]. */
export function tiledLogSumExp(emit: Emitter, { tiles, scores, weights }: TiledForward): Value {
  const { B, T, H } = tiles.sizes;
  const last = emit.builder.int64(3);
  const parts = scores.map((score, index) => {
    const largest = emit.node("ReduceMax", [score, last], { keepdims: 1 });
    // The largest probability is 1 / sum(e^(score - max)), and never small.
    const peak = emit.node("ReduceMax", [weights[index] ?? "", last], { keepdims: 1 });
    return emit.node("Sub", [largest, emit.node("Log", [peak])]);
  });
  return emit.node("Reshape", [joined(emit, parts), emit.builder.int64(B, H, T)]);
}

/** Gradients by all scores, zero where a query does not see a key: [B,H,T,T]. */
export function wholeScores(emit: Emitter, tiles: Tiles, parts: readonly Value[]): Value {
  const { builder } = emit;
  const { T } = tiles.sizes;
  const padded = parts.map((part, index) => {
    const missing = T - (tiles.list[index]?.end ?? T);
    return missing === 0 ? part : emit.node("Pad", [part, builder.int64(0, missing), undefined, builder.int64(3)]);
  });
  return joined(emit, padded);
}
