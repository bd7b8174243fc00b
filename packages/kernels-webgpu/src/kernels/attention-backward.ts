// Gradients of softmax attention over a whole sequence, with and without the importance term of SISA: one kernel with a
// query row for each thread, one with a key row. Scores are computed again from the log-sum-exp of the forward pass.

import { decayBlock } from "@sisa/core";
import { flatGroup, gridOf, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import {
  type AttentionSizes,
  attentionSizes,
  dotWith,
  fitsAttention,
  fours,
  gatherRowNumbers,
  loadTile,
  matters,
  ownRow,
  placeOfRow,
  type RowNumbers,
  rowsPerTile,
  tileRows,
} from "./attention-parts.ts";

const bindings = 10;

export const attentionBackward = kernel(
  (context) => {
    const sizes = attentionSizes(context.node);
    const causal = context.attributes.causal as boolean;
    const numbers = gatherRowNumbers(context, sizes, true);
    queryGradients(context, sizes, numbers, causal);
    keyGradients(context, sizes, numbers, causal);
  },
  // Gradients by the scores would be T x T; only a bias asks for them.
  { supports: (node, device) => fitsAttention(node, device, bindings), omits: ["scores"] },
);

export const decayAttentionBackward = kernel(
  (context) => {
    const sizes = attentionSizes(context.node);
    const numbers = gatherRowNumbers(context, sizes, true);
    queryGradients(context, sizes, numbers, true);
    keyGradients(context, sizes, numbers, true);
    decayGradients(context, sizes);
  },
  {
    supports: (node, device) => {
      const { T, C } = attentionSizes(node);
      return T === C && fitsAttention(node, device, bindings);
    },
  },
);

function inputs(context: KernelContext, { S }: AttentionSizes, { value }: RowNumbers) {
  return {
    q: fours(context.input("q")),
    k: fours(context.input("k")),
    v: fours(context.input("v")),
    ...(S > 0 && { c: fours(context.input("cRotated")), b: fours(context.input("bRotated")) }),
    gradient: fours(context.input("gradient")),
    numbers: { value, access: "read" },
  } satisfies Record<string, Slot>;
}

/** The sum of log decay of a block of keys. */
function totalOf({ C, H }: AttentionSizes, { gKey }: RowNumbers, block: string): string {
  return `numbers[${gKey}u + (batch * ${C}u + min(u32(${block}) * ${decayBlock}u + ${decayBlock - 1}u, ${C - 1}u)) * ${H}u + head]`;
}

/** Whether the importance term of this tile counts for any thread: a decision of the whole workgroup. */
const agree = `if (lane == 0u) { atomicStore(&needed, 0u); }
workgroupBarrier();
if (counts) { atomicOr(&needed, 1u); }
workgroupBarrier();
let important = atomicLoad(&needed) == 1u;`;

const norm = (own: string, width: number) => `var norm = 0.0f;
for (var d = 0u; d < ${width / 4}u; d++) { norm += dot(${own}[d], ${own}[d]); }
norm = sqrt(norm);`;

function queryGradients(context: KernelContext, sizes: AttentionSizes, numbers: RowNumbers, causal: boolean): void {
  const { B, T, C, H, D, E, S } = sizes;
  const scale = context.attributes.scale as number;
  const rows = rowsPerTile(D + E + S, context.device.limits);
  const [dq, dc] = [context.output("q"), S > 0 ? context.output("cRotated") : undefined];
  const has = S > 0;
  context.dispatch({
    label: ".queries",
    slots: { ...inputs(context, sizes, numbers), dq: fours(dq), ...(dc && { dc: fours(dc) }) },
    workgroupSize: [tileRows],
    declarations: `var<workgroup> tileK: array<vec4f, ${(rows * D) / 4}>;
var<workgroup> tileV: array<vec4f, ${(rows * E) / 4}>;
${
  has
    ? `var<workgroup> tileB: array<vec4f, ${(rows * S) / 4}>;
var<workgroup> tileG: array<f32, ${rows}>;
var<workgroup> tileRest: array<f32, ${rows}>;
var<workgroup> needed: atomic<u32>;`
    : ""
}`,
    body: `${placeOfRow(sizes, T)}
if (batch >= ${B}u) { return; }
${ownRow("own_q", "q", D)}
${ownRow("own_gradient", "gradient", E)}
var sum_q: array<vec4f, ${D / 4}>;
let place = (batch * ${H}u + head) * ${T}u + min(t, ${T - 1}u);
let logSumExp = numbers[${numbers.logSumExp}u + place];
let delta = numbers[${numbers.delta}u + place];
let last = ${causal ? `min(${C}u, (tile + 1u) * ${tileRows}u)` : `${C}u`};
${
  has
    ? `${ownRow("own_c", "c", S)}
var sum_c: array<vec4f, ${S / 4}>;
let lambda = numbers[${numbers.lambda}u + head];
let g = numbers[${numbers.gQuery}u + row];
${norm("own_c", S)}
var between = 0.0f;
var previous = tile;`
    : ""
}
for (var step = i32((last - 1u) / ${rows}u); step >= 0; step--) {
let first = u32(step) * ${rows}u;
workgroupBarrier();
${
  has
    ? `let block = first / ${decayBlock}u;
if (block != previous && previous < tile) { between += ${totalOf(sizes, numbers, "previous")}; }
previous = block;
let reach = numbers[${numbers.keyReach}u + (batch * ${H}u + head) * ${numbers.keyBlocks}u + block];
let counts = inside && (block == tile || ${matters("lambda", "norm", "reach", "g + between")});
${agree}
if (important) {
${loadTile("tileB", "b", rows, S, C, H)}
if (lane < ${rows}u) {
let gOther = numbers[${numbers.gKey}u + (batch * ${C}u + min(first + lane, ${C - 1}u)) * ${H}u + head];
tileG[lane] = gOther;
tileRest[lane] = exp(min(${totalOf(sizes, numbers, "block")} - gOther, 0.0f));
}
}
let far = exp(g + between);`
    : ""
}
${loadTile("tileK", "k", rows, D, C, H)}
${loadTile("tileV", "v", rows, E, C, H)}
workgroupBarrier();
for (var j = 0u; j < ${rows}u; j++) {
let key = first + j;
if (!inside || key >= ${C}u${causal ? " || key > t" : ""}) { continue; }
var product = 0.0f;
${dotWith("own_q", "tileK", D)}
var score = product * ${scale}f;
${
  has
    ? `var weight = 0.0f;
if (important) {
${dotWith("own_c", "tileB", S)}
weight = lambda * select(far * tileRest[j], exp(min(g - tileG[j], 0.0f)), block == tile);
score = fma(weight, product, score);
}`
    : ""
}
${dotWith("own_gradient", "tileV", E)}
let slope = exp(score - logSumExp) * (product - delta);
for (var d = 0u; d < ${D / 4}u; d++) { sum_q[d] = fma(vec4f(slope), tileK[j * ${D / 4}u + d], sum_q[d]); }
${
  has
    ? `if (important) {
for (var d = 0u; d < ${S / 4}u; d++) { sum_c[d] = fma(vec4f(slope * weight), tileB[j * ${S / 4}u + d], sum_c[d]); }
}`
    : ""
}
}
}
if (inside) {
for (var d = 0u; d < ${D / 4}u; d++) { dq[row * ${D / 4}u + d] = vec4<${dq.value.type}>(sum_q[d] * ${scale}f); }
${has ? `for (var d = 0u; d < ${S / 4}u; d++) { dc[row * ${S / 4}u + d] = vec4<${dc?.value.type}>(sum_c[d]); }` : ""}
}`,
    workgroups: gridOf(B * H * Math.ceil(T / tileRows), context.device.limits.maxComputeWorkgroupsPerDimension),
  });
}

function keyGradients(context: KernelContext, sizes: AttentionSizes, numbers: RowNumbers, causal: boolean): void {
  const { B, T, C, H, D, E, S } = sizes;
  const scale = context.attributes.scale as number;
  const rows = rowsPerTile(D + E + S, context.device.limits);
  const has = S > 0;
  const [dk, dv, db] = [context.output("k"), context.output("v"), has ? context.output("bRotated") : undefined];
  context.dispatch({
    label: ".keys",
    slots: { ...inputs(context, sizes, numbers), dk: fours(dk), dv: fours(dv), ...(db && { db: fours(db) }) },
    workgroupSize: [tileRows],
    declarations: `var<workgroup> tileQ: array<vec4f, ${(rows * D) / 4}>;
var<workgroup> tileGradient: array<vec4f, ${(rows * E) / 4}>;
var<workgroup> tileSums: array<vec2f, ${rows}>;
${
  has
    ? `var<workgroup> tileC: array<vec4f, ${(rows * S) / 4}>;
var<workgroup> tileG: array<vec2f, ${rows}>;
var<workgroup> needed: atomic<u32>;`
    : ""
}`,
    body: `${placeOfRow(sizes, C)}
if (batch >= ${B}u) { return; }
${ownRow("own_k", "k", D)}
${ownRow("own_v", "v", E)}
var sum_k: array<vec4f, ${D / 4}>;
var sum_v: array<vec4f, ${E / 4}>;
${
  has
    ? `${ownRow("own_b", "b", S)}
var sum_b: array<vec4f, ${S / 4}>;
let lambda = numbers[${numbers.lambda}u + head];
let g = numbers[${numbers.gKey}u + row];
let rest = exp(min(${totalOf(sizes, numbers, "tile")} - g, 0.0f));
${norm("own_b", S)}
var between = 0.0f;
var previous = tile;`
    : ""
}
for (var first = ${causal ? `tile * ${tileRows}u` : "0u"}; first < ${T}u; first += ${rows}u) {
workgroupBarrier();
${
  has
    ? `let block = first / ${decayBlock}u;
if (block != previous && previous > tile) { between += ${totalOf(sizes, numbers, "previous")}; }
previous = block;
let reach = numbers[${numbers.queryReach}u + (batch * ${H}u + head) * ${numbers.queryBlocks}u + block];
let counts = inside && (block == tile || ${matters("lambda", "norm * rest", "reach", "between")});
${agree}
if (important) {
${loadTile("tileC", "c", rows, S, T, H)}
if (lane < ${rows}u) {
let gOther = numbers[${numbers.gQuery}u + (batch * ${T}u + min(first + lane, ${T - 1}u)) * ${H}u + head];
tileG[lane] = vec2f(gOther, exp(min(gOther, 0.0f)));
}
}
let far = rest * exp(between);`
    : ""
}
${loadTile("tileQ", "q", rows, D, T, H)}
${loadTile("tileGradient", "gradient", rows, E, T, H)}
if (lane < ${rows}u) {
let place = (batch * ${H}u + head) * ${T}u + min(first + lane, ${T - 1}u);
tileSums[lane] = vec2f(numbers[${numbers.logSumExp}u + place], numbers[${numbers.delta}u + place]);
}
workgroupBarrier();
for (var j = 0u; j < ${rows}u; j++) {
let query = first + j;
if (!inside || query >= ${T}u${causal ? " || query < t" : ""}) { continue; }
var product = 0.0f;
${dotWith("own_k", "tileQ", D)}
var score = product * ${scale}f;
${
  has
    ? `var weight = 0.0f;
if (important) {
${dotWith("own_b", "tileC", S)}
weight = lambda * select(far * tileG[j].y, exp(min(tileG[j].x - g, 0.0f)), block == tile);
score = fma(weight, product, score);
}`
    : ""
}
let p = exp(score - tileSums[j].x);
${dotWith("own_v", "tileGradient", E)}
let slope = p * (product - tileSums[j].y);
for (var e = 0u; e < ${E / 4}u; e++) { sum_v[e] = fma(vec4f(p), tileGradient[j * ${E / 4}u + e], sum_v[e]); }
for (var d = 0u; d < ${D / 4}u; d++) { sum_k[d] = fma(vec4f(slope), tileQ[j * ${D / 4}u + d], sum_k[d]); }
${
  has
    ? `if (important) {
for (var d = 0u; d < ${S / 4}u; d++) { sum_b[d] = fma(vec4f(slope * weight), tileC[j * ${S / 4}u + d], sum_b[d]); }
}`
    : ""
}
}
}
if (inside) {
for (var d = 0u; d < ${D / 4}u; d++) { dk[row * ${D / 4}u + d] = vec4<${dk.value.type}>(sum_k[d] * ${scale}f); }
for (var e = 0u; e < ${E / 4}u; e++) { dv[row * ${E / 4}u + e] = vec4<${dv.value.type}>(sum_v[e]); }
${has ? `for (var d = 0u; d < ${S / 4}u; d++) { db[row * ${S / 4}u + d] = vec4<${db?.value.type}>(sum_b[d]); }` : ""}
}`,
    workgroups: gridOf(B * H * Math.ceil(C / tileRows), context.device.limits.maxComputeWorkgroupsPerDimension),
  });
}

/**
 * d score / d g_i = score, so g_i gets c_i . dc_i and g_j gets -(b_j . db_j). The total of a block, which its last
 * position holds, takes part in every pair that spans it: it gets what all later blocks have.
 */
function decayGradients(context: KernelContext, { B, T, H, S }: AttentionSizes): void {
  const limit = context.device.limits.maxComputeWorkgroupsPerDimension;
  const blocks = Math.ceil(T / decayBlock);
  const [gQuery, gKey, ofLambda] = [context.output("gQuery"), context.output("gKey"), context.output("lambda")];
  // Of each block: the sums of read and of read - write.
  const sums = context.scratch("f32", B * H * blocks * 2);
  context.dispatch({
    label: ".decay",
    slots: {
      c: fours(context.input("cRotated")),
      dc: fours({ ...context.output("cRotated"), access: "read" }),
      b: fours(context.input("bRotated")),
      db: fours({ ...context.output("bRotated"), access: "read" }),
      gQuery,
      gKey,
      sums: { value: sums, access: "read_write" },
    },
    workgroupSize: [decayBlock],
    declarations: `var<workgroup> parts: array<vec2f, ${decayBlock}>;`,
    body: `let index = ${flatGroup};
let block = index % ${blocks}u;
let head = (index / ${blocks}u) % ${H}u;
let batch = index / ${blocks * H}u;
let t = block * ${decayBlock}u + lane;
var both = vec2f();
if (t < ${T}u && batch < ${B}u) {
let row = (batch * ${T}u + t) * ${H}u + head;
for (var d = row * ${S / 4}u; d < (row + 1u) * ${S / 4}u; d++) {
both += vec2f(dot(vec4f(c[d]), vec4f(dc[d])), dot(vec4f(b[d]), vec4f(db[d])));
}
gQuery[row] = ${gQuery.value.type}(both.x);
gKey[row] = ${gKey.value.type}(-both.y);
}
parts[lane] = both;
workgroupBarrier();
for (var half = ${decayBlock / 2}u; half > 0u; half = half >> 1u) {
if (lane < half) { parts[lane] += parts[lane + half]; }
workgroupBarrier();
}
if (lane == 0u && batch < ${B}u) {
sums[index * 2u] = parts[0].x;
sums[index * 2u + 1u] = parts[0].x - parts[0].y;
}`,
    workgroups: gridOf(B * H * blocks, limit),
  });
  context.dispatch({
    label: ".totals",
    slots: { sums: { value: sums, access: "read" }, gKey },
    workgroupSize: [64],
    body: `let i = ${flatGroup} * 64u + lane;
if (i >= ${B * H}u) { return; }
var later = 0.0f;
for (var block = ${blocks}u; block > 0u; block--) {
let last = block * ${decayBlock}u - 1u;
if (last < ${T}u) {
let place = ((i / ${H}u) * ${T}u + last) * ${H}u + i % ${H}u;
gKey[place] = ${gKey.value.type}(f32(gKey[place]) + later);
}
later += sums[(i * ${blocks}u + block - 1u) * 2u + 1u];
}`,
    workgroups: gridOf(Math.ceil((B * H) / 64), limit),
  });
  context.dispatch({
    label: ".lambda",
    slots: { sums: { value: sums, access: "read" }, weight: context.input("lambda"), out: ofLambda },
    workgroupSize: [64],
    body: `let head = ${flatGroup} * 64u + lane;
if (head >= ${H}u) { return; }
var total = 0.0f;
for (var batch = 0u; batch < ${B}u; batch++) {
for (var block = 0u; block < ${blocks}u; block++) { total += sums[((batch * ${H}u + head) * ${blocks}u + block) * 2u]; }
}
out[head] = ${ofLambda.value.type}(total / f32(weight[head]));`,
    workgroups: gridOf(Math.ceil(H / 64), limit),
  });
}
