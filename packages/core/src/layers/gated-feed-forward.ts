// The feed-forward part of a block.

import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { linear } from "../ops/linear.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { swiglu } from "../ops/swiglu.ts";
import { filled, type Layer, normal, type ParametersOf } from "./layer.ts";

/** Widths of a gated feed-forward. */
export interface GatedFeedForwardSizes {
  /** M */
  readonly width: number;
  /** F */
  readonly feedForwardWidth: number;
  /** Added under the root of its norm */
  readonly normEpsilon: number;
}

/**
 * Pre-norm gated feed-forward and a residual.
 * y = x + W_down (silu(W_gate n(x)) * W_up n(x))
 * Source: Shazeer 2020, arXiv:2002.05202.
 */
export class GatedFeedForward implements Layer {
  /** As given. */
  readonly sizes: GatedFeedForwardSizes;
  /** The norm [M], W_gate and W_up [F,M], W_down [M,F]. */
  readonly parameters;

  constructor(sizes: GatedFeedForwardSizes) {
    const { width: M, feedForwardWidth: F } = sizes;
    this.sizes = sizes;
    this.parameters = {
      "ffn_norm.weight": filled([M], 1),
      "ffn.w_gate.weight": normal([F, M], 0.02),
      "ffn.w_up.weight": normal([F, M], 0.02),
      "ffn.w_down.weight": normal([M, F], 0.02),
    };
  }

  /** @param x [B,T,M] @returns [B,T,M] */
  forward(p: ParametersOf<this>, x: Tensor): Tensor {
    const h = rmsNorm(x, p["ffn_norm.weight"], { epsilon: this.sizes.normEpsilon });
    const hidden = swiglu(linear(h, p["ffn.w_gate.weight"]), linear(h, p["ffn.w_up.weight"])); // [B,T,F]
    return add(x, linear(hidden, p["ffn.w_down.weight"]));
  }
}
