// Multi-head SISA: attention whose score carries the importance signal of a state space model.

import type { DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { decayAttention } from "../ops/decay-attention.ts";
import { decaySpan } from "../ops/decay-span.ts";
import { linear } from "../ops/linear.ts";
import { neg } from "../ops/neg.ts";
import { rope } from "../ops/rope.ts";
import { type SisaForm, sisaAttention } from "../ops/sisa-attention.ts";
import { softplus } from "../ops/softplus.ts";
import { ssmPrepare } from "../ops/ssm-prepare.ts";
import { f32 } from "../spec.ts";
import { filled, normal, type ParametersOf } from "./layer.ts";
import {
  expectEntries,
  type Mixer,
  type MixerContext,
  type MixerOutput,
  mergeHeads,
  rowBefore,
  splitHeads,
} from "./mixer.ts";

export interface SisaMixerSizes {
  /** M, a multiple of heads */
  readonly width: number;
  readonly heads: number;
  /** S, width per head of the read and write vectors; even */
  readonly stateWidth: number;
  readonly form: SisaForm;
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
  readonly sizes: SisaMixerSizes;
  readonly parameters;
  readonly names = { norm: "attn_norm.weight", output: "W_O.weight" };
  readonly innerWidth: number;
  readonly outputInitializer = { kind: "normal", deviation: 0.02 } as const;
  readonly isRecurrent = false;

  constructor(sizes: SisaMixerSizes) {
    const { width: M, heads: H, stateWidth: S } = sizes;
    this.sizes = sizes;
    this.innerWidth = M;
    this.parameters = {
      "W_Q.weight": normal([M, M], 0.02),
      "W_K.weight": normal([M, M], 0.02),
      "W_V.weight": normal([M, M], 0.02),
      "W_B.weight": normal([H * S, M], 0.02),
      "W_C.weight": normal([H * S, M], 0.02),
      "theta_proj.weight": normal([(H * S) / 2, M], 0.01),
      "alpha_proj.weight": normal([H, M], 0.02),
      "alpha_proj.bias": filled([H], -5),
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
    const { heads, width, form } = this.sizes;
    const { cos, sin } = context.rope(width / heads);
    const project = (weight: Tensor) => splitHeads(linear(h, weight), heads);
    const q = rope(project(p["W_Q.weight"]), cos, sin); // [B,T,H,D]
    const k = rope(project(p["W_K.weight"]), cos, sin);
    const v = project(p["W_V.weight"]);
    const b = project(p["W_B.weight"]); // [B,T,H,S]
    const c = project(p["W_C.weight"]);
    const phase = project(p["theta_proj.weight"]); // [B,T,H,S/2]
    const logDecay = neg(softplus(linear(h, p["alpha_proj.weight"], p["alpha_proj.bias"]))); // [B,T,H]
    const lambda = softplus(p.lambda_raw);
    const { cache } = context;
    if (!cache) {
      return { value: mergeHeads(sisaAttention({ q, k, v, c, b, logDecay, phase, lambda }, { form })), cache: {} };
    }
    const { start } = cache;
    const entries = expectEntries("SisaMixer", cache, ["key", "value", "importance", "decay", "phase"]);
    const prepared = ssmPrepare({
      c,
      b,
      logDecay,
      phase,
      gBefore: rowBefore(entries.decay, start),
      phaseBefore: rowBefore(entries.phase, start),
      start,
    });
    const written = {
      key: cacheWrite(entries.key, k, start),
      value: cacheWrite(entries.value, v, start),
      importance: cacheWrite(entries.importance, prepared.bRotated, start),
      decay: cacheWrite(entries.decay, prepared.g, start),
      phase: cacheWrite(entries.phase, prepared.phi, start),
    };
    const y = decayAttention({
      q,
      k: written.key,
      v: written.value,
      cRotated: prepared.cRotated,
      bRotated: written.importance,
      gQuery: prepared.g,
      gKey: written.decay,
      lambda,
      queryStart: start,
    });
    const result = { value: mergeHeads(y), cache: written };
    return form === "sdpa" ? { ...result, decaySpan: decaySpan(prepared.g, written.decay, start) } : result;
  }
}
