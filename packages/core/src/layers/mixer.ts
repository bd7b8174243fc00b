// What a mixer layer is: the part of a block that lets tokens see each other. It declares what it caches, and its one
// forward serves training, prefill, a chunk and a single token alike.

import { Dim, type DimLike } from "../dim.ts";
import { GraphError } from "../errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { cacheRead } from "../ops/cache-read.ts";
import { concat } from "../ops/concat.ts";
import { constant } from "../ops/constant.ts";
import { iota } from "../ops/iota.ts";
import { less } from "../ops/less.ts";
import { lessEqual } from "../ops/less-equal.ts";
import { maximum } from "../ops/maximum.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { sub } from "../ops/sub.ts";
import { takeRow } from "../ops/take-row.ts";
import { where } from "../ops/where.ts";
import type { TensorSpec } from "../spec.ts";
import type { Initializer, Layer, ParametersOf } from "./layer.ts";

/** What a mixer is told of the model and of decoding. */
export interface MixerContext {
  /**
   * Positional rotation for heads of a width.
   * @returns cosines and sines, broadcast to [B,T,H,width/2]
   */
  rope(width: number): { readonly cos: Tensor; readonly sin: Tensor };
  /** How many of the first positions are meta tokens, which every window sees. */
  readonly metaTokens: number;
  /** Those of the nearest layer before that has its own. */
  readonly keyValues?: KeyValues | undefined;
  /** Present when decoding. */
  readonly cache?: MixerCache;
}

/** What attention reads. */
export interface KeyValues {
  /** [B,C,G,D] keys, normed and rotated */
  readonly k: Tensor;
  /** [B,C,G,E] values */
  readonly v: Tensor;
}

/** What a mixer reads of earlier tokens. */
export interface MixerCache {
  /** int32 [B] position of the first of the T tokens; the cache holds what is needed of all positions before it. */
  readonly start: Tensor<"int">;
  /**
   * int32 [B] the last of the T tokens that counts, -1 for none: later ones are padding and must not move a state. Always
   * given where a mixer is recurrent.
   */
  readonly last?: Tensor<"int"> | undefined;
  /**
   * int32 [B,M] where the rows of each sequence lie, where entries are pools of pages [N,P,...] that all sequences share, as
   * `cacheWrite` fills them. Never given where a mixer is recurrent.
   */
  readonly pages?: Tensor<"int"> | undefined;
  /** By the names that the mixer's `cacheSpecs` declares: [B,C,...] with C the capacity, or a state [B,...]. */
  readonly entries: { readonly [name: string]: Tensor };
}

/** What a mixer gives to its block. */
export interface MixerOutput {
  /** [B,T,innerWidth], before the output projection */
  readonly value: Tensor;
  /** The caches with the T tokens written; empty when not decoding. */
  readonly cache: { readonly [name: string]: Tensor };
  /** What attention read, for layers after it that reuse it. */
  readonly keyValues?: KeyValues;
  /** [B,H] by how much g has fallen since the first token; given where decoding is only exact up to a limit. */
  readonly decaySpan?: Tensor;
}

/** The block around a mixer owns the norm before it and the projection after it, under names that the mixer gives. */
export interface Mixer extends Layer {
  /** Parameters of the block: the norm before the mixer, the projection after it. */
  readonly names: {
    /** Of the norm before the mixer, [M]. */
    readonly norm: string;
    /** Of the projection after it, [M,innerWidth]. */
    readonly output: string;
  };
  /** Width of what `forward` gives. */
  readonly innerWidth: number;
  /** First values of the output projection. */
  readonly outputInitializer: Initializer;
  /** True where it keeps one state in place of all positions, so that decoding cannot go back to an earlier one. */
  readonly isRecurrent: boolean;
  /** What is kept for `batch` rows: entries with an axis of `capacity` tokens, [B,C,...], and states, [B,...]. */
  cacheSpecs(batch: DimLike, capacity: DimLike): { readonly [name: string]: TensorSpec<"float"> };
  /**
   * @param h normed input [B,T,M]
   * @returns `value` [B,T,innerWidth], and the caches with the T tokens written
   * @throws GraphError where the cache lacks an entry of `cacheSpecs`, or `last` where the mixer is recurrent
   */
  forward(p: ParametersOf<this>, h: Tensor, context: MixerContext): MixerOutput;
}

