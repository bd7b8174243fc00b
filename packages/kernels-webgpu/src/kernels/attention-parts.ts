// What the attention kernels share: sizes, the small numbers of every row in one array, and scores.
//
// A thread has one row, of queries or of keys; the rows of the other side pass by in tiles of workgroup memory, so no
// array has T x T elements. The decay between two rows is never formed from a positive exponent:
//
//     same block of 64 positions    exp(min(g_i - g_j, 0))
//     an earlier block J            exp(g_i + totals of the blocks between) * exp(total_J - g_j)
//
// Where lambda |c| |b| times that is below a bound for every pair of two tiles, their importance term is left out.

import { decayBlock, type Node, sizesOf } from "@sisa/core";
import { flatGroup, gridOf, type Slot } from "../codegen/shader.ts";
import type { Capabilities } from "../device.ts";
import type { KernelContext } from "../lowering.ts";
import type { Value } from "../program.ts";

/** Rows of a workgroup, one for each thread; a block of decay sums. */
export const tileRows = decayBlock;

/** Scores that change by at most this are left as they are. */
const negligible = 2 ** -24;

export interface AttentionSizes {
  readonly B: number;
  readonly T: number;
  readonly C: number;
  readonly H: number;
  readonly D: number;
  readonly E: number;
  /** 0 for attention without an importance term. */
  readonly S: number;
}

export function attentionSizes({ inputs }: Node): AttentionSizes {
  const of = (name: string) => sizesOf(inputs[name]?.shape ?? []);
  const [B = 0, T = 0, H = 0, D = 0] = of("q");
  return { B, T, H, D, C: of("k")[1] ?? 0, E: of("v")[3] ?? 0, S: of("cRotated")[3] ?? 0 };
}

/** Rows of a tile in workgroup memory: as many as fit, and divide a block. */
export function rowsPerTile(floatsPerRow: number, limits: Capabilities["limits"]): number {
  const fit = Math.floor(limits.maxComputeWorkgroupStorageSize / (4 * (floatsPerRow + 4)));
  return [32, 16, 8, 4].find((rows) => rows <= fit) ?? 0;
}

/** Widths that are read four at a time, tiles that fit, and as many arrays as a kernel may bind. */
export function fitsAttention(node: Node, { limits }: Capabilities, bindings: number): boolean {
  const { B, T, C, H, D, E, S } = attentionSizes(node);
  const widths = [D, E, ...(S > 0 ? [S] : [])];
  return (
    node.inputs.bias === undefined &&
    B * T * C * H > 0 &&
    widths.every((width) => width % 4 === 0 && width >= 4 && width <= 128) &&
    rowsPerTile(D + E + S, limits) > 0 &&
    limits.maxStorageBuffersPerShaderStage >= bindings
  );
}

/** Where in the array of small numbers each kind begins. */
export interface RowNumbers {
  readonly value: Value;
  readonly gQuery: number;
  readonly gKey: number;
  readonly lambda: number;
  /** queryStart, then keyLength, as bits. */
  readonly positions: number;
  /** [B,H,blocks] largest |c| exp(g) of a block of queries, and |b| exp(total - g) of a block of keys. */
  readonly queryReach: number;
  readonly keyReach: number;
  /** [B,H,T], for the backward pass: log-sum-exp, and the product of output and its gradient. */
  readonly logSumExp: number;
  readonly delta: number;
  readonly queryBlocks: number;
  readonly keyBlocks: number;
}

/** Puts the small numbers of all rows into one array, since a kernel can bind few. */
export function gatherRowNumbers(context: KernelContext, sizes: AttentionSizes, backward: boolean): RowNumbers {
  const { B, T, C, H, S } = sizes;
  const [queryBlocks, keyBlocks] = [Math.ceil(T / decayBlock), Math.ceil(C / decayBlock)];
  let next = 0;
  const room = (count: number) => {
    next += count;
    return next - count;
  };
  const decay = S > 0 ? 1 : 0;
  const places = {
    gQuery: room(decay * B * T * H),
    gKey: room(decay * B * C * H),
    lambda: room(decay * H),
    positions: room(2 * B),
    queryReach: room(decay * B * H * queryBlocks),
    keyReach: room(decay * B * H * keyBlocks),
    logSumExp: room(backward ? B * H * T : 0),
    delta: room(backward ? B * H * T : 0),
  };
  const value = context.scratch("f32", next);
  const numbers: RowNumbers = { value, ...places, queryBlocks, keyBlocks };
  const slot: Slot = { value, access: "read_write" };
  const limit = context.device.limits.maxComputeWorkgroupsPerDimension;
  const copies: string[] = [];
  const slots: Record<string, Slot> = { numbers: slot };
  const copy = (name: string, place: number, count: number, otherwise?: string) => {
    if (context.has(name)) slots[name] = context.input(name);
    const element = context.has(name) ? `${name}[i]` : otherwise;
    const isInt = name === "queryStart" || name === "keyLength";
    if (element)
      copies.push(`if (i < ${count}u) { numbers[${place}u + i] = ${isInt ? "bitcast<f32>" : "f32"}(${element}); }`);
    return count;
  };
  const counts = [
    ...(S > 0
      ? [
          copy("gQuery", places.gQuery, B * T * H),
          copy("gKey", places.gKey, B * C * H),
          copy("lambda", places.lambda, H),
        ]
      : []),
    copy("queryStart", places.positions, B, "0"),
    copy("keyLength", places.positions + B, B, String(C)),
    ...(backward ? [copy("logSumExp", places.logSumExp, B * H * T)] : []),
  ];
  context.dispatch({
    label: ".numbers",
    slots,
    workgroupSize: [256],
    body: `let i = ${flatGroup} * 256u + lane;\n${copies.join("\n")}`,
    workgroups: gridOf(Math.ceil(Math.max(...counts) / 256), limit),
  });
  if (backward) delta(context, sizes, numbers);
  if (S > 0) {
    const isLast = `min(block * ${decayBlock}u + ${decayBlock - 1}u, ${C - 1}u)`;
    const total = `numbers[${places.gKey}u + (batch * ${C}u + ${isLast}) * ${H}u + head]`;
    reach(context, sizes, slot, "cRotated", T, places.queryReach, `numbers[${places.gQuery}u + at]`);
    reach(context, sizes, slot, "bRotated", C, places.keyReach, `${total} - numbers[${places.gKey}u + at]`);
  }
  return numbers;
}

