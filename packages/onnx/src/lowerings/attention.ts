// Attention with and without an importance term, and attention that forgets. Sequences of known length, as in training, go tile by tile; caches and
// lengths that are not known have a way of their own.

import {
  attentionBackwardOp,
  attentionOp,
  Dim,
  decayAttentionBackwardOp,
  decayAttentionOp,
  decayBlock,
  forgettingAttentionBackwardOp,
  forgettingAttentionOp,
  GraphError,
  type Node,
  sigmoidDecayAttentionBackwardOp,
  sigmoidDecayAttentionOp,
  type TensorSpec,
} from "@sisa/core";
import { type Dialect, type Emitter, type LoweringArguments, lowering, type Slot } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { type CachedResult, cachedAttention } from "./attention-cached.ts";
import {
  cutIntoTiles,
  type HeadsFirst,
  type TiledForward,
  type TiledGradients,
  type TileRules,
  type TileSizes,
  tiledBackward,
  tiledForward,
  tiledLogSumExp,
  tileFor,
  wholeScores,
} from "./attention-tiles.ts";

/** The tensors that both kinds of attention have. */
interface Specs {
  readonly [name: string]: TensorSpec | undefined;
}

/** Probabilities that are kept for the backward pass, in bytes for one layer; above this they are computed again. */
const mostKept = 2 ** 26;

const swap = [0, 2, 1, 3];

const one = Dim.of(1);

/** Sizes, where all of them are known and the lengths can be cut into tiles. */
function sizesFor({ q, k, v, cRotated }: Specs): TileSizes | undefined {
  const known = (shape: readonly Dim[] | undefined) => (shape ?? []).map((size) => size.value ?? 0);
  const [B = 0, T = 0, H = 0, D = 0] = known(q?.shape);
  const [, C = 0] = known(k?.shape);
  const [, , , E = 0] = known(v?.shape);
  const [, , , S = 0] = known(cRotated?.shape);
  const isKnown = B > 0 && T > 0 && H > 0 && D > 0 && E > 0 && T === C;
  return isKnown && (cRotated === undefined || S > 0) ? { B, T, H, D, E, S } : undefined;
}

/** True where a sequence looks at itself, from its first position on, and all sizes are known. */
function isTiled({ bias, queryStart, keyLength, ...specs }: Specs, causal: boolean): boolean {
  return !bias && !queryStart && !keyLength && causal && sizesFor(specs) !== undefined;
}

/** In the standard dialect, where keys lie in pages, and where there is nothing to compute, attention is composed. */
function declinesForward({ inputs }: Node, dialect: Dialect): boolean {
  const isEmpty = Object.values(inputs).some(({ shape }) => shape.some((size) => size.equals(0)));
  return dialect === "standard" || inputs.pages !== undefined || isEmpty;
}

/** What is composed unless tiles serve it. */
function declinesUntiled({ inputs, attributes }: Node, dialect: Dialect): boolean {
  return dialect === "standard" || !isTiled(inputs, attributes.causal !== false);
}

const softmax = { weights: "softmax", window: 0, sinks: 0 } as const;

interface AttentionValues {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
  readonly cRotated?: Value;
  readonly bRotated?: Value;
  readonly gQuery?: Value | undefined;
  readonly gKey?: Value | undefined;
  readonly lambda?: Value;
  readonly bias?: Value | undefined;
  readonly queryStart?: Value | undefined;
  readonly keyLength?: Value | undefined;
}

function headsFirst(emit: Emitter, inputs: AttentionValues): HeadsFirst {
  const swapped = (x: Value) => emit.transpose(x, swap);
  const content = { q: swapped(inputs.q), k: swapped(inputs.k), v: swapped(inputs.v) };
  const { cRotated, bRotated, gQuery, gKey, lambda } = inputs;
  if (!gQuery || !gKey) return content;
  const sums = { gQuery: emit.transpose(gQuery, [0, 2, 1]), gKey: emit.transpose(gKey, [0, 2, 1]) };
  if (!cRotated || !bRotated || !lambda) return { ...content, forgetting: sums };
  const perHead = emit.node("Unsqueeze", [lambda, emit.builder.int64(1, 2)]);
  const importance = {
    c: emit.node("Mul", [swapped(cRotated), perHead]),
    b: swapped(bRotated),
    ...sums,
  };
  return { ...content, importance };
}

function forward(emit: Emitter, inputs: AttentionValues, specs: Specs, rules: TileRules): TiledForward {
  const sizes = sizesFor(specs);
  if (sizes === undefined) throw new GraphError("attention: its sizes are not known");
  return tiledForward(emit, cutIntoTiles(emit, headsFirst(emit, inputs), sizes, rules, tileFor(sizes.T)));
}

