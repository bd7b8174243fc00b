// decayAttention.blocks: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> c: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gQuery: array<f32>;
@group(0) @binding(6) var<storage, read> gKey: array<f32>;
@group(0) @binding(7) var<storage, read> lambda: array<f32>;
@group(0) @binding(8) var<storage, read_write> parts: array<f32>;
fn isNaN(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn maximum(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, isNaN(b)), a, isNaN(a)); }
var<workgroup> weights: array<f32, 64>;
var<workgroup> max_held: array<f32, 64>;
fn max_of_lanes(lane: u32, value: f32) -> f32 {
max_held[lane] = value;
workgroupBarrier();
for (var half = 32u; half > 0u; half = half >> 1u) {
if (lane < half) { max_held[lane] = maximum(max_held[lane], max_held[lane + half]); }
workgroupBarrier();
}
let result = max_held[0];
workgroupBarrier();
return result;
}
var<workgroup> sum_held: array<f32, 64>;
fn sum_of_lanes(lane: u32, value: f32) -> f32 {
sum_held[lane] = value;
workgroupBarrier();
for (var half = 32u; half > 0u; half = half >> 1u) {
if (lane < half) { sum_held[lane] = sum_held[lane] + sum_held[lane + half]; }
workgroupBarrier();
}
let result = sum_held[0];
workgroupBarrier();
return result;
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let index = (group.y * groups.x + group.x);
let block = index % 2u;
let row = index / 2u;
if (row >= 2u) { return; }
let head = row % 2u;
let t = (row / 2u) % 1u;
let batch = row / 2u;
let position = i32(t);
let seen = min(128, min(position + 1, 128));
let place = (row * 2u + block) * 34u;
let first = block * 64u;
let key = first + lane;
let at = (batch * 128u + min(key, 127u)) * 2u + head;
var score = -3e+38f;
if (i32(key) < seen) {
var product = 0.0f;
for (var d = 0u; d < 8u; d++) { product += dot(vec4f(q[row * 8u + d]), vec4f(k[at * 8u + d])); }
score = product * 0.17677669529663687f;
product = 0.0f;
for (var d = 0u; d < 2u; d++) { product += dot(vec4f(c[row * 2u + d]), vec4f(b[at * 2u + d])); }
let ownBlock = u32(max(position, 0)) / 64u;
let g = f32(gQuery[row]);
var between = 0.0f;
for (var other = block + 1u; other < ownBlock; other++) { between += f32(gKey[(batch * 128u + min(other * 64u + 63u, 127u)) * 2u + head]); }
let gOther = f32(gKey[(batch * 128u + min(key, 127u)) * 2u + head]);
let far = exp(g + between) * exp(min(f32(gKey[(batch * 128u + min(block * 64u + 63u, 127u)) * 2u + head]) - gOther, 0.0f));
score = fma(f32(lambda[head]) * select(far, exp(min(g - gOther, 0.0f)), block >= ownBlock), product, score);
}
let largest = max_of_lanes(lane, score);
let weight = select(exp(score - largest), 0.0f, score <= -3e+38f);
weights[lane] = weight;
let total = sum_of_lanes(lane, weight);
if (lane == 0u) {
parts[place + 32u] = largest;
parts[place + 33u] = total;
}
let keys = u32(clamp(seen - i32(first), 0, 64));
for (var e = lane; e < 32u; e += 64u) {
var sum = 0.0f;
for (var j = 0u; j < keys; j++) { sum = fma(weights[j], f32(v[((batch * 128u + first + j) * 2u + head) * 32u + e]), sum); }
parts[place + e] = sum;
}
}

// decayAttention.join: 2 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<storage, read_write> logSumExp: array<f32>;
var<private> infinityBits: u32 = 0x7f800000u;
fn infinity() -> f32 { return bitcast<f32>(infinityBits); }

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let row = (group.y * groups.x + group.x);
if (row >= 2u) { return; }
var largest = -3e+38f;
for (var block = 0u; block < 2u; block++) { largest = max(largest, parts[(row * 2u + block) * 34u + 32u]); }
var total = 0.0f;
for (var block = 0u; block < 2u; block++) {
let place = (row * 2u + block) * 34u;
total = fma(parts[place + 33u], exp(parts[place + 32u] - largest), total);
}
let share = select(1.0f / total, 0.0f, total == 0.0f);
for (var e = lane; e < 32u; e += 32u) {
var sum = 0.0f;
for (var block = 0u; block < 2u; block++) {
let place = (row * 2u + block) * 34u;
sum = fma(parts[place + e], exp(parts[place + 32u] - largest), sum);
}
out[row * 32u + e] = f32(sum * share);
}
if (lane == 0u) {
let head = row % 2u;
let t = (row / 2u) % 1u;
logSumExp[(row / 2u * 2u + head) * 1u + t] = f32(select(largest + log(total), -infinity(), total == 0.0f));
}
}
