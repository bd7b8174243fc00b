// Attention and decay attention by tiles: bfloat16, causal, whole sequences. Everything else, such as caches, a bias, or
// float32, takes the composition. Hopper has kernels of its own.

import { type Node, sizesOf } from "@sisa/core";
import type { Context, LoweringRule, Value, View } from "../plan.ts";
import {
  type AttentionSizes,
  backwardOnHopper,
  forwardOnHopper,
  hopperCapability,
  type StateGradients,
} from "./attention-hopper.ts";
import { axesOf, blocksFor } from "./elementwise.ts";
import { rotate } from "./fused.ts";
import type { Lowering } from "./index.ts";
import { decaysOf, prepareStates, type States, stateGradients } from "./ssm-prepare.ts";

/** Positions of a tile; TILE in kernels/attention.cu, and decayBlock in @sisa/core. */
const tileSize = 64;
/** Widths that there are kernels for. */
const widths = [64, 128];
const stateWidths = [16, 32, 64, 128];

/**
 * An importance term is left out of a pair of tiles where no score can change by more. A weight of softmax then changes by
 * less than exp(2 * 2^-10) - 1, or 2^-9 of itself, which is what rounding it to bfloat16 may change; what that does to
 * outputs and gradients is in bench/cuda/log.md.
 */
const skipBelow = 2 ** -10;

interface AttentionAttributes {
  readonly scale: number;
  readonly causal?: boolean;
}

/** Whether a node is other than what the kernels are for. */
function declines({ inputs, attributes }: Node): boolean {
  const { q, k, v, bias, queryStart, keyLength, cRotated, bRotated, gQuery, gKey, lambda } = inputs;
  const { scale, causal = true } = attributes as unknown as AttentionAttributes;
  if (!q || !k || !v || bias || queryStart || keyLength || !causal || !(scale > 0)) return true;
  const [, length, , width = 0] = sizesOf(q.shape);
  const plain = [q, k, v].some(({ dtype }) => dtype !== "bfloat16");
  if (plain || length === 0 || !widths.includes(width) || sizesOf(v.shape)[3] !== width) return true;
  if (sizesOf(k.shape)[1] !== length) return true;
  if (!cRotated || !bRotated || !gQuery || !gKey || !lambda) return false;
  const wide = [gQuery, gKey, lambda].some(({ dtype }) => dtype !== "float32");
  // A query and a key at one position have one g, or they would not be of one sequence.
  const apart = gQuery !== gKey;
  const narrow = cRotated.dtype === "bfloat16" && bRotated.dtype === "bfloat16";
  return wide || apart || !narrow || !stateWidths.includes(sizesOf(cRotated.shape)[3] ?? 0);
}

interface Sizes extends AttentionSizes {
  readonly tiles: number;
  /** The structure AttentionSizes. */
  readonly packed: Uint8Array;
}

function sizesFor(context: Context): Sizes {
  const [batches = 0, length = 0, heads = 0, width = 0] = context.strided("q").sizes;
  const { cRotated, c = cRotated } = context.node.inputs;
  const stateWidth = sizesOf(c?.shape ?? [])[3] ?? 0;
  const { scale } = context.attributes<AttentionAttributes>();
  const packed = new Uint8Array(20);
  const view = new DataView(packed.buffer);
  [batches, length, heads].forEach((size, index) => {
    view.setInt32(4 * index, size, true);
  });
  view.setFloat32(12, scale, true);
  view.setFloat32(16, skipBelow, true);
  const tiles = Math.ceil(length / tileSize);
  return { batches, length, heads, width, stateWidth, scale, skip: skipBelow, tiles, packed };
}

/**
 * The stages that a block has room for, two or one, and its shared memory: as Layout in kernels/attention.cu divides it.
 * @param wide tiles of the own side
 */