/** The forward pass of an attention, by the value that it gave. */
const forwards: Slot<TiledForward> = { name: "forward passes of attention" };

/** Attention over a cache or over lengths that are not known. */
function lowerCached(
  emit: Emitter,
  inputs: AttentionValues,
  specs: Specs,
  scale: number,
  causal: boolean,
  needsLogSumExp: boolean,
): CachedResult {
  const { cRotated: c, bRotated: b, gQuery, gKey, lambda, ...rest } = inputs;
  const [B = one, T = one, H = one, D = one] = specs.q?.shape ?? [];
  const C = specs.k?.shape[1] ?? one;
  const E = specs.v?.shape[3] ?? one;
  const S = specs.cRotated?.shape[3] ?? one;
  const perHead = lambda && emit.node("Unsqueeze", [lambda, emit.builder.int64(1)]);
  const importance =
    c && b && gQuery && gKey && perHead ? { c: emit.node("Mul", [c, perHead]), b, gQuery, gKey } : undefined;
  // As many axes as the scores have, which is one less where there is one row.
  const rank = B.equals(1) ? 3 : 4;
  const axes = specs.bias?.shape ?? [];
  const missing = new Array<Dim>(Math.max(0, rank - axes.length)).fill(one);
  const bias = rest.bias && emit.reshape(rest.bias, [...missing, ...axes.slice(-rank)], axes);
  const args = { ...rest, bias, sizes: { B, T, C, H }, widths: { D, E, S }, scale, causal, importance };
  return cachedAttention(emit, args, needsLogSumExp);
}

function lowerForward(
  args: Pick<LoweringArguments, "emit" | "readers"> & { readonly specs: Specs },
  inputs: AttentionValues,
  scale: number,
  causal: boolean,
): { readonly value: Value; readonly logSumExp?: Value } {
  const { emit, specs, readers } = args;
  if (isTiled(specs, causal)) return lowerTiled(args, inputs, { ...softmax, scale });
  return lowerCached(emit, inputs, specs, scale, causal, (readers.logSumExp ?? []).length > 0);
}

/** Their backward passes read the weights in place of the log-sum-exp. */
const backwards: readonly string[] = [
  attentionBackwardOp.name,
  decayAttentionBackwardOp.name,
  forgettingAttentionBackwardOp.name,
];

function lowerTiled(
  { emit, specs, readers }: Pick<LoweringArguments, "emit" | "readers"> & { readonly specs: Specs },
  inputs: AttentionValues,
  rules: TileRules,
): { readonly value: Value; readonly logSumExp?: Value } {
  const result = forward(emit, inputs, specs, rules);
  const value = emit.transpose(result.value, swap);
  const { B, T, H } = result.tiles.sizes;
  if (B * H * T * T * 4 <= mostKept) emit.keep(forwards, value, result);
  const others = (readers.logSumExp ?? []).filter((reader) => !backwards.includes(reader));
  return others.length > 0 ? { value, logSumExp: tiledLogSumExp(emit, result) } : { value };
}

function lowerBackward(
  { emit, specs }: Pick<LoweringArguments, "emit"> & { readonly specs: Specs },
  inputs: AttentionValues & { readonly value?: Value; readonly gradient: Value },
  rules: TileRules,
): TiledGradients & { readonly pass: TiledForward } {
  const known = inputs.value === undefined ? undefined : emit.kept(forwards, inputs.value);
  const pass = known ?? forward(emit, inputs, specs, rules);
  return { ...tiledBackward(emit, pass, emit.transpose(inputs.gradient, swap)), pass };
}

export const attention = lowering(
  attentionOp,
  (args) => lowerForward(args, args.inputs, args.attributes.scale, args.attributes.causal),
  declinesForward,
);

export const attentionBackward = lowering(
  attentionBackwardOp,
  (args) => {
    const { emit, inputs, attributes, needs } = args;
    const { q, k, v, scores, pass } = lowerBackward(args, inputs, { ...softmax, scale: attributes.scale });
    const swapped = (x: Value) => emit.transpose(x, swap);
    const all = needs.scores && { scores: wholeScores(emit, pass.tiles, scores) };
    return { q: swapped(q), k: swapped(k), v: swapped(v), ...all };
  },
  declinesUntiled,
);

export const decayAttention = lowering(
  decayAttentionOp,
  (args) => lowerForward(args, args.inputs, args.attributes.scale, true),
  declinesForward,
);

