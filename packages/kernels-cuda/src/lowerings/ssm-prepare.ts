// What SISA needs of each token, and its gradients, for whole sequences: vectors of float32 or bfloat16, sums in float32;
// and its decays from their projection.
// What continues from a cache takes the composition.

import { bytesOf, type Node, sizesOf } from "@sisa/core";
import type { Context, Region, Value, View } from "../plan.ts";
import { rowsOf } from "../views.ts";
import { blocksFor } from "./elementwise.ts";
import type { Lowering } from "./index.ts";

/** Positions of a block; BLOCK in kernels/states.cuh, and decayBlock in @sisa/core. */
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
    prepareStates(context, context.input("logDecay"));
  },
};

/** What attention takes of SISA's states. */
export interface States {
  readonly c: Value;
  readonly b: Value;
  readonly g: Value;
}

/** Adds the steps of ssmPrepare for an operation that has its other inputs and its outputs. */
export function prepareStates(context: Context, logDecay: Value): States {
  const [c, b] = ["c", "b"].map((name) => stateRows(context, name));
  const phase = stateRows(context, "phase", 1);
  const outputs = ["cRotated", "bRotated", "g", "phi"].map((name) => context.output(name));
  const [cRotated, bRotated, g] = outputs as [Value, Value, Value];
  const states = { c: cRotated, b: bRotated, g };
  if (!c || !b || c.value.count === 0) return states;
  const sizes = sizesOfStates(phase.value);
  const totals = context.scratch(totalBytes(sizes));
  const packed = packSizes(sizes, { c: c.pitch, b: b.pitch, phase: phase.pitch });
  const grid = gridOf(sizes);
  context.kernel("phaseTotals", grid.lines, threads, [phase.value, totals, packed]);
  const args = [c.value, b.value, logDecay, phase.value, totals, ...outputs, packed];
  context.kernel(`ssmPrepare_${c.value.spec.dtype}`, grid.lines + grid.heads, threads, args);
  return states;
}

function backwardDeclines({ inputs }: Node): boolean {
  const { cRotated, bRotated, phi, cGradient, bGradient, gGradient, phiGradient } = inputs;
  const alike = cRotated?.dtype === bRotated?.dtype && cGradient?.dtype === bGradient?.dtype;
  const types = `${cRotated?.dtype}_${cGradient?.dtype}`;
  const known = ["float32_float32", "bfloat16_bfloat16", "bfloat16_float32"].includes(types);
  const wide = [phi, gGradient, phiGradient].every((tensor) => tensor === undefined || tensor.dtype === "float32");
  return !alike || !known || !wide;
}

/** With a gradient by the phase in float32 or bfloat16. */
export const ssmPrepareBackward: Lowering = {
  declines: backwardDeclines,
  lower(context) {
    const inputs = ["cRotated", "bRotated", "phi", "cGradient", "bGradient"].map((name) => context.input(name));
    const gGradient = context.input("gGradient");
    const phiGradient = context.optional("phiGradient") ?? null;
    const [rotated, , phi, gradient] = inputs;
    if (!rotated || !phi || !gradient) return;
    const element = bytesOf(rotated.spec.dtype);
    const fits = (region: Region) => pitchOf(region, rotated.sizes, element) !== undefined;
    const [dc, db] = ["c", "b"].map((name) => context.stridedOutput(name, [], fits));
    const dLogDecay = context.output("logDecay");
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
    context.kernel(kernel, grid.lines + grid.heads, threads, args);
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
    decaysOf(context, { x: "x", bias: "bias" }, context.output());
  },
};

/** -softplus(x + bias) of each position and head. */
export function decaysOf(context: Context, names: { readonly x: string; readonly bias: string }, value: Value): void {
  const { value: x, pitch } = headRows(context, names.x);
  if (value.count === 0) return;
  const args = [x, context.input(names.bias), value, value.count, x.sizes.at(-1) ?? 0, pitch];
  context.kernel("logDecay", blocksFor(context, value.count), 256, args);
}

/** Of the structure StateSizes, what is not 0. */
interface StateSizes {
  readonly sizes: readonly number[];
  readonly pitches: { readonly strength: number; readonly c: number; readonly b: number; readonly phase: number };
  readonly strengthGradientPitch?: number;
  readonly headWidth?: number;
  readonly scale?: number;
}

function packStates({ sizes, pitches, strengthGradientPitch = 0, headWidth = 0, scale = 1 }: StateSizes): Uint8Array {
  const { strength, c, b, phase } = pitches;
  const packed = new DataView(new ArrayBuffer(44));
  [...sizes, strength, c, b, phase, strengthGradientPitch, headWidth].forEach((value, index) => {
    packed.setInt32(4 * index, value, true);
  });
  packed.setFloat32(40, scale, true);
  return new Uint8Array(packed.buffer);
}

/** Warps take 128 columns of the states of all heads and a block of positions each: StatePlace in kernels/states.cuh. */
function warpsOf([batches = 0, length = 0, heads = 0, width = 1]: readonly number[]) {
  const headsOfWarp = 128 / width;
  const [parts, blocks] = [Math.ceil(heads / headsOfWarp), Math.ceil(length / blockSize)];
  const lines = parts * batches;
  // A block keeps two numbers of each lane, and one of each head, of all positions.
  const sharedBytes = blockSize * (32 * 8 + headsOfWarp * 4);
  return { headsOfWarp, lines, parts, blocks, count: lines * blocks, sharedBytes };
}

