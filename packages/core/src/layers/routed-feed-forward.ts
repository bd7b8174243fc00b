// A feed-forward of experts, of which each token takes a few.

import { Dim } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { argmax } from "../ops/argmax.ts";
import { equal } from "../ops/equal.ts";
import { iota } from "../ops/iota.ts";
import { linear } from "../ops/linear.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { or } from "../ops/or.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { softmax } from "../ops/softmax.ts";
import { sum } from "../ops/sum.ts";
import { swiglu } from "../ops/swiglu.ts";
import { transpose } from "../ops/transpose.ts";
import { where } from "../ops/where.ts";
import type { FeedForward } from "./block.ts";
import type { GatedFeedForwardSizes } from "./gated-feed-forward.ts";
import { filled, normal, type ParametersOf } from "./layer.ts";

/** Widths of one expert, and how many there are. */
export interface RoutedFeedForwardSizes extends GatedFeedForwardSizes {
  /** How many there are, and how many a token takes. */
  readonly experts: {
    /** E */
    readonly count: number;
    /** Experts with the largest share, from 1 to E */
    readonly perToken: number;
  };
}

/**
 * Pre-norm gated feed-forwards, mixed by a router, and a residual.
 * y = x + sum_e p_e W_down,e (silu(W_gate,e n(x)) * W_up,e n(x)), over the experts with the largest p = softmax(W_router n(x))
 *
 * The weights are not normed again after the choice, as in Jamba. All experts are computed, and those that were not chosen
 * weigh nothing: right, but no faster than a dense feed-forward as wide as all of them.
 * Source: Jamba, arXiv:2403.19887.
 */
export class RoutedFeedForward implements FeedForward {
  /** As given. */
  readonly sizes: RoutedFeedForwardSizes;
  /** The norm [M], the router [E,M], and of the experts W_gate and W_up [E,F,M], W_down [E,M,F]. */
  readonly parameters;

  constructor(sizes: RoutedFeedForwardSizes) {
    const { width: M, feedForwardWidth: F, experts } = sizes;
    this.sizes = sizes;
    this.parameters = {
      "ffn_norm.weight": filled([M], 1),
      "ffn.router.weight": normal([experts.count, M], 0.02),
      "ffn.experts.w_gate.weight": normal([experts.count, F, M], 0.02),
      "ffn.experts.w_up.weight": normal([experts.count, F, M], 0.02),
      "ffn.experts.w_down.weight": normal([experts.count, M, F], 0.02),
    };
  }

  /** @param x [B,T,M] @returns [B,T,M] */
  forward(p: ParametersOf<this>, x: Tensor): Tensor {
    const [B = Dim.of(1), T = Dim.of(1), M = Dim.of(1)] = x.shape;
    const h = rmsNorm(x, p["ffn_norm.weight"], { epsilon: this.sizes.normEpsilon });
    const shares = this.#shares(linear(h, p["ffn.router.weight"])); // [B,T,E]
    const rows = reshape(h, [1, B.times(T), M]);
    const through = (weight: Tensor, values: Tensor) => matmul(values, weight, { transposeB: true });
    const hidden = swiglu(through(p["ffn.experts.w_gate.weight"], rows), through(p["ffn.experts.w_up.weight"], rows));
    const outputs = through(p["ffn.experts.w_down.weight"], hidden); // [E,B*T,M]
    const { count } = this.sizes.experts;
    const perExpert = reshape(transpose(reshape(shares, [B.times(T), count]), [1, 0]), [count, B.times(T), 1]);
    return add(x, reshape(sum(mul(outputs, perExpert), { axes: [0] }), [B, T, M]));
  }

  /** Shares of the experts that a token takes, zero for the others. */
  #shares(logits: Tensor): Tensor {
    const { count, perToken } = this.sizes.experts;
    const all = softmax(logits);
    const isIn = (left: Tensor): Tensor<"bool"> => {
      const best = argmax(left);
      return equal<"int">(iota(count), reshape(best, [...best.shape, 1]));
    };
    let chosen = isIn(all);
    for (let index = 1; index < perToken; index++) chosen = or(chosen, isIn(where(chosen, -1, all)));
    return where(chosen, all, 0);
  }
}