export const decayAttentionBackward = lowering(
  decayAttentionBackwardOp,
  (args) => importanceBackward(args, args.inputs, { ...softmax, scale: args.attributes.scale }),
  declinesUntiled,
);

export const sigmoidDecayAttention = lowering(
  sigmoidDecayAttentionOp,
  (args) => lowerTiled(args, args.inputs, { ...softmax, weights: "sigmoid", scale: args.attributes.scale }),
  declinesUntiled,
);

export const sigmoidDecayAttentionBackward = lowering(
  sigmoidDecayAttentionBackwardOp,
  (args) => importanceBackward(args, args.inputs, { ...softmax, weights: "sigmoid", scale: args.attributes.scale }),
  declinesUntiled,
);

export const forgettingAttention = lowering(
  forgettingAttentionOp,
  (args) => lowerTiled(args, args.inputs, { ...args.attributes, weights: "softmax" }),
  declinesUntiled,
);

export const forgettingAttentionBackward = lowering(
  forgettingAttentionBackwardOp,
  (args) => {
    const { emit, inputs, specs, attributes } = args;
    const { q, k, v, forgotten } = lowerBackward(args, inputs, { ...attributes, weights: "softmax" });
    const swapped = (x: Value) => emit.transpose(x, swap);
    const content = { q: swapped(q), k: swapped(k), v: swapped(v) };
    if (forgotten === undefined) return content;
    const gKey = emit.node("Sub", [totalsGradient(emit, emit.node("Neg", [forgotten]), specs), forgotten]);
    return { ...content, gKey: emit.transpose(gKey, [0, 2, 1]) };
  },
  declinesUntiled,
);

/** Gradients of attention with an importance term by all its inputs. */
function importanceBackward(
  { emit, specs }: Pick<LoweringArguments, "emit"> & { readonly specs: Specs },
  inputs: AttentionValues & {
    readonly [N in "cRotated" | "bRotated" | "lambda" | "gradient"]: Value;
  } & { readonly value?: Value },
  rules: TileRules,
) {
  const { q, k, v, importance } = lowerBackward({ emit, specs }, inputs, rules);
  if (importance === undefined) return {};
  const swapped = (x: Value) => emit.transpose(x, swap);
  const [c, b] = [swapped(inputs.cRotated), swapped(inputs.bRotated)];
  const unscaled = emit.node("Mul", [c, importance.c]);
  // Per head: sum over batch, time and state.
  const byHead = emit.sum(emit.sum(unscaled, [2, 3], false), [0], false);
  const perHead = emit.node("Unsqueeze", [inputs.lambda, emit.builder.int64(1)]);
  const read = emit.node("Mul", [emit.sum(unscaled, [3], false), perHead]);
  const write = emit.sum(emit.node("Mul", [b, importance.b]), [3], false);
  const gKey = emit.node("Sub", [totalsGradient(emit, emit.node("Sub", [read, write]), specs), write]);
  const scaled = emit.node("Unsqueeze", [perHead, emit.builder.int64(2)]);
  return {
    q: swapped(q),
    k: swapped(k),
    v: swapped(v),
    cRotated: swapped(emit.node("Mul", [importance.c, scaled])),
    bRotated: swapped(importance.b),
    gQuery: emit.transpose(read, [0, 2, 1]),
    gKey: emit.transpose(gKey, [0, 2, 1]),
    lambda: byHead,
  };
}

/**
 * The total of a block, which its last position holds, takes part in every pair that spans it: it gets the gradient of
 * all later positions.
 *
 * @param difference [B,H,T]
 */
function totalsGradient(emit: Emitter, difference: Value, specs: Specs): Value {
  const { builder } = emit;
  const { B = 0, H = 0, T = 0 } = sizesFor(specs) ?? {};
  const count = Math.ceil(T / decayBlock);
  const whole = count * decayBlock;
  const even =
    whole === T ? difference : emit.node("Pad", [difference, builder.int64(0, whole - T), undefined, builder.int64(2)]);
  const blocks = emit.node("Reshape", [even, builder.int64(B, H, count, decayBlock)]);
  const settings = { exclusive: 1, reverse: 1 };
  const later = emit.node("CumSum", [emit.sum(blocks, [3], true), builder.int64Scalar(2)], settings);
  const padded = emit.node("Pad", [later, builder.int64(decayBlock - 1, 0), undefined, builder.int64(3)]);
  const flat = emit.node("Reshape", [padded, builder.int64(B, H, whole)]);
  if (whole === T) return flat;
  return emit.node("Slice", [flat, builder.int64(0), builder.int64(T), builder.int64(2)]);
}
