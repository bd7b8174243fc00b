// Multi-head causal attention and its relatives: the mixer of the Transformer that SISA is compared with, of FoX, and of
// models with windows or without rotary positions.

import { Dim, type DimLike } from "../dim.ts";
import { GraphError } from "../errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { attention } from "../ops/attention.ts";
import { blockCumulativeSum } from "../ops/block-cumulative-sum.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { cast } from "../ops/cast.ts";
import { concat } from "../ops/concat.ts";
import { constant } from "../ops/constant.ts";
import { dimSize } from "../ops/dim-size.ts";
import { floorDiv } from "../ops/floor-div.ts";
import { forgettingAttention } from "../ops/forgetting-attention.ts";
import { iota } from "../ops/iota.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { pad } from "../ops/pad.ts";
import { reshape } from "../ops/reshape.ts";
import { rope } from "../ops/rope.ts";
import { sigmoid } from "../ops/sigmoid.ts";
import { slice } from "../ops/slice.ts";
import { softplus } from "../ops/softplus.ts";
import { decayBlock } from "../ops/ssm-prepare.ts";
import { sub } from "../ops/sub.ts";
import { f32, type TensorSpec } from "../spec.ts";
import { filled, normal, type Parameter, type ParametersOf } from "./layer.ts";
import {
  allRows,
  expectEntries,
  lastRows,
  type Mixer,
  type MixerCache,
  type MixerContext,
  type MixerOutput,
  mergeHeads,
  normGroups,
  repeatHeads,
  rowBefore,
  splitHeads,
  stateBefore,
} from "./mixer.ts";

/** What can be set of attention; fields that are left out have their defaults. */
export interface AttentionSettings {
  /** Heads of keys and values, which neighbouring heads of queries share. Default as many as queries have */
  readonly keyValueHeads?: number;
  /** Width of a head's values. Default M / heads */
  readonly headWidth?: number;
  /** Width of a head's queries and keys. Default headWidth */
  readonly keyWidth?: number;
  /** How positions enter: rotation, a penalty by distance, or not at all. Default "rope" */
  readonly positions?: "rope" | "alibi" | "none";
  /** Tokens that each token sees, itself included. Default all */
  readonly window?: number;
  /** Scores forget by gates of every token between, as in FoX. Default false */
  readonly forget?: boolean;
  /** Norm queries and keys, head by head, with epsilon 1e-5. Default false */
  readonly queryKeyNorm?: boolean;
  /** Mix each key and value with that of the token before, as in FoX Pro. Default false */
  readonly shift?: boolean;
  /** Norm the output head by head and gate it, as in FoX Pro. Default false */
  readonly outputGate?: boolean;
  /** Attend to the keys and values of the nearest layer before that has its own, as in Hymba. Default false */
  readonly reuseKeys?: boolean;
}

/** Settings with the sizes of the model around them. */
export interface AttentionMixerSizes extends AttentionSettings {
  /** M */
  readonly width: number;
  /** H, heads of queries; a multiple of keyValueHeads */
  readonly heads: number;
  /** Added under the root of norms */
  readonly normEpsilon: number;
}

/** Epsilon of the norms of queries and keys, whatever that of the model, as in the code of FoX. */
const queryKeyEpsilon = 1e-5;

/**
 * Multi-head attention.
 * attention(rope(W_Q h), rope(W_K h), W_V h)
 *
 * FoX is `{ positions: "none", forget: true }`; FoX Pro has queryKeyNorm, shift and outputGate besides. The forget gate is
 * sigmoid(W_F h + b_F), and starts at a half.
 * Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864; Lin et al. 2025, arXiv:2503.02130.
 */
export class AttentionMixer implements Mixer {
  /** As given, with defaults filled in. */
  readonly sizes: AttentionMixerSizes & {
    /** G, heads of keys and values */
    readonly keyValueHeads: number;
    /** E, width of a head's values */
    readonly headWidth: number;
    /** D, width of a head's queries and keys */
    readonly keyWidth: number;
    /** How positions enter */
    readonly positions: "rope" | "alibi" | "none";
  };
  /** W_Q [H*D,M]; W_K [G*D,M] and W_V [G*E,M] unless keys are reused; others by the settings. */
  readonly parameters: { readonly [N in "W_Q.weight"]: Parameter } & { readonly [optional: string]: Parameter };
  readonly names = { norm: "attn_norm.weight", output: "W_O.weight" };
  readonly innerWidth: number;
  readonly outputInitializer = { kind: "normal", deviation: 0.02 } as const;
  /** Only the newest key and value before their mixing are kept. */
  readonly isRecurrent: boolean;

