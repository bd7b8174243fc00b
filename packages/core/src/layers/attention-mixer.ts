// Multi-head causal attention: the mixer of the Transformer that SISA is compared with, and its relatives.

import type { DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { attention } from "../ops/attention.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { linear } from "../ops/linear.ts";
import { rope } from "../ops/rope.ts";
import { f32 } from "../spec.ts";
import { normal, type ParametersOf } from "./layer.ts";
import { expectEntries, type Mixer, type MixerContext, type MixerOutput, mergeHeads, splitHeads } from "./mixer.ts";

export interface AttentionMixerSizes {
  /** M, a multiple of heads */
  readonly width: number;
  readonly heads: number;
}

/**
 * Multi-head attention.
 * attention(rope(W_Q h), rope(W_K h), W_V h)
 * Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864.
 */
export class AttentionMixer implements Mixer {
  readonly sizes: AttentionMixerSizes;
  readonly parameters;
  readonly names = { norm: "attn_norm.weight", output: "W_O.weight" };
  readonly innerWidth: number;
  readonly outputInitializer = { kind: "normal", deviation: 0.02 } as const;
  readonly isRecurrent = false;

  constructor(sizes: AttentionMixerSizes) {
    const { width: M } = sizes;
    this.sizes = sizes;
    this.innerWidth = M;
    this.parameters = {
      "W_Q.weight": normal([M, M], 0.02),
      "W_K.weight": normal([M, M], 0.02),
      "W_V.weight": normal([M, M], 0.02),
    };
  }

  cacheSpecs(batch: DimLike, capacity: DimLike) {
    const { width, heads } = this.sizes;
    const perHead = f32(batch, capacity, heads, width / heads);
    return { key: perHead, value: perHead };
  }

  forward(p: ParametersOf<this>, h: Tensor, context: MixerContext): MixerOutput {
    const { heads, width } = this.sizes;
    const { cos, sin } = context.rope(width / heads);
    const q = rope(splitHeads(linear(h, p["W_Q.weight"]), heads), cos, sin); // [B,T,H,D]
    const k = rope(splitHeads(linear(h, p["W_K.weight"]), heads), cos, sin);
    const v = splitHeads(linear(h, p["W_V.weight"]), heads);
    const { cache } = context;
    if (!cache) return { value: mergeHeads(attention({ q, k, v })), cache: {} };
    const { start } = cache;
    const { key, value } = expectEntries("AttentionMixer", cache, ["key", "value"]);
    const written = { key: cacheWrite(key, k, start), value: cacheWrite(value, v, start) };
    const y = attention({ q, k: written.key, v: written.value, queryStart: start });
    return { value: mergeHeads(y), cache: written };
  }
}
