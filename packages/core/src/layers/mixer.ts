// What a mixer layer is: the part of a block that lets tokens see each other. It declares what it caches, and its one
// forward serves training, prefill, a chunk and a single token alike.

import type { DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { reshape } from "../ops/reshape.ts";
import type { TensorSpec } from "../spec.ts";
import type { Layer, ParametersOf } from "./layer.ts";

export interface MixerContext {
  /** Cosines and sines of positional rotation, broadcast to [B,T,H,D/2]. */
  readonly rope: { readonly cos: Tensor; readonly sin: Tensor };
  /** Present when decoding. */
  readonly cache?: MixerCache;
}

export interface MixerCache {
  /** int32 [B] position of the first of the T tokens; the cache holds all positions before it. */
  readonly start: Tensor<"int">;
  /** By the names that the mixer's `cacheSpecs` declares; [B,C,...] with C the capacity. */
  readonly entries: { readonly [name: string]: Tensor };
}

export interface MixerOutput {
  /** [B,T,M] */
  readonly value: Tensor;
  /** The caches with the T tokens written; empty when not decoding. */
  readonly cache: { readonly [name: string]: Tensor };
  /** [B,H] by how much g has fallen since the first token; given where decoding is only exact up to a limit. */
  readonly decaySpan?: Tensor;
}

export interface Mixer extends Layer {
  /** What is kept for each token. */
  cacheSpecs(batch: DimLike, capacity: DimLike): { readonly [name: string]: TensorSpec<"float"> };
  forward(p: ParametersOf<this>, x: Tensor, context: MixerContext): MixerOutput;
}

/** [B,T,H*D] to [B,T,H,D]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [width] = x.shape.slice(-1);
  return reshape(x, [...x.shape.slice(0, -1), heads, (width?.value ?? 0) / heads]);
}

/** [B,T,H,D] to [B,T,H*D]. */
export function mergeHeads(x: Tensor): Tensor {
  const [heads, width] = x.shape.slice(-2);
  return reshape(x, [...x.shape.slice(0, -2), heads?.times(width ?? 1) ?? 1]);
}
