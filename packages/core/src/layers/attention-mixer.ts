// Multi-head causal attention with rotary positions: the mixer of the Transformer that SISA is compared with.

import type { DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { attention } from "../ops/attention.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { linear } from "../ops/linear.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { rope } from "../ops/rope.ts";
import { f32 } from "../spec.ts";
import { filled, normal, type ParametersOf } from "./layer.ts";
import { type Mixer, type MixerContext, type MixerOutput, mergeHeads, splitHeads } from "./mixer.ts";

export interface AttentionMixerSizes {
  /** M, a multiple of heads */
  readonly width: number;
  readonly heads: number;
  readonly normEpsilon: number;
}

/**
 * Pre-norm multi-head attention and a residual.
 * y = x + W_O attention(rope(W_Q n(x)), rope(W_K n(x)), W_V n(x))
 * Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864.
 */
export class AttentionMixer implements Mixer {
  readonly sizes: AttentionMixerSizes;
  readonly parameters;

  constructor(sizes: AttentionMixerSizes) {
    const { width: M } = sizes;
    this.sizes = sizes;
    this.parameters = {
      "attn_norm.weight": filled([M], 1),
      "W_Q.weight": normal([M, M], 0.02),
      "W_K.weight": normal([M, M], 0.02),
      "W_V.weight": normal([M, M], 0.02),
      "W_O.weight": normal([M, M], 0.02),
    };
  }

  cacheSpecs(batch: DimLike, capacity: DimLike) {
    const { width, heads } = this.sizes;
    const perHead = f32(batch, capacity, heads, width / heads);
    return { key: perHead, value: perHead };
  }

  forward(p: ParametersOf<this>, x: Tensor, { rope: { cos, sin }, cache }: MixerContext): MixerOutput {
    const { heads, normEpsilon } = this.sizes;
    const h = rmsNorm(x, p["attn_norm.weight"], { epsilon: normEpsilon });
    const q = rope(splitHeads(linear(h, p["W_Q.weight"]), heads), cos, sin); // [B,T,H,D]
    const k = rope(splitHeads(linear(h, p["W_K.weight"]), heads), cos, sin);
    const v = splitHeads(linear(h, p["W_V.weight"]), heads);
    const output = (y: Tensor) => add(x, linear(mergeHeads(y), p["W_O.weight"]));

    const { key, value } = cache?.entries ?? {};
    if (!cache || !key || !value) return { value: output(attention({ q, k, v })), cache: {} };
    const { start } = cache;
    const written = { key: cacheWrite(key, k, start), value: cacheWrite(value, v, start) };
    return { value: output(attention({ q, k: written.key, v: written.value, queryStart: start })), cache: written };
  }
}