  constructor(sizes: AttentionMixerSizes) {
    const { width: M, heads: H, keyValueHeads: G = H, headWidth = M / H, keyWidth = headWidth } = sizes;
    this.sizes = { ...sizes, keyValueHeads: G, headWidth, keyWidth, positions: sizes.positions ?? "rope" };
    this.innerWidth = H * headWidth;
    this.isRecurrent = sizes.shift ?? false;
    this.parameters = {
      "W_Q.weight": normal([H * keyWidth, M], 0.02),
      ...(sizes.reuseKeys
        ? {}
        : { "W_K.weight": normal([G * keyWidth, M], 0.02), "W_V.weight": normal([G * headWidth, M], 0.02) }),
      ...(sizes.forget ? { "W_F.weight": normal([H, M], 0.02), "W_F.bias": filled([H], 0) } : {}),
      ...(sizes.shift ? { "k_shift.weight": normal([G, M], 0.02), "v_shift.weight": normal([G, M], 0.02) } : {}),
      ...(sizes.queryKeyNorm
        ? {
            "q_norm.weight": filled([H * keyWidth], 1),
            ...(sizes.reuseKeys ? {} : { "k_norm.weight": filled([G * keyWidth], 1) }),
          }
        : {}),
      ...(sizes.outputGate
        ? { "out_norm.weight": filled([H * headWidth], 1), "out_gate.weight": normal([H * headWidth, M], 0.02) }
        : {}),
    };
  }

  cacheSpecs(batch: DimLike, capacity: DimLike): { readonly [name: string]: TensorSpec<"float"> } {
    const { heads, keyValueHeads: G, headWidth, keyWidth, forget, shift, reuseKeys } = this.sizes;
    return {
      ...(reuseKeys ? {} : { key: f32(batch, capacity, G, keyWidth), value: f32(batch, capacity, G, headWidth) }),
      ...(forget ? { gate: f32(batch, capacity, heads) } : {}),
      ...(shift ? { lastKey: f32(batch, 1, G, keyWidth), lastValue: f32(batch, 1, G, headWidth) } : {}),
    };
  }

  forward(p: ParametersOf<this>, h: Tensor, context: MixerContext): MixerOutput {
    const { heads, keyValueHeads, keyWidth, positions, window, forget } = this.sizes;
    const { cache } = context;
    const written: Record<string, Tensor> = {};
    const prepared = (x: Tensor, norm: Tensor | undefined, groups: number) => {
      const normed = norm ? splitHeads(normGroups(mergeHeads(x), norm, groups, queryKeyEpsilon), groups) : x;
      if (positions !== "rope") return normed;
      const { cos, sin } = context.rope(keyWidth);
      return rope(normed, cos, sin);
    };
    const keep = (name: string, update: Tensor) => {
      const entry = cache?.entries[name];
      if (!cache || !entry) return update;
      written[name] = cacheWrite(entry, update, cache.start, cache.pages);
      return written[name];
    };
    const q = prepared(splitHeads(linear(h, p["W_Q.weight"]), heads), p["q_norm.weight"], heads); // [B,T,H,D]
    const [keyWeight, valueWeight] = [p["W_K.weight"], p["W_V.weight"]];
    let keyValues = context.keyValues;
    if (keyWeight && valueWeight) {
      if (cache) expectEntries("AttentionMixer", cache, ["key", "value"]);
      const shifted = (name: "k" | "v", weight: Tensor) =>
        this.#shift(p, h, name, splitHeads(linear(h, weight), keyValueHeads), cache, written);
      keyValues = {
        k: keep("key", prepared(shifted("k", keyWeight), p["k_norm.weight"], keyValueHeads)),
        v: keep("value", shifted("v", valueWeight)),
      };
    }
    if (!keyValues) throw new GraphError("AttentionMixer: reuseKeys needs a layer before that has keys");
    const isPlain = window === undefined && !forget && positions !== "alibi";
    // Plain attention reads pages where they lie.
    const pages = isPlain && heads === keyValueHeads ? cache?.pages : undefined;
    const rows = (x: Tensor) => (cache && !pages ? allRows(x, cache, dimSize(h, 1)) : x);
    const repeated = (x: Tensor) => repeatHeads(rows(x), heads / keyValueHeads);
    const inputs = { q, k: repeated(keyValues.k), v: repeated(keyValues.v), queryStart: cache?.start };
    const sums = this.#sums(p, h, inputs.k, cache, (name, update) => rows(keep(name, update)));
    const y = isPlain
      ? attention({ ...inputs, pages })
      : forgettingAttention({ ...inputs, ...sums }, { window, sinks: context.metaTokens });
    return { value: this.#gated(p, h, mergeHeads(y)), cache: written, keyValues };
  }

  /** Each key (or value) mixed with that of the token before: a x_{t-1} + (1 - a) x_t, a = sigmoid(W_shift h). */
  #shift(
    p: ParametersOf<this>,
    h: Tensor,
    name: "k" | "v",
    x: Tensor,
    cache: MixerCache | undefined,
    written: Record<string, Tensor>,
  ): Tensor {
    const weight = p[`${name}_shift.weight`];
    if (!weight) return x;
    const entry = name === "k" ? "lastKey" : "lastValue";
    const T = x.shape[1] ?? Dim.of(0);
    const before = cache && stateBefore(expectEntries("AttentionMixer", cache, [entry])[entry], cache.start);
    if (cache && before) written[entry] = lastRows(before, x, cache);
    const rows = before ? concat([before, x], { axis: 1 }) : pad(x, { axis: 1, before: 1 });
    const previous = slice(rows, { axis: 1, end: T });
    const share = sigmoid(linear(h, weight)); // [B,T,G]
    return add(x, mul(reshape(share, [...share.shape, 1]), sub(previous, x)));
  }

