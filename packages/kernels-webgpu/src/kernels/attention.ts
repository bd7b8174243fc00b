// Softmax attention forward, with and without the importance term of SISA, over a whole sequence or a cache.

import { decayBlock } from "@sisa/core";
import { gridOf, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import {
  attentionSizes,
  dotWith,
  fitsAttention,
  fours,
  gatherRowNumbers,
  loadTile,
  matters,
  ownRow,
  placeOfRow,
  rowsPerTile,
  tileRows,
} from "./attention-parts.ts";

/** Keys whose scores a thread holds at a time: their largest is found before anything is scaled. */
const keysAtOnce = 4;

const bindings = 8;

export const attention = kernel((context) => forward(context, context.attributes.causal as boolean), {
  supports: (node, device) => fitsAttention(node, device, bindings),
});

export const decayAttention = kernel((context) => forward(context, true), {
  supports: (node, device) => fitsAttention(node, device, bindings),
});

function forward(context: KernelContext, causal: boolean): void {
  const sizes = attentionSizes(context.node);
  const { B, T, C, H, D, E, S } = sizes;
  const scale = context.attributes.scale as number;
  const numbers = gatherRowNumbers(context, sizes, false);
  const rows = rowsPerTile(D + E + S, context.device.limits);
  const slots: Record<string, Slot> = {
    q: fours(context.input("q")),
    k: fours(context.input("k")),
    v: fours(context.input("v")),
    ...(S > 0 && { c: fours(context.input("cRotated")), b: fours(context.input("bRotated")) }),
    numbers: { value: numbers.value, access: "read" },
    out: fours(context.output()),
    logSumExp: context.output("logSumExp"),
  };
  const { keyBlocks } = numbers;
  const total = (block: string) =>
    `numbers[${numbers.gKey}u + (batch * ${C}u + min(u32(${block}) * ${decayBlock}u + ${decayBlock - 1}u, ${C - 1}u)) * ${H}u + head]`;
  const importance = {
    declarations: `var<workgroup> tileB: array<vec4f, ${(rows * S) / 4}>;
var<workgroup> tileG: array<f32, ${rows}>;
var<workgroup> tileRest: array<f32, ${rows}>;
var<workgroup> needed: atomic<u32>;`,
    before: `${ownRow("own_c", "c", S)}
let lambda = numbers[${numbers.lambda}u + head];
let g = numbers[${numbers.gQuery}u + row];
var norm = 0.0f;
for (var d = 0u; d < ${S / 4}u; d++) { norm += dot(own_c[d], own_c[d]); }
norm = sqrt(norm);
let ownBlock = position / ${decayBlock};
var between = 0.0f;
var previous = (last - 1) / ${decayBlock};`,
    // Keys are walked from the nearest to the farthest, so the totals between come one at a time.
    tile: `let block = i32(first) / ${decayBlock};
if (block != previous && previous < ownBlock) { between += ${total("previous")}; }
previous = block;
let reach = numbers[${numbers.keyReach}u + (batch * ${H}u + head) * ${keyBlocks}u + u32(block)];
let counts = inside && (block >= ownBlock || ${matters("lambda", "norm", "reach", "g + between")});
if (lane == 0u) { atomicStore(&needed, 0u); }
workgroupBarrier();
if (counts) { atomicOr(&needed, 1u); }
workgroupBarrier();
let important = atomicLoad(&needed) == 1u;
if (important) {
${loadTile("tileB", "b", rows, S, C, H)}
if (lane < ${rows}u) {
let other = min(first + lane, ${C - 1}u);
let gOther = numbers[${numbers.gKey}u + (batch * ${C}u + other) * ${H}u + head];
tileG[lane] = gOther;
tileRest[lane] = exp(min(${total("block")} - gOther, 0.0f));
}
}
let far = exp(g + between);`,
    score: `if (important) {
${dotWith("own_c", "tileB", S)}
let decay = select(far * tileRest[j], exp(min(g - tileG[j], 0.0f)), block >= ownBlock);
score = fma(lambda * decay, product, score);
}`,
  };
  const has = S > 0;
  context.dispatch({
    label: "",
    slots,
    workgroupSize: [tileRows],
    declarations: `var<workgroup> tileK: array<vec4f, ${(rows * D) / 4}>;
var<workgroup> tileV: array<vec4f, ${(rows * E) / 4}>;
${has ? importance.declarations : ""}`,
    body: `${placeOfRow(sizes, T)}
if (batch >= ${B}u) { return; }
let position = bitcast<i32>(numbers[${numbers.positions}u + batch]) + i32(t);
let seen = min(bitcast<i32>(numbers[${numbers.positions + B}u + batch]), ${C});
let last = ${causal ? `min(seen, bitcast<i32>(numbers[${numbers.positions}u + batch]) + i32(min((tile + 1u) * ${tileRows}u, ${T}u)))` : "seen"};
${ownRow("own_q", "q", D)}
var sum: array<vec4f, ${E / 4}>;
var largest = -3e38f;
var total = 0.0f;
${has ? importance.before : ""}
for (var step = (last - 1) / ${rows}; step >= 0 && last > 0; step--) {
let first = u32(step) * ${rows}u;
workgroupBarrier();
${has ? importance.tile : ""}
${loadTile("tileK", "k", rows, D, C, H)}
${loadTile("tileV", "v", rows, E, C, H)}
workgroupBarrier();
for (var group = 0u; group < ${rows}u; group += ${keysAtOnce}u) {
var scores: array<f32, ${keysAtOnce}>;
var peak = largest;
for (var n = 0u; n < ${keysAtOnce}u; n++) {
let j = group + n;
let key = i32(first + j);
var product = 0.0f;
${dotWith("own_q", "tileK", D)}
var score = product * ${scale}f;
${has ? importance.score : ""}
score = select(-3e38f, score, key < seen${causal ? " && key <= position" : ""});
scores[n] = score;
peak = max(peak, score);
}
let fix = exp(largest - peak);
largest = peak;
total *= fix;
for (var e = 0u; e < ${E / 4}u; e++) { sum[e] *= fix; }
for (var n = 0u; n < ${keysAtOnce}u; n++) {
let p = select(exp(scores[n] - peak), 0.0f, scores[n] <= -3e38f);
total += p;
for (var e = 0u; e < ${E / 4}u; e++) { sum[e] = fma(vec4f(p), tileV[(group + n) * ${E / 4}u + e], sum[e]); }
}
}
}
if (inside) {
// A query that sees no key gets nothing.
let share = select(1.0f / total, 0.0f, total == 0.0f);
for (var e = 0u; e < ${E / 4}u; e++) { out[row * ${E / 4}u + e] = vec4<${context.output().value.type}>(sum[e] * share); }
logSumExp[(batch * ${H}u + head) * ${T}u + t] = ${context.output("logSumExp").value.type}(select(largest + log(total), -infinity(), total == 0.0f));
}`,
    workgroups: gridOf(B * H * Math.ceil(T / tileRows), context.device.limits.maxComputeWorkgroupsPerDimension),
  });
}
