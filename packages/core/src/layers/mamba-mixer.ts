// Mamba-1: a selective state space model with a decay for every channel and state.

import { Dim, type DimLike } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { causalConv } from "../ops/causal-conv.ts";
import { exp } from "../ops/exp.ts";
import { linear } from "../ops/linear.ts";
import { linearScan } from "../ops/linear-scan.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { silu } from "../ops/silu.ts";
import { slice } from "../ops/slice.ts";
import { softplus } from "../ops/softplus.ts";
import { split } from "../ops/split.ts";
import { sum } from "../ops/sum.ts";
import { swiglu } from "../ops/swiglu.ts";
import { f32 } from "../spec.ts";
import { filled, type Initializer, type Parameter, type ParametersOf, uniformFor } from "./layer.ts";
import { timeStepInitializer } from "./mamba2-mixer.ts";
import {
  countedSteps,
  expectEntries,
  lastRows,
  type Mixer,
  type MixerContext,
  type MixerOutput,
  stateBefore,
} from "./mixer.ts";

/** What can be set of Mamba-1; fields that are left out have their defaults. */
export interface MambaSettings {
  /** N, states per channel; default the model's */
  readonly stateWidth?: number;
  /** Channels. Default 2 M */
  readonly innerWidth?: number;
  /** Width of what time steps are projected from. Default M / 16, rounded up */
  readonly stepWidth?: number;
  /** Tokens that the convolution sees. Default 4 */
  readonly convWidth?: number;
  /** Norm time step, B and C, as Jamba does. Default false */
  readonly normalize?: boolean;
}

/** Settings with the sizes of the model around them. */
export interface MambaMixerSizes extends MambaSettings {
  /** M */
  readonly width: number;
  readonly stateWidth: number;
  /** Added under the root of norms */
  readonly normEpsilon: number;
}

/**
 * Mamba-1.
 *
 *     x, z = W_in h        x = silu(conv(x))        s, B, C = W_x x        dt = softplus(W_dt s + bias)
 *     h_t = exp(dt A) h_{t-1} + dt B x        y = C . h_t + D x            y * silu(z)
 *
 * with A = -exp(A_log) for every channel and state, which starts at -1, ..., -N.
 * Source: Gu & Dao 2023, arXiv:2312.00752; norms as in Jamba, arXiv:2403.19887.
 */
export class MambaMixer implements Mixer {
  /** As given, with defaults filled in. */
  readonly sizes: Required<MambaMixerSizes>;
  /** Under the names of the official code; those of norms with `normalize`. */
  readonly parameters: {
    readonly [N in
      | "mamba.in_proj.weight"
      | "mamba.conv1d.weight"
      | "mamba.conv1d.bias"
      | "mamba.x_proj.weight"
      | "mamba.dt_proj.weight"
      | "mamba.dt_proj.bias"
      | "mamba.A_log"
      | "mamba.D"]: Parameter;
  } & { readonly [optional: string]: Parameter };
  readonly names = { norm: "norm.weight", output: "mamba.out_proj.weight" };
  readonly innerWidth: number;
  readonly outputInitializer: Initializer;
  readonly isRecurrent = true;

  constructor(sizes: MambaMixerSizes) {
    const { width: M, stateWidth: N, innerWidth = 2 * M, stepWidth = Math.ceil(M / 16), convWidth = 4 } = sizes;
    const { normalize = false } = sizes;
    this.sizes = { ...sizes, innerWidth, stepWidth, convWidth, normalize };
    this.innerWidth = innerWidth;
    this.outputInitializer = uniformFor([], innerWidth).initializer;
    this.parameters = {
      "mamba.in_proj.weight": uniformFor([2 * innerWidth, M], M),
      "mamba.conv1d.weight": uniformFor([innerWidth, 1, convWidth], convWidth),
      "mamba.conv1d.bias": uniformFor([innerWidth], convWidth),
      "mamba.x_proj.weight": uniformFor([stepWidth + 2 * N, innerWidth], innerWidth),
      "mamba.dt_proj.weight": uniformFor([innerWidth, stepWidth], stepWidth),
      "mamba.dt_proj.bias": { shape: [innerWidth], initializer: timeStepInitializer },
      "mamba.A_log": {
        shape: [innerWidth, N],
        initializer: { kind: "placed", at: (index) => Math.log((index % N) + 1) },
      },
      "mamba.D": filled([innerWidth], 1),
      ...(normalize
        ? {
            "mamba.dt_layernorm.weight": filled([stepWidth], 1),
            "mamba.b_layernorm.weight": filled([N], 1),
            "mamba.c_layernorm.weight": filled([N], 1),
          }
        : {}),
    };
  }

  cacheSpecs(batch: DimLike, _capacity: DimLike) {
    const { innerWidth, stateWidth, convWidth } = this.sizes;
    return { state: f32(batch, innerWidth, stateWidth), conv: f32(batch, convWidth - 1, innerWidth) };
  }

  forward(p: ParametersOf<this>, h: Tensor, { cache }: MixerContext): MixerOutput {
    const { innerWidth: I, stateWidth: N, stepWidth, convWidth, normEpsilon } = this.sizes;
    const [B = Dim.of(1), T = Dim.of(1)] = h.shape;
    const entries = cache && expectEntries("MambaMixer", cache, ["state", "conv"]);
    const [convIn, z] = split(linear(h, p["mamba.in_proj.weight"]), { axis: -1, sizes: [I, I] });
    const before = cache && entries && stateBefore(entries.conv, cache.start);
    const weight = reshape(p["mamba.conv1d.weight"], [I, convWidth]);
    const x = silu(causalConv({ x: convIn, weight, bias: p["mamba.conv1d.bias"], before }));

    const normed = (values: Tensor, name: string) => {
      const norm = p[`mamba.${name}_layernorm.weight`];
      return norm ? rmsNorm(values, norm, { epsilon: normEpsilon }) : values;
    };
    const [stepIn, bIn, cIn] = split(linear(x, p["mamba.x_proj.weight"]), { axis: -1, sizes: [stepWidth, N, N] });
    const steps = softplus(linear(normed(stepIn, "dt"), p["mamba.dt_proj.weight"], p["mamba.dt_proj.bias"]));
    const dt = countedSteps(steps, cache); // [B,T,I]
    const perChannel = (values: Tensor) => reshape(values, [B, T, I, 1]);
    const perState = (values: Tensor) => reshape(values, [B, T, 1, N]);
    const states = linearScan({
      a: exp(mul(perChannel(dt), neg(exp(p["mamba.A_log"])))),
      b: mul(perChannel(mul(dt, x)), perState(normed(bIn, "b"))),
      h0: cache && entries && stateBefore(entries.state, cache.start),
    }); // [B,T,I,N]
    const read = sum(mul(states, perState(normed(cIn, "c"))), { axes: [-1] });
    const value = swiglu(z, add(read, mul(x, p["mamba.D"])));
    if (!cache || !before) return { value, cache: {} };
    const last = reshape(slice(states, { axis: 1, start: T.minus(1) }), [B, I, N]);
    return { value, cache: { state: last, conv: lastRows(before, convIn, cache) } };
  }
}
