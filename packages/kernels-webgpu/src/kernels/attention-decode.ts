// Attention of a few queries to a cache, as in decoding: a workgroup takes one query and one block of keys, and what the
// blocks give is joined afterwards.

import { decayBlock } from "@sisa/core";
import { maxOfLanes, sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import type { KernelContext } from "../lowering.ts";
import { attentionSizes, negligible } from "./attention-parts.ts";
import { fours } from "./attention-tiles.ts";

/** Queries of a row up to which tiles of them would be mostly empty. */
const fewRows = 16;

const optional = ["queryStart", "keyLength"] as const;

export function isForFewRows({ node, device, has }: KernelContext): boolean {
  const { T, S } = attentionSizes(node);
  const bindings = 4 + (S > 0 ? 5 : 0) + optional.filter(has).length;
  return T <= fewRows && bindings <= device.limits.maxStorageBuffersPerShaderStage;
}

export function attendFewRows(context: KernelContext, causal: boolean): void {
  const { B, T, C, H, D, E, S } = attentionSizes(context.node);
  const scale = context.attributes.scale as number;
  const blocks = Math.ceil(C / decayBlock);
  const rows = B * T * H;
  // Of every query and block: the sums of values, the largest score, the sum of weights.
  const width = E + 2;
  const parts = context.scratch("f32", rows * blocks * width);
  const given: Record<string, Slot> = {};
  for (const name of optional) if (context.has(name)) given[name] = context.input(name);
  const has = S > 0;
  const dot = (x: string, at: string, y: string, place: string, size: number) =>
    `for (var d = 0u; d < ${size / 4}u; d++) { product += dot(vec4f(${x}[${at} * ${size / 4}u + d]), vec4f(${y}[${place} * ${size / 4}u + d])); }`;
  const gAt = (place: string) => `f32(gKey[(batch * ${C}u + min(${place}, ${C - 1}u)) * ${H}u + head])`;
  const total = (block: string) => gAt(`${block} * ${decayBlock}u + ${decayBlock - 1}u`);

  context.dispatch({
    label: ".blocks",
    slots: {
      q: fours(context.input("q")),
      k: fours(context.input("k")),
      v: context.input("v"),
      ...(has && {
        c: fours(context.input("cRotated")),
        b: fours(context.input("bRotated")),
        gQuery: context.input("gQuery"),
        gKey: context.input("gKey"),
        lambda: context.input("lambda"),
      }),
      ...given,
      parts: { value: parts, access: "read_write" },
    },
    workgroupSize: [decayBlock],
    declarations: `var<workgroup> weights: array<f32, ${decayBlock}>;
${maxOfLanes(context.device, decayBlock)}
${sumOfLanes(context.device, decayBlock)}`,
    body: `let index = ${flatGroup};
let block = index % ${blocks}u;
let row = index / ${blocks}u;
if (row >= ${rows}u) { return; }
let head = row % ${H}u;
let t = (row / ${H}u) % ${T}u;
let batch = row / ${H * T}u;
let position = i32(t)${context.has("queryStart") ? " + queryStart[batch]" : ""};
let seen = min(${context.has("keyLength") ? "keyLength[batch]" : `${C}`}, ${causal ? `min(position + 1, ${C})` : `${C}`});
let place = (row * ${blocks}u + block) * ${width}u;
let first = block * ${decayBlock}u;
let key = first + lane;
let at = (batch * ${C}u + min(key, ${C - 1}u)) * ${H}u + head;
var score = ${negligible.score}f;
if (i32(key) < seen) {
var product = 0.0f;
${dot("q", "row", "k", "at", D)}
score = product * ${scale}f;
${
  has
    ? `product = 0.0f;
${dot("c", "row", "b", "at", S)}
let ownBlock = u32(max(position, 0)) / ${decayBlock}u;
let g = f32(gQuery[row]);
var between = 0.0f;
for (var other = block + 1u; other < ownBlock; other++) { between += ${total("other")}; }
let gOther = ${gAt("key")};
let far = exp(g + between) * exp(min(${total("block")} - gOther, 0.0f));
score = fma(f32(lambda[head]) * select(far, exp(min(g - gOther, 0.0f)), block >= ownBlock), product, score);`
    : ""
}
}
let largest = max_of_lanes(lane, score);
let weight = select(exp(score - largest), 0.0f, score <= ${negligible.score}f);
weights[lane] = weight;
let total = sum_of_lanes(lane, weight);
if (lane == 0u) {
parts[place + ${E}u] = largest;
parts[place + ${E + 1}u] = total;
}
let keys = u32(clamp(seen - i32(first), 0, ${decayBlock}));
for (var e = lane; e < ${E}u; e += ${decayBlock}u) {
var sum = 0.0f;
for (var j = 0u; j < keys; j++) { sum = fma(weights[j], f32(v[((batch * ${C}u + first + j) * ${H}u + head) * ${E}u + e]), sum); }
parts[place + e] = sum;
}`,
    workgroups: context.grid(rows * blocks),
  });

  const [out, logSumExp] = [context.output(), context.output("logSumExp")];
  // A query that sees no key gets nothing.
  context.dispatch({
    label: ".join",
    slots: { parts: { value: parts, access: "read" }, out, logSumExp },
    workgroupSize: [Math.min(E, 64)],
    body: `let row = ${flatGroup};
if (row >= ${rows}u) { return; }
var largest = ${negligible.score}f;
for (var block = 0u; block < ${blocks}u; block++) { largest = max(largest, parts[(row * ${blocks}u + block) * ${width}u + ${E}u]); }
var total = 0.0f;
for (var block = 0u; block < ${blocks}u; block++) {
let place = (row * ${blocks}u + block) * ${width}u;
total = fma(parts[place + ${E + 1}u], exp(parts[place + ${E}u] - largest), total);
}
let share = select(1.0f / total, 0.0f, total == 0.0f);
for (var e = lane; e < ${E}u; e += ${Math.min(E, 64)}u) {
var sum = 0.0f;
for (var block = 0u; block < ${blocks}u; block++) {
let place = (row * ${blocks}u + block) * ${width}u;
sum = fma(parts[place + e], exp(parts[place + ${E}u] - largest), sum);
}
out[row * ${E}u + e] = ${out.value.type}(sum * share);
}
if (lane == 0u) {
let head = row % ${H}u;
let t = (row / ${H}u) % ${T}u;
logSumExp[(row / ${H * T}u * ${H}u + head) * ${T}u + t] = ${logSumExp.value.type}(select(largest + log(total), -infinity(), total == 0.0f));
}`,
    workgroups: context.grid(rows),
  });
}
