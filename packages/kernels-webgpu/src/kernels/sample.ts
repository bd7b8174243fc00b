// Choosing tokens by logits: a workgroup for each row, which sorts nothing. What is asked for, a threshold or a place, is
// found two bits at a time, from the highest on, by the sums that four candidates give.
//
// Logits are compared as whole numbers of their order, so NaN and infinities are what they are, and no two are confused.

import { flatGroup } from "../codegen/shader.ts";
import { kernel } from "../lowering.ts";

const threads = 256;

/** What is searched for after each other, all in one loop: drivers would copy its barriers for each call of a function. */
const stages = `
const keyByCount = 0u;
const placeByCount = 1u;
const weightForTopP = 2u;
const keyByWeight = 3u;
const placeByWeight = 4u;
const weightForDraw = 5u;
const placeOfDraw = 6u;`;

/**
 * A whole number for each logit, in the order of the logits; both zeros are one. With it the largest number that is finite,
 * and what is below all numbers.
 */
const orders = `
const mostKey = 0xff7fffffu;
const impossibleKey = 0x007fffffu;
fn keyOf(bits: u32) -> u32 {
let plain = select(bits, 0u, bits == 0x80000000u);
return select(plain | 0x80000000u, ~plain, (plain >> 31u) == 1u);
}`;

/**
 * Finds the best token first, where what is no number counts as more than all that are. Then `found` is the largest number
 * for which a stage's sum is as wanted, which it is for all that are smaller, and `cutKey` and `cutPlace` say what is kept
 * so far: what is above the key, and of its equals those at lower places.
 */
export const sampleTokens = kernel(
  (context) => {
    const [rows = 0, size = 0] = context.sizes(context.node.inputs.logits);
    if (rows === 0) return;
    const placeBits = 2 * Math.ceil(Math.log2(size + 1) / 2);
    context.dispatch({
      label: "",
      slots: {
        logits: { ...context.input("logits"), type: "u32" },
        uniforms: context.input("uniform"),
        temperatures: context.input("temperature"),
        topK: context.input("topK"),
        topP: context.input("topP"),
        out: context.output(),
      },
      workgroupSize: [threads],
      declarations: `var<workgroup> sums: array<vec4f, ${threads}>;
var<workgroup> bests: array<vec2u, ${threads}>;
${stages}
${orders}`,
      body: `let row = min(${flatGroup}, ${rows - 1}u);
let first = row * ${size}u;
var best = vec2u(0u, 0xffffffffu);
for (var id = lane; id < ${size}u; id += ${threads}u) {
let key = keyOf(logits[first + id]);
let ranked = select(key, 0xffffffffu, key < impossibleKey);
if (ranked > best.x) { best = vec2u(ranked, id); }
}
bests[lane] = best;
workgroupBarrier();
for (var half = ${threads / 2}u; half > 0u; half = half >> 1u) {
if (lane < half) {
let other = bests[lane + half];
let own = bests[lane];
if (other.x > own.x || (other.x == own.x && other.y < own.y)) { bests[lane] = other; }
}
workgroupBarrier();
}
best = bests[0];
let isPossible = best.x > impossibleKey && best.x <= mostKey;
let peak = bitcast<f32>(logits[first + min(best.y, ${size - 1}u)]);
var token = best.y;
var cutKey = 0u;
var cutPlace = 0xffffffffu;
var threshold = 0u;
var wanted = f32(topK[row]);
for (var stage = select(keyByCount, placeOfDraw + 1u, temperatures[row] <= 0.0); stage <= placeOfDraw; stage++) {
if (stage <= placeByCount && (topK[row] <= 0 || topK[row] >= ${size})) { continue; }
if (stage >= weightForTopP && stage <= placeByWeight && topP[row] >= 1.0) { continue; }
let isKey = stage == keyByCount || stage == keyByWeight;
let isWhole = stage == weightForTopP || stage == weightForDraw;
var found = 0u;
for (var shift = select(${placeBits - 2}, 30, isKey); shift >= 0; shift -= 2) {
let limits = select(vec4u(found) + (vec4u(0u, 1u, 2u, 3u) << vec4u(u32(shift))), vec4u(0xffffffffu), isWhole);
var total = vec4f();
for (var id = lane; id < ${size}u; id += ${threads}u) {
let bits = logits[first + id];
let key = keyOf(bits);
if (key > cutKey || (key == cutKey && id < cutPlace)) {
var mass = 1.0f;
if (stage >= weightForTopP) {
mass = 0.0f;
if (key > impossibleKey) { mass = exact_exp((bitcast<f32>(bits) - peak) / f32(temperatures[row])); }
}
let isAny = isWhole || stage == placeOfDraw;
let byPlace = vec4<bool>(!isAny && key > threshold) | (vec4<bool>(isAny || key == threshold) & (vec4u(id) < limits));
total += select(vec4f(), vec4f(mass), select(byPlace, vec4u(key) >= limits, isKey));
}
}
sums[lane] = total;
workgroupBarrier();
for (var half = ${threads / 2}u; half > 0u; half = half >> 1u) {
if (lane < half) { sums[lane] += sums[lane + half]; }
workgroupBarrier();
}
let sum = sums[0];
workgroupBarrier();
if (isWhole) {
wanted = sum.x * f32(select(topP[row], uniforms[row], stage == weightForDraw));
break;
}
let reached = select(sum < vec4f(wanted), sum <= vec4f(wanted), stage == placeOfDraw);
let holds = select(vec4u(), vec4u(1u), select(reached, sum >= vec4f(wanted), isKey));
found += (holds.y + holds.z + holds.w) << u32(shift);
}
if (isKey) { threshold = found; }
if (stage == placeByCount || stage == placeByWeight) {
cutKey = threshold;
cutPlace = found + 1u;
}
if (stage == placeOfDraw) { token = found; }
}
if (lane == 0u) { out[row] = select(-1, i32(token), isPossible); }`,
      workgroups: context.grid(rows),
    });
  },
  { supports: ({ inputs }) => inputs.logits?.dtype === "float32" && inputs.logits.shape.at(-1)?.value !== 0 },
);
