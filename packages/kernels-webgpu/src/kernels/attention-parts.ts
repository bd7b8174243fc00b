// What the attention kernels share: sizes, and the small numbers of every row in one array. The decay between two rows is
// never formed from a positive exponent:
//
//     same block of 64 positions    exp(min(g_i - g_j, 0))
//     an earlier block J            exp(g_i + totals of the blocks between) * exp(total_J - g_j)
//
// Where lambda |c| |b| times that is below a bound for every pair of two tiles, their importance term is left out.

import { decayBlock, type Node, sizesOf } from "@sisa/core";
import { maxOfLanes } from "../codegen/lanes.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import type { Capabilities } from "../device.ts";
import type { KernelContext } from "../lowering.ts";
import type { Value } from "../program.ts";
import { fours, type Rows, tileRows, tileShape } from "./attention-tiles.ts";
import { dispatchEach } from "./each.ts";

/** Importance terms up to this change no score, and a score down to this is that of no pair. */
export const negligible = { term: 2 ** -24, score: -3e38 } as const;

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

/** Widths that are read four at a time, tiles that fit, and as many arrays as a kernel may bind. */
export function fitsAttention(node: Node, device: Capabilities, bindings: number): boolean {
  const { B, T, C, H, D, E, S } = attentionSizes(node);
  const widths = [D, E, ...(S > 0 ? [S] : [])];
  return (
    node.inputs.bias === undefined &&
    node.inputs.pages === undefined &&
    B * T * C * H > 0 &&
    widths.every((width) => width % 4 === 0 && width >= 4 && width <= 128) &&
    tileShape(device) !== undefined &&
    device.limits.maxStorageBuffersPerShaderStage >= bindings
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
    workgroups: context.grid(Math.ceil(Math.max(...counts) / 256)),
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
    declarations: maxOfLanes(context.device, decayBlock),
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
let largest = max_of_lanes(lane, squares);
if (lane == 0u && batch < ${B}u) { numbers[${place}u + index] = sqrt(largest); }`,
    workgroups: context.grid(B * H * blocks),
  });
}

/** sum_j p_ij dp_ij = o_i . do_i, so that no row of p dp has to be summed. */
function delta(context: KernelContext, { B, T, H, E }: AttentionSizes, { value, delta: place }: RowNumbers): void {
  dispatchEach(context, {
    label: ".delta",
    slots: {
      o: fours(context.input("value")),
      gradient: fours(context.input("gradient")),
      numbers: { value, access: "read_write" },
    },
    elements: B * T * H,
    threads: 64,
    body: `var total = 0.0f;
for (var e = 0u; e < ${E / 4}u; e++) { total += dot(vec4f(o[i * ${E / 4}u + e]), vec4f(gradient[i * ${E / 4}u + e])); }
let head = i % ${H}u;
let t = (i / ${H}u) % ${T}u;
let batch = i / ${H * T}u;
numbers[${place}u + (batch * ${H}u + head) * ${T}u + t] = total;`,
  });
}

/** Lines that find out which rows a workgroup has, and a thread: `tile`, `head`, `batch`, `firstOwn`, and `ownRow`. */
export function placeOfTile({ B, H }: AttentionSizes, length: number): string {
  const tiles = Math.ceil(length / tileRows);
  return `let index = ${flatGroup};
let tile = index % ${tiles}u;
let head = (index / ${tiles}u) % ${H}u;
let batch = index / ${tiles * H}u;
if (batch >= ${B}u) { return; }
let threadRow = lane % ${tileRows / 4}u;
let threadColumn = lane / ${tileRows / 4}u;
let firstOwn = tile * ${tileRows}u;
let ownRow = firstOwn + threadRow * 4u;`;
}

/** The arrays of attention by the names that kernels have for them. */
export function tileArrays({ T, C, H, D, E, S }: AttentionSizes) {
  const rows = (array: string, length: number, width: number): Rows => ({ array, length, heads: H, width });
  return {
    q: rows("q", T, D),
    k: rows("k", C, D),
    v: rows("v", C, E),
    c: rows("c", T, S),
    b: rows("b", C, S),
    gradient: rows("gradient", T, E),
  };
}

/** The sum of log decay of a block of keys. */
export function totalOf({ C, H }: AttentionSizes, { gKey }: RowNumbers, block: string): string {
  return `numbers[${gKey}u + (batch * ${C}u + min(u32(${block}) * ${decayBlock}u + ${decayBlock - 1}u, ${C - 1}u)) * ${H}u + head]`;
}

/** True in WGSL where the importance terms of a tile pair may change a score. `reach` has lambda in it. */
export function matters(reach: string, otherReach: string, between: string): string {
  return `${reach} * ${otherReach} * exp(${between}) > ${negligible.term}`;
}