/** Where warps tell each other of their sums, with counters of the pieces of work, of lines that have ended, of what is told. */
function sumsOfBlocks(context: Context, { lines, count }: { readonly lines: number; readonly count: number }) {
  return [context.scratch(768 * count), ...[1, lines, count].map((each) => context.counters(each))];
}

/** What attention on Hopper needs of SISA's states. */
export interface PreparedSpans extends States {
  readonly bHat: View;
  /** decay, firsts, lasts. */
  readonly exponents: readonly View[];
  /** The largest of rows of cHat and of bHat. */
  readonly norms: readonly View[];
}

/** Adds the steps from c, b, the phase and the projection of decays to what attention on Hopper needs of them. */
export function prepareSpans(context: Context, { span, scale }: { span: number; scale: number }): PreparedSpans {
  const [c, b, phase] = [stateRows(context, "c", 4), stateRows(context, "b", 4), stateRows(context, "phase")];
  const { value: strength, pitch } = headRows(context, "strength");
  const outputs = ["cRotated", "bRotated", "phi", "cSquares", "bSquares"].map((name) => context.output(name));
  const [cRotated, bRotated, phi, ...squares] = outputs as [Value, Value, Value, Value, Value];
  const g = context.output("g");
  const { sizes } = c.value;
  const [batches = 0, , heads = 0] = sizes;
  const warps = warpsOf(sizes);
  const { blocks, count, sharedBytes } = warps;
  const spans = Math.ceil(blocks / (span / blockSize));
  const perSpan = (each: number) => context.scratch(4 * batches * heads * spans * each);
  const [bHat, exponents, norms] = [
    context.scratch(bRotated.bytes),
    [perSpan(span), perSpan(1), perSpan(1)],
    [perSpan(1), perSpan(1)],
  ];
  const pitches = { strength: pitch, c: c.pitch, b: b.pitch, phase: phase.pitch };
  const packed = packStates({ sizes, pitches, scale });
  const given = [c.value, b.value, phase.value, strength, context.input("strengthBias"), context.input("lambda")];
  const made = [cRotated, bRotated, phi, ...squares, g, bHat, ...exponents, ...norms];
  const args = [...given, ...made, ...sumsOfBlocks(context, warps), packed, span];
  context.kernel("prepareSpans", count, 32, args, sharedBytes);
  return { c: cRotated, b: bRotated, g, bHat, exponents, norms };
}

/** Gradients by c and b [B,T,H,S], float32, with c . dc and b . db; or where those by c are in sums of attention on Hopper. */
export interface RotatedGradients {
  readonly c:
    | { readonly dense: View; readonly read: View; readonly write: View }
    | { readonly sums: View; readonly headWidth: number; readonly scale: number };
  readonly b: View;
}

/** Adds the step from gradients by rotated c and b to all gradients of states and decays. */
export function stateGradients(context: Context, { c: ofC, b: ofB }: RotatedGradients): void {
  const [c, b, phi] = ["cRotated", "bRotated", "phi"].map((name) => context.input(name)) as [Value, Value, Value];
  const { value: strength, pitch } = headRows(context, "strength");
  const fits = (atOnce: number) => (region: Region) => pitchOf(region, c.sizes, 2, atOnce) !== undefined;
  const [dc, db] = ["c", "b"].map((name) => context.stridedOutput(name, [], fits(4))) as [Value, Value];
  const isPhase = (region: Region) => pitchOf(region, phi.sizes, 2) !== undefined;
  const dPhase = context.stridedOutput("phase", [], isPhase);
  const isRows = ({ strides }: Region) => rowsOf(strength.sizes, strides) !== undefined;
  const dStrength = context.stridedOutput("strength", [], isRows);
  const [dBias, dLambda] = [context.output("strengthBias"), context.output("lambda")];
  if (c.count === 0) return;
  const [cPitch = 0, bPitch = 0, phasePitch = 0] = [dc, db, dPhase].map((x) => pitchOf(x, x.sizes, 2));
  const packed = packStates({
    sizes: c.sizes,
    pitches: { strength: pitch, c: cPitch, b: bPitch, phase: phasePitch },
    strengthGradientPitch: rowsOf(dStrength.sizes, dStrength.strides)?.pitch ?? c.sizes[2] ?? 0,
    ...("sums" in ofC ? { headWidth: ofC.headWidth, scale: ofC.scale } : {}),
  });
  const warps = warpsOf(c.sizes);
  const { headsOfWarp, parts, lines, count, sharedBytes } = warps;
  const given = [strength, context.input("strengthBias"), context.input("lambda"), context.optional("raw") ?? null];
  const parameterSums = [count, lines].map((each) => context.scratch(16 * each * headsOfWarp));
  const shared = [...sumsOfBlocks(context, warps), ...parameterSums, context.counters(parts)];
  const [kernel, places] =
    "sums" in ofC ? ["stateGradientsOfSums", [ofC.sums]] : ["stateGradients", [ofC.dense, ofC.read, ofC.write]];
  const args = [...places, c, b, phi, ofB, ...given, dc, db, dPhase, dStrength, dBias, dLambda, ...shared, packed];
  context.kernel(kernel, count, 32, args, sharedBytes);
}