function sharedMemoryOf(context: Context, { width, stateWidth }: Sizes, wide: 1 | 2) {
  // Rows have eight elements of padding.
  const tileBytes = (elements: number) => (elements === 0 ? 0 : 2 * tileSize * (elements + 8));
  const hats = wide === 2 && width === 128 && stateWidth === 128 ? 0 : tileBytes(stateWidth);
  const own = wide * tileBytes(width) + hats + 4 * tileSize;
  // With log-sum-exp and delta of queries in backward.
  const stage = 2 * tileBytes(width) + tileBytes(stateWidth) + (wide === 2 ? 2 * 4 * tileSize : 0);
  const stages = own + 2 * stage <= context.sharedBytes ? 2 : 1;
  return { stages, sharedBytes: own + stages * stage };
}

type Names = readonly (View | null)[];

/** States that were prepared by an operation before. */
function statesOf(context: Context, { stateWidth }: Sizes): States | undefined {
  if (stateWidth === 0) return undefined;
  return { c: context.input("cRotated"), b: context.input("bRotated"), g: context.input("gQuery") };
}

/** States that are prepared here. Only Hopper's kernels read their squared norms. */
function prepared(context: Context): States {
  const { strength } = context.node.inputs;
  const sizes = sizesOf(strength?.shape ?? []);
  const bytes = 4 * sizes.reduce((a, b) => a * b, 1);
  const logDecay = { ...context.strided("strength"), ...context.scratch(bytes), bytes };
  decaysOf(context, { x: "strength", bias: "strengthBias" }, logDecay);
  return prepareStates(context, logDecay);
}

/** What the kernels take in front: the inputs, and what the prologue makes of them. */
function operands(context: Context, sizes: Sizes, states: States | undefined): Names {
  const names = ["q", "k", "v"].map((name) => context.input(name));
  if (!states) return [...names, ...new Array<null>(9).fill(null)];
  const { batches, length, heads, stateWidth, tiles, packed } = sizes;
  const { c, b, g } = states;
  const lambda = context.input("lambda");
  const rotated = 2 * batches * length * heads * stateWidth;
  const [cHat, bHat] = [context.scratch(rotated), context.scratch(rotated)];
  const perTile = () => context.scratch(4 * batches * heads * tiles);
  const [totals, cNorms, bNorms] = [perTile(), perTile(), perTile()];
  const args = [c, b, g, lambda, cHat, bHat, totals, cNorms, bNorms, packed, stateWidth];
  context.kernel("decayPrologue", [tiles, batches * heads, 1], 128, args);
  return [...names, c, b, cHat, bHat, g, lambda, totals, cNorms, bNorms];
}

const forward: LoweringRule = (context) => {
  const sizes = sizesFor(context);
  if (context.capability === hopperCapability) forwardOnHopper(context, sizes);
  else portableForward(context, sizes);
};

function portableForward(context: Context, sizes: Sizes): void {
  const { batches, heads, width, stateWidth, tiles, packed } = sizes;
  const states = context.node.inputs.phase ? prepared(context) : statesOf(context, sizes);
  const [value, logSumExp] = [context.output("value"), context.output("logSumExp")];
  if (value.count === 0) return;
  const given = operands(context, sizes, states);
  const { stages, sharedBytes } = sharedMemoryOf(context, sizes, 1);
  const args = [...given, value, logSumExp, packed, stages];
  context.kernel(`attentionForward_${width}_${stateWidth}`, [tiles, batches * heads, 1], 128, args, sharedBytes);
}

const backward: LoweringRule = (context) => {
  const sizes = sizesFor(context);
  const { batches, length, heads, width, stateWidth, scale, packed } = sizes;
  const states = stateWidth > 0 ? rotatedGradients(context, sizes) : undefined;
  const sums =
    context.capability === hopperCapability
      ? backwardOnHopper(context, sizes, states)
      : portableBackward(context, sizes, states);
  if (!states) return;
  const { c, b, read, write } = states;
  if (context.node.outputs.phase) {
    const ofC = sums ? { sums, headWidth: width, scale } : { dense: c.wide, read, write };
    return stateGradients(context, { c: ofC, b: b.wide });
  }
  if (batches * length * heads * width === 0) return;
  const together = context.node.outputs.g !== undefined;
  const [g, dLambda] = [context.output(together ? "g" : "gKey"), context.output("lambda")];
  const readSums = context.scratch(8 * batches * heads);
  context.kernel("decayKeyGradient", batches * heads, 1024, [read, write, g, readSums, packed, together ? 1 : 0]);
  const lambdaArgs = [readSums, context.input("lambda"), dLambda, packed];
  context.kernel("decayLambdaGradient", Math.ceil(heads / 64), 64, lambdaArgs);
  for (const { wide, narrow } of [c, b]) {
    if (!narrow) continue;
    context.kernel("cast_f", blocksFor(context, narrow.count), 256, [wide, narrow, axesOf(narrow, [wide])]);
  }
};

