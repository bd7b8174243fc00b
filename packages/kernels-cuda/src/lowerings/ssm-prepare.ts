// What SISA needs of each token, and its gradients, for whole sequences: vectors of float32 or bfloat16, sums in float32;
// and its decays from their projection.
// What continues from a cache takes the composition.

import { bytesOf, type Node } from "@sisa/core";
import type { Context, Region, Value } from "../plan.ts";
import { rowsOf } from "../views.ts";
import { blocksFor } from "./elementwise.ts";
import type { Lowering } from "./index.ts";
import { sumColumns } from "./reduction.ts";

/** Positions of a block; BLOCK in kernels/prepare.cu, and decayBlock in @sisa/core. */
const blockSize = 64;
/** Few, so that the last block of lines has few that are idle. */
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
    const { batches, length, heads, lines } = sizes;
    const blocks = Math.ceil(length / blockSize);
    const totals = context.scratch(8 * batches * blocks * lines);
    const packed = packSizes(sizes, { c: c.pitch, b: b.pitch, phase: phase.pitch });
    const lineBlocks = Math.ceil(lines / threads);
    context.kernel("phaseTotals", [batches * blocks, lineBlocks, 1], threads, [phase.value, totals, packed]);
    const grid = [batches * blocks, lineBlocks + Math.ceil(heads / threads), 1] as const;
    const args = [c.value, b.value, logDecay, phase.value, totals, ...outputs, packed];
    context.kernel(`ssmPrepare_${c.value.spec.dtype}`, grid, threads, args);
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

/** With a gradient by the phase in float32 or bfloat16. */
export const ssmPrepareBackward: Lowering = {
  declines: backwardDeclines,
  lower(context) {
    const names = ["cRotated", "bRotated", "phi", "cGradient", "bGradient", "gGradient"];
    const inputs = names.map((name) => context.input(name));
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
    const { batches, length, heads, lines } = sizes;
    const blocks = Math.ceil(length / blockSize);
    const totals = context.scratch(8 * batches * blocks * lines);
    const [c, b, phase] = [dc, db, dPhase].map((x) => pitchOf(x, x.sizes, element, 1) ?? 0) as [number, number, number];
    const packed = packSizes(sizes, { c, b, phase });
    const within = context.scratch(4 * phi.count);
    const lineBlocks = Math.ceil(lines / threads);
    const grid = [batches * blocks, lineBlocks + Math.ceil(heads / threads), 1] as const;
    const kernel = `ssmPrepareBackward_${rotated.spec.dtype}_${gradient.spec.dtype}`;
    context.kernel(kernel, grid, threads, [...inputs, phiGradient, dc, db, dLogDecay, within, totals, packed]);
    const later = `phaseLater_${dPhase.spec.dtype}`;
    context.kernel(later, [batches * blocks, lineBlocks, 1], threads, [within, totals, dPhase, packed]);
  },
};

/** Rows of heads of [B,T,H], where they lie. */
function headRows(context: Context, name: string): { readonly value: Value; readonly pitch: number } {
  const value = context.strided(name);
  const rows = rowsOf(value.sizes, value.strides);
  return rows ? { value, pitch: rows.pitch } : { value: context.input(name), pitch: value.sizes.at(-1) ?? 0 };
}

export const logDecay: Lowering = {
  lower(context) {
    const { value: x, pitch } = headRows(context, "x");
    const value = context.output();
    const heads = x.sizes.at(-1) ?? 0;
    if (value.count === 0) return;
    const args = [x, context.input("bias"), value, value.count / heads, heads, pitch];
    context.kernel("logDecay", blocksFor(context, value.count), 256, args);
  },
};

export const logDecayBackward: Lowering = {
  lower(context) {
    const { value: x, pitch } = headRows(context, "x");
    const dx = context.stridedOutput("x", [], ({ strides }) => rowsOf(x.sizes, strides) !== undefined);
    const dBias = context.output("bias");
    const heads = x.sizes.at(-1) ?? 0;
    if (x.count === 0) {
      context.zero(dBias, dBias.bytes);
      return;
    }
    const blockThreads = Math.floor(256 / heads) * heads;
    const blocks = Math.min(Math.ceil(x.count / blockThreads), context.multiprocessors * 2);
    const parts = context.scratch(4 * blocks * heads);
    const dxPitch = rowsOf(dx.sizes, dx.strides)?.pitch ?? heads;
    const given = [x, context.input("bias"), context.input("gradient")];
    const args = [...given, dx, parts, x.count / heads, heads, pitch, dxPitch];
    context.kernel("logDecayBackward", blocks, blockThreads, args);
    sumColumns(context, parts, blocks, dBias);
  },
};
