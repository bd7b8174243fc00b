// Mamba-2: a state space model with one decay per head and token.

import { Dim, type DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { causalConv } from "../ops/causal-conv.ts";
import { exp } from "../ops/exp.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { reshape } from "../ops/reshape.ts";
import { silu } from "../ops/silu.ts";
import { softplus } from "../ops/softplus.ts";
import { split } from "../ops/split.ts";
import { ssdScan } from "../ops/ssd-scan.ts";
import { swiglu } from "../ops/swiglu.ts";
import { f32 } from "../spec.ts";
import { filled, type Initializer, type ParametersOf, uniformFor } from "./layer.ts";
import {
  countedSteps,
  expectEntries,
  lastRows,
  type Mixer,
  type MixerContext,
  type MixerOutput,
  mergeHeads,
  normGroups,
  splitHeads,
  stateBefore,
} from "./mixer.ts";

/** What can be set of Mamba-2; fields that are left out have their defaults. */
export interface Mamba2Settings {
  /** N, width of the state per channel; default the model's */
  readonly stateWidth?: number;
  /** Width of all heads together. Default 2 M */
  readonly innerWidth?: number;
  /** P, width of a head. Default 64 */
  readonly headWidth?: number;
  /** How many sets of B and C the heads share. Default 1 */
  readonly groups?: number;
  /** Tokens that the convolution sees. Default 4 */
  readonly convWidth?: number;
  /** Where the output is normed: after its gate as in Mamba-2, before it, or nowhere. Default "after-gate" */
  readonly outputNorm?: "after-gate" | "before-gate" | "none";
}

/** Settings with the sizes of the model around them. */
export interface Mamba2MixerSizes extends Mamba2Settings {
  /** M */
  readonly width: number;
  readonly stateWidth: number;
}

/** Epsilon of the norm inside, whatever that of the model. */
const normEpsilon = 1e-5;

/** The number whose softplus is `value`. */
function inverseSoftplus(value: number): number {
  return value + Math.log(-Math.expm1(-value));
}

/** Biases whose softplus is spread evenly in its logarithm from 0.001 to 0.1. */
export const timeStepInitializer: Initializer = {
  kind: "uniform",
  low: /* @__PURE__ */ Math.log(1e-3),
  high: /* @__PURE__ */ Math.log(0.1),
  transform: (value) => inverseSoftplus(Math.max(Math.exp(value), 1e-4)),
};

/**
 * Mamba-2.
 *
 *     z, xBC, dt = W_in h               x, B, C = silu(conv(xBC))          dt = softplus(dt + dt_bias)
 *     h_t = exp(dt A) h_{t-1} + B (dt x)^T                                 y = C^T h_t + D x
 *     rmsNorm(y * silu(z))
 *
 * with A = -exp(A_log) per head. Starts as the official code does, without its division of the output projection.
 * Source: Dao & Gu 2024, arXiv:2405.21060.
 */
export class Mamba2Mixer implements Mixer {
  /** As given, with defaults filled in. */
  readonly sizes: Required<Mamba2MixerSizes> & {
    /** H, innerWidth / headWidth */
    readonly heads: number;
  };
  /** Under the names of the official code. */
  readonly parameters;
  readonly names = { norm: "norm.weight", output: "mamba.out_proj.weight" };
  readonly innerWidth: number;
  readonly outputInitializer: Initializer;
  readonly isRecurrent = true;

  constructor(sizes: Mamba2MixerSizes) {
    const { width: M, stateWidth: N, innerWidth = 2 * M, headWidth = 64, groups = 1, convWidth = 4 } = sizes;
    const heads = innerWidth / headWidth;
    const { outputNorm = "after-gate" } = sizes;
    this.sizes = { ...sizes, innerWidth, headWidth, groups, convWidth, outputNorm, heads };
    this.innerWidth = innerWidth;
    this.outputInitializer = uniformFor([], innerWidth).initializer;
    const channels = innerWidth + 2 * groups * N;
    this.parameters = {
      "mamba.in_proj.weight": uniformFor([innerWidth + channels + heads, M], M),
      "mamba.conv1d.weight": uniformFor([channels, 1, convWidth], convWidth),
      "mamba.conv1d.bias": uniformFor([channels], convWidth),
      "mamba.dt_bias": { shape: [heads], initializer: timeStepInitializer },
      "mamba.A_log": { shape: [heads], initializer: { kind: "uniform", low: 1, high: 16, transform: Math.log } },
      "mamba.D": filled([heads], 1),
      ...(outputNorm === "none" ? {} : { "mamba.norm.weight": filled([innerWidth], 1) }),
    } as const;
  }

  cacheSpecs(batch: DimLike, _capacity: DimLike) {
    const { innerWidth, groups, stateWidth, convWidth, headWidth, heads } = this.sizes;
    return {
      state: f32(batch, heads, stateWidth, headWidth),
      conv: f32(batch, convWidth - 1, innerWidth + 2 * groups * stateWidth),
    };
  }

  forward(p: ParametersOf<this>, h: Tensor, { cache }: MixerContext): MixerOutput {
    const { innerWidth, groups, stateWidth: N, heads, convWidth } = this.sizes;
    const channels = innerWidth + 2 * groups * N;
    const [B = Dim.of(1), T = Dim.of(1)] = h.shape;
    const projected = linear(h, p["mamba.in_proj.weight"]);
    const [z, convIn, dtIn] = split(projected, { axis: -1, sizes: [innerWidth, channels, heads] });
    const entries = cache && expectEntries("Mamba2Mixer", cache, ["state", "conv"]);

    const before = cache && entries && stateBefore(entries.conv, cache.start);
    const weight = reshape(p["mamba.conv1d.weight"], [channels, convWidth]);
    const mixed = silu(causalConv({ x: convIn, weight, bias: p["mamba.conv1d.bias"], before }));
    const [xIn, bIn, cIn] = split(mixed, { axis: -1, sizes: [innerWidth, groups * N, groups * N] });
    const x = splitHeads(xIn, heads); // [B,T,H,P]
    const dt = countedSteps(softplus(add(dtIn, p["mamba.dt_bias"])), cache); // [B,T,H]

    const ranked = (values: Tensor, count: number) => reshape(values, [B, T, 1, count, values.shape.at(-1) ?? 1]);
    const scanned = ssdScan({
      x: ranked(mul(x, reshape(dt, [B, T, heads, 1])), heads),
      b: ranked(splitHeads(bIn, groups), groups),
      c: ranked(splitHeads(cIn, groups), groups),
      logDecay: mul(dt, neg(exp(p["mamba.A_log"]))),
      state: cache && entries && stateBefore(entries.state, cache.start),
    });
    const y = add(reshape(scanned.value, x.shape), mul(x, reshape(p["mamba.D"], [heads, 1])));
    const value = this.#gate(p, mergeHeads(y), z);
    if (!cache || !before) return { value, cache: {} };
    return { value, cache: { state: scanned.state, conv: lastRows(before, convIn, cache) } };
  }

  /** y * silu(z), normed; groups are normed one by one. */
  #gate(p: ParametersOf<this>, y: Tensor, z: Tensor): Tensor {
    const { groups, outputNorm } = this.sizes;
    const weight = p["mamba.norm.weight"];
    if (outputNorm === "none" || weight === undefined) return swiglu(z, y);
    const norm = (x: Tensor) => normGroups(x, weight, groups, normEpsilon);
    return outputNorm === "after-gate" ? norm(swiglu(z, y)) : swiglu(z, norm(y));
  }
}