/** [B,T,H*D] to [B,T,H,D]. @throws ShapeError unless the width is bound and heads divide it */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [width] = x.shape.slice(-1);
  return reshape(x, [...x.shape.slice(0, -1), heads, (width?.value ?? 0) / heads]);
}

/** [B,T,H,D] to [B,T,H*D]; leading axes are any. */
export function mergeHeads(x: Tensor): Tensor {
  const [heads, width] = x.shape.slice(-2);
  return reshape(x, [...x.shape.slice(0, -2), heads?.times(width ?? 1) ?? 1]);
}

/** [..., G, N] to [..., G*times, N]: neighbouring heads share a group. */
export function repeatHeads(x: Tensor, times: number): Tensor {
  if (times === 1) return x;
  const leading = x.shape.slice(0, -2);
  const [groups = Dim.of(1), width = Dim.of(1)] = x.shape.slice(-2);
  const spread = broadcastTo(reshape(x, [...leading, groups, 1, width]), [...leading, groups, times, width]);
  return reshape(spread, [...leading, groups.times(times), width]);
}

/** rmsNorm of each of `groups` parts of the last axis by itself, with a weight for every channel. */
export function normGroups(x: Tensor, weight: Tensor, groups: number, epsilon: number): Tensor {
  if (groups === 1) return rmsNorm(x, weight, { epsilon });
  const parts = splitHeads(x, groups);
  const ones = broadcastTo(constant(1, weight.dtype) as Tensor, parts.shape.slice(-1));
  return mul(mergeHeads(rmsNorm(parts, ones, { epsilon })), weight);
}

/** The entries of a cache under the names that a mixer declared. @throws GraphError naming one that is missing */
export function expectEntries<const N extends string>(
  mixer: string,
  { entries }: MixerCache,
  names: readonly N[],
): { readonly [K in N]: Tensor } {
  for (const name of names) {
    if (entries[name] === undefined) {
      throw new GraphError(`${mixer}: expected caches ${names.join(", ")}, got ${Object.keys(entries).join(", ")}`);
    }
  }
  return entries as { readonly [K in N]: Tensor };
}

/** [B] of truth values to the axes of an entry. */
function perRow(condition: Tensor<"bool">, entry: Tensor): Tensor<"bool"> {
  return reshape(condition, [entry.shape[0] ?? 1, ...entry.shape.slice(1).map(() => 1)]);
}

/** The row of an entry before the first token: [B,...]. At position 0 there is none, and it is zero. */
export function rowBefore(entry: Tensor, { start, pages }: MixerCache): Tensor {
  const row = takeRow(entry, maximum<"int">(sub<"int">(start, 1), 0), pages);
  return where(perRow(less<"int">(start, 1), row), 0, row);
}

/** All rows of an entry that has `count` new ones: [B,C,...], whether it lies in pages or not. */
export function allRows(entry: Tensor, { start, pages }: MixerCache, count: Tensor<"int">): Tensor {
  return pages ? cacheRead(entry, pages, add<"int">(start, count)) : entry;
}

/** A state [B,...] as it is before the first token: zero at position 0. */
export function stateBefore(entry: Tensor, start: Tensor<"int">): Tensor {
  return where(perRow(less<"int">(start, 1), entry), 0, entry);
}

function expectLast(last: Tensor<"int"> | undefined): Tensor<"int"> {
  if (last === undefined) throw new GraphError("a recurrent mixer needs to know which tokens count; pass last");
  return last;
}

/** Time steps [B,T,E], 0 for padding when decoding: a step of no time changes no state. */
export function countedSteps(steps: Tensor, cache: MixerCache | undefined): Tensor {
  if (!cache) return steps;
  const [B = Dim.of(1), T = Dim.of(1)] = steps.shape;
  const counts = reshape(lessEqual<"int">(iota(T), reshape(expectLast(cache.last), [B, 1])), [B, T, 1]);
  return where(counts, steps, 0);
}

/**
 * The last rows of what was and what came: `before` [B,W,...] followed by the tokens of x [B,T,...] that count, of which
 * the last W are given.
 */
export function lastRows(before: Tensor, x: Tensor, { last }: MixerCache): Tensor {
  const rows = concat([before, x], { axis: 1 });
  const width = before.shape[1]?.value ?? 1;
  const taken = Array.from({ length: width }, (_, index) => {
    const row = takeRow(rows, add<"int">(expectLast(last), index + 1));
    return reshape(row, row.shape.toSpliced(1, 0, Dim.of(1)));
  });
  return concat(taken, { axis: 1 });
}