/** Gradients by c and b come in float32; where the operation's are narrow, those are rounded from them. */
function rotatedGradients(context: Context, { batches, length, heads }: Sizes): StateGradients {
  const [c, b] = ["cRotated", "bRotated"].map((name) => {
    const goesOn = context.node.outputs[name] === undefined;
    const value = goesOn ? context.input(name) : context.output(name);
    if (value.spec.dtype === "float32") return { wide: value, narrow: undefined };
    const spec = { ...value.spec, dtype: "float32" as const };
    const wide = { ...value, ...context.scratch(2 * value.bytes), spec, bytes: 2 * value.bytes };
    return { wide, narrow: goesOn ? undefined : value };
  }) as [StateGradients["c"], StateGradients["b"]];
  const rows = 4 * batches * length * heads;
  const read = context.node.outputs.gQuery ? context.output("gQuery") : context.scratch(rows);
  return { c, b, read, write: context.scratch(rows) };
}

function portableBackward(context: Context, sizes: Sizes, states: StateGradients | undefined): undefined {
  const { batches, length, heads, width, stateWidth, tiles, packed } = sizes;
  const [dq, dk, dv] = ["q", "k", "v"].map((name) => context.output(name)) as [Value, Value, Value];
  if (dq.count === 0) return;
  const given = operands(context, sizes, statesOf(context, sizes));
  const [value, gradient, logSumExp] = [context.input("value"), context.input("gradient"), context.input("logSumExp")];
  const delta = context.scratch(4 * batches * heads * length);
  const blocks = Math.min(Math.ceil((batches * length * heads) / 4), context.multiprocessors * 64);
  context.kernel("attentionDelta", blocks, 128, [value, gradient, delta, packed, width]);
  const { stages, sharedBytes } = sharedMemoryOf(context, sizes, 2);
  const grid = [tiles, batches * heads, 1] as const;
  const common = [...given, logSumExp, delta, gradient];
  const { c, b, read, write } = states ?? { c: null, b: null, read: null, write: null };
  const kernel = (side: string) => `attentionBackward${side}_${width}_${stateWidth}`;
  context.kernel(kernel("Queries"), grid, 128, [...common, dq, c?.wide ?? null, read, packed, stages], sharedBytes);
  context.kernel(kernel("Keys"), grid, 128, [...common, dk, dv, b?.wide ?? null, write, packed, stages], sharedBytes);
  const [cos, sin] = [context.optional("cos"), context.optional("sin")];
  // Each pair is read before, and by the thread that writes it.
  if (cos && sin) for (const x of [dq, dk]) rotate(context, x, cos, sin, x);
}

export const attention: Lowering = { lower: forward, declines };
export const decayAttention: Lowering = { lower: forward, declines };
export const decayAttentionStates: Lowering = {
  lower: forward,
  declines(node) {
    const { c, b, phase, strength } = node.inputs;
    const states = { cRotated: c, bRotated: b, gQuery: strength, gKey: strength };
    const inputs = Object.fromEntries(Object.entries({ ...node.inputs, ...states }).filter(([, tensor]) => tensor));
    const isEmpty = sizesOf(c?.shape ?? []).includes(0);
    return isEmpty || phase?.dtype !== "float32" || declines({ ...node, inputs } as Node);
  },
};
export const decayAttentionBackward: Lowering = { lower: backward, declines };
export const attentionBackward: Lowering = { lower: backward, declines };
