// What SISA needs of each token, and its gradients, for whole sequences: vectors of float32 or bfloat16, sums in float32;
// and its decays from their projection.
// What continues from a cache takes the composition.

import { bytesOf, type Node, sizesOf } from "@sisa/core";
import type { Context, Region, Value, View } from "../plan.ts";
import { rowsOf } from "../views.ts";
import { blocksFor } from "./elementwise.ts";
import type { Lowering } from "./index.ts";

/** Positions of a block; BLOCK in kernels/prepare.cu, and decayBlock in @sisa/core. */
const blockSize = 64;
/** THREADS in kernels/prepare.cu: few, so that the last block of lines has few that are idle. */
const threads = 64;
const vectorTypes: readonly string[] = ["float32", "bfloat16"];

interface Sizes {
  readonly batches: number;
  readonly length: number;
  readonly heads: number;
  /** Pairs of all heads. */
  readonly lines: number;
}

function sizesOfStates({ sizes }: Value): Sizes {
  const [batches = 0, length = 0, heads = 0, half = 0] = sizes;
  return { batches, length, heads, lines: heads * half };
}

interface Pitches {
  readonly c: number;
  readonly b: number;
  readonly phase: number;
}

/** Blocks of threads for the lines of all blocks of positions, and for their heads. */
function gridOf({ batches, length, heads, lines }: Sizes) {
  const blocks = batches * Math.ceil(length / blockSize);
  return { lines: blocks * Math.ceil(lines / threads), heads: Math.ceil((blocks * heads) / threads) };
}

/** Bytes of the sums of blocks of positions. */
function totalBytes({ batches, length, lines }: Sizes): number {
  return 8 * batches * Math.ceil(length / blockSize) * lines;
}

/** The structure PrepareSizes. */
function packSizes({ batches, length, heads, lines }: Sizes, { c, b, phase }: Pitches): Uint8Array {
  return new Uint8Array(Int32Array.of(batches, length, heads, lines, c, b, phase).buffer);
}

/** An input as rows of all heads, one for each position: where it lies, or dense where it lies otherwise. */
function stateRows(context: Context, name: string, atOnce = 2): { readonly value: Value; readonly pitch: number } {
  const value = context.strided(name);
  const pitch = pitchOf(value, value.sizes, bytesOf(value.spec.dtype), atOnce);
  if (pitch !== undefined) return { value, pitch };
  const dense = context.input(name);
  return { value: dense, pitch: (dense.sizes[2] ?? 1) * (dense.sizes[3] ?? 1) };
}

/** Elements from one position to the next, where they can be read one or two at once. */
function pitchOf(
  { strides, offset }: Region,
  sizes: readonly number[],
  element: number,
  atOnce = 2,
): number | undefined {
  const rows = rowsOf(sizes, strides, (sizes[2] ?? 1) * (sizes[3] ?? 1));
  return rows && rows.pitch % atOnce === 0 && offset % (atOnce * element) === 0 ? rows.pitch : undefined;
}

export const ssmPrepare: Lowering = {
  declines: ({ inputs: { c, b, logDecay, phase, start } }) => {
    const narrow = c && c.dtype === b?.dtype && vectorTypes.includes(c.dtype);
    return !narrow || start !== undefined || logDecay?.dtype !== "float32" || phase?.dtype !== "float32";
  },
  lower(context) {
    const [c, b] = ["c", "b"].map((name) => stateRows(context, name));
    const phase = stateRows(context, "phase", 1);
    const logDecay = context.input("logDecay");
    const outputs = ["cRotated", "bRotated", "g", "phi"].map((name) => context.output(name));
    if (!c || !b || !phase || c.value.count === 0) return;
    const sizes = sizesOfStates(phase.value);
    const totals = context.scratch(totalBytes(sizes));
    const packed = packSizes(sizes, { c: c.pitch, b: b.pitch, phase: phase.pitch });
    const grid = gridOf(sizes);
    context.kernel("phaseTotals", grid.lines, threads, [phase.value, totals, packed]);
    const args = [c.value, b.value, logDecay, phase.value, totals, ...outputs, packed];
    context.kernel(`ssmPrepare_${c.value.spec.dtype}`, grid.lines + grid.heads, threads, args);
  },
};

