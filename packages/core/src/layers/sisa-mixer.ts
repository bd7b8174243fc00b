// Multi-head SISA: attention whose score carries the importance signal of a state space model.

import { Dim, type DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { constant } from "../ops/constant.ts";
import { decayAttention } from "../ops/decay-attention.ts";
import { decaySpan } from "../ops/decay-span.ts";
import { dimSize } from "../ops/dim-size.ts";
import { linear } from "../ops/linear.ts";
import { neg } from "../ops/neg.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { rope } from "../ops/rope.ts";
import { sigmoidDecayAttention } from "../ops/sigmoid-decay-attention.ts";
import { type SisaForm, type SisaWeights, sisaAttention } from "../ops/sisa-attention.ts";
import { softplus } from "../ops/softplus.ts";
import { ssmPrepare } from "../ops/ssm-prepare.ts";
import { f32 } from "../spec.ts";
import { filled, normal, type Parameter, type ParametersOf } from "./layer.ts";
import {
  allRows,
  expectEntries,
  type Mixer,
  type MixerContext,
  type MixerOutput,
  mergeHeads,
  rowBefore,
  splitHeads,
} from "./mixer.ts";

/** What the paper leaves open. */
export interface SisaSettings {
  /** S; default the model's */
  readonly stateWidth?: number;
  /** Whether content queries and keys are rotated by position. Default "rope" */
  readonly positions?: "rope" | "none";
  /** Decay of every token, one per head whatever the token, or none. Default "learned" */
  readonly decay?: "learned" | "constant" | "none";
  /** What makes weights of scores: softmax over all, or a sigmoid of each (see sigmoidDecayAttention). Default "softmax" */
  readonly weights?: SisaWeights;
  /** Whether read and write vectors are rotated by the data. Default true */
  readonly rotation?: boolean;
  /** Norm read and write vectors head by head. Default false */
  readonly normalize?: boolean;
  /** Spread the first half-lives of heads from 1 to this many tokens, evenly in their logarithm. Default 103 for all */
  readonly longestHalfLife?: number;
}

/** Settings with the sizes of the model around them. */
export interface SisaMixerSizes extends SisaSettings {
  /** M, a multiple of heads */
  readonly width: number;
  /** H */
  readonly heads: number;
  /** S, width per head of the read and write vectors; even */
  readonly stateWidth: number;
  /** How the score is computed in a full pass; cached decoding is always exact. */
  readonly form: SisaForm;
  /** Added under the root of norms */
  readonly normEpsilon: number;
}

/**
 * Multi-head SISA.
 *
 * | here | paper |
 * |---|---|
 * | W_C, W_B | read and write projections C, B |
 * | logDecay | log alpha_t = -softplus(w_alpha x + b_alpha) |
 * | phase | theta_t = W_theta x |
 * | lambda | lambda_h = softplus(lambda_raw) |
 *
 * Initial half-life: ln 2 / softplus(-5) = 103 tokens. lambda starts at softplus(-1) = 0.3133.
 * Source: arXiv:2606.02332.
 */
export class SisaMixer implements Mixer {
  /** As given. */
  readonly sizes: SisaMixerSizes;
  /**
   * W_Q, W_K and W_V [M,M], W_B and W_C [H*S,M], lambda_raw [H]; those of decay, rotation and norms by the settings.
   */
  readonly parameters: {
    readonly [N in "W_Q.weight" | "W_K.weight" | "W_V.weight" | "W_B.weight" | "W_C.weight" | "lambda_raw"]: Parameter;
  } & { readonly [optional: string]: Parameter };
  readonly names = { norm: "attn_norm.weight", output: "W_O.weight" };
  readonly innerWidth: number;
  readonly outputInitializer = { kind: "normal", deviation: 0.02 } as const;
  readonly isRecurrent = false;

  constructor(sizes: SisaMixerSizes) {
    const { width: M, heads: H, stateWidth: S, decay = "learned", rotation = true, longestHalfLife } = sizes;
    const bias = longestHalfLife === undefined ? filled([H], -5) : halfLives(H, longestHalfLife);
    this.sizes = sizes;
    this.innerWidth = M;
    this.parameters = {
      "W_Q.weight": normal([M, M], 0.02),
      "W_K.weight": normal([M, M], 0.02),
      "W_V.weight": normal([M, M], 0.02),
      "W_B.weight": normal([H * S, M], 0.02),
      "W_C.weight": normal([H * S, M], 0.02),
      ...(rotation ? { "theta_proj.weight": normal([(H * S) / 2, M], 0.01) } : {}),
      ...(decay === "learned" ? { "alpha_proj.weight": normal([H, M], 0.02) } : {}),
      ...(decay === "none" ? {} : { "alpha_proj.bias": bias }),
      ...(sizes.normalize ? { "B_norm.weight": filled([S], 1), "C_norm.weight": filled([S], 1) } : {}),
      lambda_raw: { ...filled([H], -1), learningRateFactor: 0.1, weightDecay: false },
    };
  }

  cacheSpecs(batch: DimLike, capacity: DimLike) {
    const { width, heads, stateWidth } = this.sizes;
    const perHead = f32(batch, capacity, heads, width / heads);
    return {
      key: perHead,
      value: perHead,
      importance: f32(batch, capacity, heads, stateWidth),
      decay: f32(batch, capacity, heads),
      phase: f32(batch, capacity, heads, stateWidth / 2),
    };
  }

  forward(p: ParametersOf<this>, h: Tensor, context: MixerContext): MixerOutput {
    const { heads, width, form, stateWidth, positions = "rope", weights = "softmax", normEpsilon } = this.sizes;
    const [B = Dim.of(1), T = Dim.of(1)] = h.shape;
    const project = (weight: Tensor) => splitHeads(linear(h, weight), heads);
    const content = (weight: Tensor) => {
      if (positions === "none") return project(weight);
      const { cos, sin } = context.rope(width / heads);
      return rope(project(weight), cos, sin);
    };
    const vectors = (weight: Tensor, norm: Tensor | undefined) =>
      norm ? rmsNorm(project(weight), norm, { epsilon: normEpsilon }) : project(weight);
    const zeros = (...shape: readonly DimLike[]) => broadcastTo(constant(0), shape);
    const q = content(p["W_Q.weight"]); // [B,T,H,D]
    const k = content(p["W_K.weight"]);
    const v = project(p["W_V.weight"]);
    const b = vectors(p["W_B.weight"], p["B_norm.weight"]); // [B,T,H,S]
    const c = vectors(p["W_C.weight"], p["C_norm.weight"]);
    const [turn, gate, bias] = [p["theta_proj.weight"], p["alpha_proj.weight"], p["alpha_proj.bias"]];
    const phase = turn ? project(turn) : zeros(B, T, heads, stateWidth / 2); // [B,T,H,S/2]
    const strength = gate ? linear(h, gate, bias) : bias && broadcastTo(bias, [B, T, heads]);
    const logDecay = strength ? neg(softplus(strength)) : zeros(B, T, heads); // [B,T,H]
    const lambda = softplus(p.lambda_raw);
    const { cache } = context;
    if (!cache) {
      const y = sisaAttention({ q, k, v, c, b, logDecay, phase, lambda }, { form, weights });
      return { value: mergeHeads(y), cache: {} };
    }
    const { start, pages } = cache;
    const entries = expectEntries("SisaMixer", cache, ["key", "value", "importance", "decay", "phase"]);
    const prepared = ssmPrepare({
      c,
      b,
      logDecay,
      phase,
      gBefore: rowBefore(entries.decay, cache),
      phaseBefore: rowBefore(entries.phase, cache),
      start,
    });
    const written = {
      key: cacheWrite(entries.key, k, start, pages),
      value: cacheWrite(entries.value, v, start, pages),
      importance: cacheWrite(entries.importance, prepared.bRotated, start, pages),
      decay: cacheWrite(entries.decay, prepared.g, start, pages),
      phase: cacheWrite(entries.phase, prepared.phi, start, pages),
    };
    const queries = { q, cRotated: prepared.cRotated, gQuery: prepared.g, lambda, queryStart: start };
    const keys = { k: written.key, v: written.value, bRotated: written.importance, gKey: written.decay };
    const all = (entry: Tensor) => allRows(entry, cache, dimSize(h, 1));
    const y =
      weights === "softmax"
        ? decayAttention({ ...queries, ...keys, pages })
        : sigmoidDecayAttention({
            ...queries,
            ...{ k: all(keys.k), v: all(keys.v), bRotated: all(keys.bRotated), gKey: all(keys.gKey) },
          });
    const result = { value: mergeHeads(y), cache: written };
    return form === "sdpa" ? { ...result, decaySpan: decaySpan(prepared.g, all(written.decay), start) } : result;
  }
}

/** Biases of the decay for half-lives from 1 token to the longest, evenly in their logarithm. */
function halfLives(heads: number, longest: number): Parameter {
  const at = (head: number) => {
    const halfLife = longest ** (heads === 1 ? 1 : head / (heads - 1));
    // The number whose softplus is ln 2 / half-life.
    return Math.log(Math.expm1(Math.LN2 / halfLife));
  };
  return { shape: [heads], initializer: { kind: "placed", at } };
}