  /** Sums of log forget gates within blocks: learned ones, or those of ALiBi, which are the same for every token. */
  #sums(
    p: ParametersOf<this>,
    h: Tensor,
    k: Tensor,
    cache: MixerCache | undefined,
    keep: (name: string, update: Tensor) => Tensor,
  ): { readonly gQuery: Tensor; readonly gKey: Tensor } | undefined {
    const { heads, positions, forget } = this.sizes;
    const [weight, bias] = [p["W_F.weight"], p["W_F.bias"]];
    if (forget && weight && bias) {
      const logGate = neg(softplus(neg(linear(h, weight, bias)))); // log sigmoid, [B,T,H]
      const entry = cache && expectEntries("AttentionMixer", cache, ["gate"]).gate;
      const before = cache && entry ? { before: rowBefore(entry, cache), start: cache.start } : {};
      const gQuery = blockCumulativeSum({ x: logGate, ...before }, { size: decayBlock });
      return { gQuery, gKey: keep("gate", gQuery) };
    }
    if (positions !== "alibi") return undefined;
    const [B = Dim.of(1), T = Dim.of(1)] = h.shape;
    const C = k.shape[1] ?? Dim.of(1);
    const slopes = constant(
      alibiSlopes(heads).map((slope) => -slope),
      "float32",
      [heads],
    );
    // A position p is the (p mod 64 + 1)th of its block.
    const sumAt = (position: Tensor<"int">) => {
      const inBlock = sub<"int">(position, mul<"int">(floorDiv(position, decayBlock), decayBlock));
      const count = cast(add<"int">(inBlock, 1), "float32");
      return mul(reshape(count, [...count.shape, 1]), slopes);
    };
    const query = cache ? add<"int">(iota(T), reshape(cache.start, [B, 1])) : reshape(iota(T), [1, T]);
    const spread = (sums: Tensor, length: Dim) => broadcastTo(sums, [B, length, heads]);
    return { gQuery: spread(sumAt(query), T), gKey: spread(sumAt(reshape(iota(C), [1, C])), C) };
  }

  /** y normed head by head, times sigmoid(W_gate h). */
  #gated(p: ParametersOf<this>, h: Tensor, y: Tensor): Tensor {
    const { heads, normEpsilon } = this.sizes;
    const [norm, gate] = [p["out_norm.weight"], p["out_gate.weight"]];
    if (!norm || !gate) return y;
    return mul(normGroups(y, norm, heads, normEpsilon), sigmoid(linear(h, gate)));
  }
}

/** [H] by how much a score of each head falls with every token of distance. Source: Press et al. 2021, arXiv:2108.12409. */
export function alibiSlopes(heads: number): Float32Array {
  return Float32Array.from({ length: heads }, (_, head) => 2 ** ((-8 * (head + 1)) / heads));
}