function backwardDeclines({ inputs }: Node): boolean {
  const { cRotated, bRotated, phi, cGradient, bGradient, gGradient, phiGradient } = inputs;
  const alike = cRotated?.dtype === bRotated?.dtype && cGradient?.dtype === bGradient?.dtype;
  const types = `${cRotated?.dtype}_${cGradient?.dtype}`;
  const known = ["float32_float32", "bfloat16_bfloat16", "bfloat16_float32"].includes(types);
  const wide = [phi, gGradient, phiGradient].every((tensor) => tensor === undefined || tensor.dtype === "float32");
  return !alike || !known || !wide;
}

/** With a gradient by the phase in float32 or bfloat16, and by log decay where there is one by g. */
export const ssmPrepareBackward: Lowering = {
  declines: backwardDeclines,
  lower(context) {
    const inputs = ["cRotated", "bRotated", "phi", "cGradient", "bGradient"].map((name) => context.input(name));
    const gGradient = context.optional("gGradient") ?? null;
    const phiGradient = context.optional("phiGradient") ?? null;
    const [rotated, , phi, gradient] = inputs;
    if (!rotated || !phi || !gradient) return;
    const element = bytesOf(rotated.spec.dtype);
    const fits = (region: Region) => pitchOf(region, rotated.sizes, element) !== undefined;
    const [dc, db] = ["c", "b"].map((name) => context.stridedOutput(name, [], fits));
    const dLogDecay = gGradient ? context.output("logDecay") : null;
    const dPhase = context.stridedOutput("phase", [], (region) => pitchOf(region, phi.sizes, 1, 1) !== undefined);
    if (!dc || !db || rotated.count === 0) return;
    const sizes = sizesOfStates(phi);
    const totals = context.scratch(totalBytes(sizes));
    const [c, b, phase] = [dc, db, dPhase].map((x) => pitchOf(x, x.sizes, element, 1) ?? 0) as [number, number, number];
    const packed = packSizes(sizes, { c, b, phase });
    const within = context.scratch(4 * phi.count);
    const grid = gridOf(sizes);
    const kernel = `ssmPrepareBackward_${rotated.spec.dtype}_${gradient.spec.dtype}`;
    const args = [...inputs, gGradient, phiGradient, dc, db, dLogDecay, within, totals, packed];
    context.kernel(kernel, grid.lines + (gGradient ? grid.heads : 0), threads, args);
    context.kernel(`phaseLater_${dPhase.spec.dtype}`, grid.lines, threads, [within, totals, dPhase, packed]);
  },
};

/** Rows of heads of [B,T,H], where they lie. */
function headRows(context: Context, name: string): { readonly value: Value; readonly pitch: number } {
  const value = context.strided(name);
  const rows = rowsOf(value.sizes, value.strides);
  return rows ? { value, pitch: rows.pitch } : { value: context.input(name), pitch: value.sizes.at(-1) ?? 0 };
}

export const logDecay: Lowering = {
  declines: ({ inputs: { x } }) => sizesOf(x?.shape ?? []).reduce((a, b) => a * b, 1) >= 2 ** 32,
  lower(context) {
    const { value: x, pitch } = headRows(context, "x");
    const value = context.output();
    if (value.count === 0) return;
    const args = [x, context.input("bias"), value, value.count, x.sizes.at(-1) ?? 0, pitch];
    context.kernel("logDecay", blocksFor(context, value.count), 256, args);
  },
};

/**
 * From read = c . dc and write = b . db of each position and head [B,T,H], all gradients by what decays are made of: `strength`,
 * `strengthBias` and `lambda`.
 */
export function decayGradients(context: Context, read: View, write: View): void {
  const { value: x, pitch } = headRows(context, "strength");
  const dx = context.stridedOutput("strength", [], ({ strides }) => rowsOf(x.sizes, strides) !== undefined);
  const [dBias, dLambda] = [context.output("strengthBias"), context.output("lambda")];
  const [batches = 0, length = 0, heads = 0] = x.sizes;
  const sizes = Int32Array.of(batches, length, heads, pitch, rowsOf(dx.sizes, dx.strides)?.pitch ?? heads);
  const given = [x, context.input("strengthBias"), context.input("lambda"), context.optional("raw") ?? null];
  const shared = [context.scratch(16 * batches * heads), context.counters(1), new Uint8Array(sizes.buffer)];
  context.kernel("decayGradients", batches * heads, 256, [read, write, ...given, dx, dBias, dLambda, ...shared]);
}