/** Largest norm times decay of each block's rows. */
function reach(
  context: KernelContext,
  { B, H, S }: AttentionSizes,
  numbers: Slot,
  input: string,
  length: number,
  place: number,
  exponent: string,
): void {
  const blocks = Math.ceil(length / decayBlock);
  context.dispatch({
    label: ".reach",
    slots: { x: fours(context.input(input)), numbers },
    workgroupSize: [decayBlock],
    declarations: `var<workgroup> largest: array<f32, ${decayBlock}>;`,
    body: `let index = ${flatGroup};
let block = index % ${blocks}u;
let head = (index / ${blocks}u) % ${H}u;
let batch = index / ${blocks * H}u;
let t = block * ${decayBlock}u + lane;
var squares = 0.0f;
if (t < ${length}u && batch < ${B}u) {
let at = (batch * ${length}u + t) * ${H}u + head;
for (var s = 0u; s < ${S / 4}u; s++) { let four = vec4f(x[at * ${S / 4}u + s]); squares += dot(four, four); }
let decay = exp(min(${exponent}, 0.0f));
squares = squares * decay * decay;
}
largest[lane] = squares;
workgroupBarrier();
for (var half = ${decayBlock / 2}u; half > 0u; half = half >> 1u) {
if (lane < half) { largest[lane] = max(largest[lane], largest[lane + half]); }
workgroupBarrier();
}
if (lane == 0u && batch < ${B}u) { numbers[${place}u + index] = sqrt(largest[0]); }`,
    workgroups: gridOf(B * H * blocks, context.device.limits.maxComputeWorkgroupsPerDimension),
  });
}

/** sum_j p_ij dp_ij = o_i . do_i, so that no row of p dp has to be summed. */
function delta(context: KernelContext, { B, T, H, E }: AttentionSizes, { value, delta: place }: RowNumbers): void {
  context.dispatch({
    label: ".delta",
    slots: {
      o: fours(context.input("value")),
      gradient: fours(context.input("gradient")),
      numbers: { value, access: "read_write" },
    },
    workgroupSize: [64],
    body: `let i = ${flatGroup} * 64u + lane;
if (i >= ${B * T * H}u) { return; }
var total = 0.0f;
for (var e = 0u; e < ${E / 4}u; e++) { total += dot(vec4f(o[i * ${E / 4}u + e]), vec4f(gradient[i * ${E / 4}u + e])); }
let head = i % ${H}u;
let t = (i / ${H}u) % ${T}u;
let batch = i / ${H * T}u;
numbers[${place}u + (batch * ${H}u + head) * ${T}u + t] = total;`,
    workgroups: gridOf(Math.ceil((B * T * H) / 64), context.device.limits.maxComputeWorkgroupsPerDimension),
  });
}

/** An array whose rows are read four elements at a time. */
export function fours(slot: Slot): Slot {
  return { ...slot, type: `vec4<${slot.value.type}>` };
}

/** Lines that find out which rows a workgroup has: `tile`, `head`, `batch`, and the thread's own `t` of `length`. */
export function placeOfRow({ H }: AttentionSizes, length: number, width = tileRows): string {
  const tiles = Math.ceil(length / width);
  return `let index = ${flatGroup};
let tile = index % ${tiles}u;
let head = (index / ${tiles}u) % ${H}u;
let batch = index / ${tiles * H}u;
let t = tile * ${width}u + lane;
let inside = t < ${length}u;
let row = (batch * ${length}u + min(t, ${length - 1}u)) * ${H}u + head;`;
}

/** Lines that read a thread's own row into `name`, an array of vec4f; `name`Row must be bound. */
export function ownRow(name: string, array: string, width: number): string {
  return `var ${name}: array<vec4f, ${width / 4}>;
for (var d = 0u; d < ${width / 4}u; d++) { ${name}[d] = vec4f(${array}[row * ${width / 4}u + d]); }`;
}

/** Lines that copy `rows` rows from `first` on of an array [batch, length, H, width] into workgroup memory. */
export function loadTile(tile: string, array: string, rows: number, width: number, length: number, H: number): string {
  const quads = width / 4;
  return `for (var n = lane; n < ${rows * quads}u; n += ${tileRows}u) {
let other = min(first + n / ${quads}u, ${length - 1}u);
${tile}[n] = vec4f(${array}[((batch * ${length}u + other) * ${H}u + head) * ${quads}u + n % ${quads}u]);
}`;
}

/** The sum of products of a thread's own row with row `j` of a tile. */
export function dotWith(own: string, tile: string, width: number): string {
  return `{
var part = vec4f();
for (var d = 0u; d < ${width / 4}u; d++) { part = fma(${own}[d], ${tile}[j * ${width / 4}u + d], part); }
product = part.x + part.y + part.z + part.w;
}`;
}

/** True in WGSL where the importance terms of a tile pair may change a score. */
export function matters(lambda: string, queryReach: string, keyReach: string, between: string): string {
  return `(${lambda} * ${queryReach} * ${keyReach} * exp(${between}) > ${negligible})`;
}
