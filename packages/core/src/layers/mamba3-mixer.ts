// Mamba-3: a state space model with a trapezoidal rule, a rotation that depends on the data, and optional ranks.

import { Dim, type DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { concat } from "../ops/concat.ts";
import { cumulativePhase } from "../ops/cumulative-phase.ts";
import { div } from "../ops/div.ts";
import { less } from "../ops/less.ts";
import { linear } from "../ops/linear.ts";
import { matmul } from "../ops/matmul.ts";
import { maximum } from "../ops/maximum.ts";
import { minimum } from "../ops/minimum.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { pad } from "../ops/pad.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { rotate } from "../ops/rotate.ts";
import { sigmoid } from "../ops/sigmoid.ts";
import { slice } from "../ops/slice.ts";
import { softplus } from "../ops/softplus.ts";
import { split } from "../ops/split.ts";
import { ssdScan } from "../ops/ssd-scan.ts";
import { sub } from "../ops/sub.ts";
import { sum } from "../ops/sum.ts";
import { swiglu } from "../ops/swiglu.ts";
import { tanh } from "../ops/tanh.ts";
import { transpose } from "../ops/transpose.ts";
import { where } from "../ops/where.ts";
import { f32 } from "../spec.ts";
import { filled, type Initializer, type Parameter, type ParametersOf, uniformFor } from "./layer.ts";
import { timeStepInitializer } from "./mamba2-mixer.ts";
import {
  countedSteps,
  expectEntries,
  lastRows,
  type Mixer,
  type MixerCache,
  type MixerContext,
  type MixerOutput,
  mergeHeads,
  normGroups,
  splitHeads,
  stateBefore,
} from "./mixer.ts";

/** What can be set of Mamba-3; fields that are left out have their defaults. */
export interface Mamba3Settings {
  /** N, width of the state per channel, a multiple of 4; default the model's */
  readonly stateWidth?: number;
  /** Width of all heads together. Default 2 M */
  readonly innerWidth?: number;
  /** P, width of a head. Default 64 */
  readonly headWidth?: number;
  /** How many sets of B and C the heads share. Default 1 */
  readonly groups?: number;
  /** R, how many pairs of vectors a step writes and reads: 1 is SISO, more are MIMO. Default 1 */
  readonly rank?: number;
  /** What the decay comes from: softplus as in the paper, or the later 1 + x and 1 / (1 - x). Default "softplus" */
  readonly decay?: "softplus" | "heavy-tail";
  /** Norm each head of the output before its gate. Default false */
  readonly outputNorm?: boolean;
}

/** Settings with the sizes of the model around them. */
export interface Mamba3MixerSizes extends Mamba3Settings {
  /** M */
  readonly width: number;
  readonly stateWidth: number;
}

const normEpsilon = 1e-5;
/** The decay is at least this per unit of time. */
const decayFloor = 1e-4;

/** What all heads read and write at each token. */
interface Prepared {
  /** [B,T,R,H,N] rotated */
  readonly q: Tensor;
  readonly k: Tensor;
  /** [B,T,R,H,P] */
  readonly v: Tensor;
  /** [B,T,H] */
  readonly dt: Tensor;
  readonly logDecay: Tensor;
  /** [B,T,H] weight of the token itself; the rest of dt goes to the token before */
  readonly trapezoid: Tensor;
  /** [B,T,H,angles] */
  readonly phase: Tensor;
}

/**
 * Mamba-3.
 *
 *     h_t = a_t h_{t-1} + (1 - l_t) dt_t a_t k_{t-1} v_{t-1}^T + l_t dt_t k_t v_t^T
 *     y_t = q_t^T h_t + D v_t                                  y * silu(z)
 *
 * with a_t = exp(dt_t A_t), A_t = -f(W_A h), l_t = sigmoid(W_l h); q and k are C and B, normed, with a bias per head, and
 * half of their channels rotated by the running sum of pi tanh(W_angle h) dt. With ranks the products are sums over them.
 * Rotated pairs are neighbours (0,1), (2,3), ... with and without ranks.
 * Source: state-spaces/mamba, mamba_ssm/modules/mamba3.py.
 */
export class Mamba3Mixer implements Mixer {
  /** As given, with defaults filled in. */
  readonly sizes: Required<Mamba3MixerSizes> & {
    /** H, innerWidth / headWidth */
    readonly heads: number;
    /** Pairs of channels that are rotated, a quarter of stateWidth */
    readonly angles: number;
  };
  /** Under the names of the official code. */
  readonly parameters: {
    readonly [N in
      | "mamba.in_proj.weight"
      | "mamba.dt_bias"
      | "mamba.B_norm.weight"
      | "mamba.C_norm.weight"
      | "mamba.B_bias"
      | "mamba.C_bias"
      | "mamba.D"]: Parameter;
  } & { readonly [optional: string]: Parameter };
  readonly names = { norm: "norm.weight", output: "mamba.out_proj.weight" };
  readonly innerWidth: number;
  readonly outputInitializer: Initializer;
  readonly isRecurrent = true;

  constructor(sizes: Mamba3MixerSizes) {
    const { width: M, stateWidth: N, innerWidth = 2 * M, headWidth = 64, groups = 1, rank = 1 } = sizes;
    const { decay = "softplus", outputNorm = false } = sizes;
    const heads = innerWidth / headWidth;
    const angles = N / 4;
    this.sizes = { ...sizes, innerWidth, headWidth, groups, rank, decay, outputNorm, heads, angles };
    this.innerWidth = innerWidth;
    this.outputInitializer = uniformFor([], innerWidth).initializer;
    const projected = 2 * innerWidth + 2 * N * groups * rank + 3 * heads + angles;
    this.parameters = {
      "mamba.in_proj.weight": uniformFor([projected, M], M),
      "mamba.dt_bias": { shape: [heads], initializer: timeStepInitializer },
      "mamba.B_norm.weight": filled([N], 1),
      "mamba.C_norm.weight": filled([N], 1),
      "mamba.B_bias": filled([heads, rank, N], 1),
      "mamba.C_bias": filled([heads, rank, N], 1),
      "mamba.D": filled([heads], 1),
      ...(rank === 1
        ? {}
        : {
            "mamba.mimo_x": filled([heads, rank, headWidth], 1 / rank),
            "mamba.mimo_z": filled([heads, rank, headWidth], 1),
            "mamba.mimo_o": filled([heads, rank, headWidth], 1 / rank),
          }),
      ...(outputNorm ? { "mamba.norm.weight": filled([innerWidth], 1) } : {}),
    };
  }

  cacheSpecs(batch: DimLike, _capacity: DimLike) {
    const { heads, stateWidth, headWidth, rank, angles } = this.sizes;
    return {
      state: f32(batch, heads, stateWidth, headWidth),
      angle: f32(batch, heads, angles),
      lastKey: f32(batch, 1, rank, heads, stateWidth),
      lastValue: f32(batch, 1, rank, heads, headWidth),
    };
  }

  forward(p: ParametersOf<this>, h: Tensor, { cache }: MixerContext): MixerOutput {
    const { innerWidth, heads } = this.sizes;
    const { z, ...inputs } = this.#project(p, h);
    const known = cache && this.#entriesBefore(cache);
    const { q, k, v, dt, logDecay, trapezoid, phase } = this.#prepare(p, inputs, cache, known?.angle);

    const own = mul(trapezoid, dt); // [B,T,H]
    const carried = sub(dt, own);
    // Each write reaches the next token with what that gives to the token before it.
    const next = slice(pad(carried, { axis: 1, after: 1 }), { axis: 1, start: 1 });
    const written = reshape(add(own, next), [...own.shape.slice(0, 2), 1, heads, 1]);
    const scanned = ssdScan(
      {
        x: v,
        b: mul(k, written),
        c: q,
        logDecay,
        state: known && this.#stateWithLast(known, carried),
      },
      { strict: true },
    );
    const y = add(scanned.value, this.#direct({ q, k, v, own, skip: p["mamba.D"] })); // [B,T,R,H,P]
    const value = this.#gate(p, y, splitHeads(z, innerWidth / this.sizes.headWidth));
    if (!cache || !known) return { value, cache: {} };
    const last = (phase.shape[1] ?? Dim.of(1)).minus(1);
    return {
      value,
      cache: {
        state: scanned.state,
        // Padding turns nothing.
        angle: reshape(slice(phase, { axis: 1, start: last }), known.angle.shape),
        lastKey: lastRows(known.lastKey, k, cache),
        lastValue: lastRows(known.lastValue, v, cache),
      },
    };
  }

  #project(p: ParametersOf<this>, h: Tensor) {
    const { innerWidth, groups, rank, stateWidth: N, heads, angles } = this.sizes;
    const sets = N * groups * rank;
    const projected = linear(h, p["mamba.in_proj.weight"]);
    const widths = [innerWidth, innerWidth, sets, sets, heads, heads, heads, angles] as const;
    const [z, x, b, c, dt, decay, trapezoid, angle] = split(projected, { axis: -1, sizes: widths });
    return { z, x, b, c, dt, decay, trapezoid, angle };
  }

  #entriesBefore(cache: MixerCache) {
    const entries = expectEntries("Mamba3Mixer", cache, ["state", "angle", "lastKey", "lastValue"]);
    const { start } = cache;
    return {
      state: stateBefore(entries.state, start),
      angle: stateBefore(entries.angle, start),
      lastKey: stateBefore(entries.lastKey, start),
      lastValue: stateBefore(entries.lastValue, start),
    };
  }

  #prepare(
    p: ParametersOf<this>,
    inputs: { readonly [N in "x" | "b" | "c" | "dt" | "decay" | "trapezoid" | "angle"]: Tensor },
    cache: MixerCache | undefined,
    angleBefore: Tensor | undefined,
  ): Prepared {
    const { heads, headWidth, angles, decay, rank } = this.sizes;
    const [B = Dim.of(1), T = Dim.of(1)] = inputs.x.shape;
    const dt = countedSteps(softplus(add(inputs.dt, p["mamba.dt_bias"])), cache);
    const strength = decay === "softplus" ? softplus(inputs.decay) : heavyTail(inputs.decay);
    const turn = mul(tanh(inputs.angle), Math.PI); // [B,T,angles]
    const speed = mul(reshape(turn, [B, T, 1, angles]), reshape(dt, [B, T, heads, 1]));
    const phase = cumulativePhase({ x: speed, before: angleBefore });
    const x = reshape(inputs.x, [B, T, 1, heads, headWidth]);
    return {
      q: this.#vectors(inputs.c, p["mamba.C_norm.weight"], p["mamba.C_bias"], phase),
      k: this.#vectors(inputs.b, p["mamba.B_norm.weight"], p["mamba.B_bias"], phase),
      v: rank === 1 ? x : mul(x, byRank(p["mamba.mimo_x"] as Tensor)),
      dt,
      logDecay: neg(mul(maximum(strength, decayFloor), dt)),
      trapezoid: sigmoid(inputs.trapezoid),
      phase,
    };
  }

  /** B or C of every head, normed, with its bias, rotated: [B,T,R,H,N]. */
  #vectors(x: Tensor, weight: Tensor, bias: Tensor, phase: Tensor): Tensor {
    const { heads, groups, rank, stateWidth: N, angles } = this.sizes;
    const [B = Dim.of(1), T = Dim.of(1)] = x.shape;
    const normed = rmsNorm(reshape(x, [B, T, rank, groups, N]), weight, { epsilon: normEpsilon });
    const shared = reshape(normed, [B, T, rank, groups, 1, N]);
    const own = add(shared, reshape(byRank(bias), [rank, groups, heads / groups, N]));
    const rows = reshape(own, [B, T, rank * heads, N]);
    const angle = broadcastTo(reshape(phase, [B, T, 1, heads, angles]), [B, T, rank, heads, angles]);
    const [turned, rest] = split(rows, { axis: -1, sizes: [2 * angles, N - 2 * angles] });
    const rotated = rotate(turned, reshape(angle, [B, T, rank * heads, angles]));
    return reshape(concat([rotated, rest], { axis: -1 }), [B, T, rank, heads, N]);
  }

  /** The state before the first token, with what that token gives to the one before it. */
  #stateWithLast(
    known: { readonly state: Tensor; readonly lastKey: Tensor; readonly lastValue: Tensor },
    carried: Tensor,
  ): Tensor {
    const { heads, rank, stateWidth: N, headWidth: P } = this.sizes;
    const [B = Dim.of(1)] = carried.shape;
    const rows = (x: Tensor, width: number) => transpose(reshape(x, [B, rank, heads, width]), [0, 2, 1, 3]);
    const written = matmul(rows(known.lastKey, N), rows(known.lastValue, P), { transposeA: true }); // [B,H,N,P]
    return add(known.state, mul(written, reshape(slice(carried, { axis: 1, end: 1 }), [B, heads, 1, 1])));
  }

  /**
   * What a token reads of its own writes, of weights `own` [B,T,H], and past the state, by `skip` [H].
   * @returns [B,T,R,H,P]
   */
  #direct(parts: { readonly [N in "q" | "k" | "v" | "own" | "skip"]: Tensor }): Tensor {
    const { q, k, v, own } = parts;
    const skip = reshape(parts.skip, [this.sizes.heads, 1]);
    const [B = Dim.of(1), T = Dim.of(1), H = Dim.of(1)] = own.shape;
    if (this.sizes.rank === 1) {
      const score = sum(mul(q, k), { axes: [-1], keepDims: true }); // [B,T,1,H,1]
      return mul(add(mul(score, reshape(own, score.shape)), skip), v);
    }
    const ranksInside = [0, 1, 3, 2, 4];
    const scores = matmul(transpose(q, ranksInside), transpose(k, ranksInside), { transposeB: true }); // [B,T,H,R,R]
    const read = matmul(mul(scores, reshape(own, [B, T, H, 1, 1])), transpose(v, ranksInside));
    return add(transpose(read, ranksInside), mul(v, skip));
  }

  /** y [B,T,R,H,P] times silu(z), summed over the ranks: [B,T,H*P]. */
  #gate(p: ParametersOf<this>, y: Tensor, z: Tensor): Tensor {
    const { rank, heads, headWidth, innerWidth } = this.sizes;
    const [B = Dim.of(1), T = Dim.of(1)] = y.shape;
    const weight = p["mamba.norm.weight"];
    const flat = reshape(y, [B, T, rank, innerWidth]);
    const normed = weight ? normGroups(flat, weight, heads, normEpsilon) : flat;
    const [mimoZ, mimoO] = [p["mamba.mimo_z"], p["mamba.mimo_o"]];
    if (!mimoZ || !mimoO) return swiglu(mergeHeads(z), reshape(normed, [B, T, innerWidth]));
    const gates = mul(reshape(z, [B, T, 1, heads, headWidth]), byRank(mimoZ));
    const gated = mul(swiglu(gates, reshape(normed, y.shape)), byRank(mimoO));
    return mergeHeads(sum(gated, { axes: [2] }));
  }
}

/** [H,R,E] to [R,H,E]. */
function byRank(x: Tensor): Tensor {
  return transpose(x, [1, 0, 2]);
}

/** 1 + x above 0 and 1 / (1 - x) below. */
function heavyTail(x: Tensor): Tensor {
  return where(less(x, 0), div(1, sub(1, minimum(x, 0))), add(x, 1));
}
