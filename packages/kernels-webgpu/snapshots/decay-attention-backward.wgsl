// decayAttentionBackward.numbers: 1 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read_write> numbers: array<f32>;
@group(0) @binding(1) var<storage, read> gQuery: array<f32>;
@group(0) @binding(2) var<storage, read> gKey: array<f32>;
@group(0) @binding(3) var<storage, read> lambda: array<f32>;
@group(0) @binding(4) var<storage, read> logSumExp: array<f32>;


@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let i = (group.y * groups.x + group.x) * 256u + lane;
if (i < 256u) { numbers[0u + i] = f32(gQuery[i]); }
if (i < 256u) { numbers[256u + i] = f32(gKey[i]); }
if (i < 2u) { numbers[512u + i] = f32(lambda[i]); }
if (i < 1u) { numbers[514u + i] = bitcast<f32>(0); }
if (i < 1u) { numbers[515u + i] = bitcast<f32>(128); }
if (i < 256u) { numbers[524u + i] = f32(logSumExp[i]); }
}

// decayAttentionBackward.delta: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> o: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> numbers: array<f32>;


@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let i = (group.y * groups.x + group.x) * 64u + lane;
if (i >= 256u) { return; }
var total = 0.0f;
for (var e = 0u; e < 8u; e++) { total += dot(vec4f(o[i * 8u + e]), vec4f(gradient[i * 8u + e])); }
let head = i % 2u;
let t = (i / 2u) % 128u;
let batch = i / 256u;
numbers[780u + (batch * 2u + head) * 128u + t] = total;
}

// decayAttentionBackward.reach: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> numbers: array<f32>;
fn isNaN(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn maximum(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, isNaN(b)), a, isNaN(a)); }
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
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let index = (group.y * groups.x + group.x);
let block = index % 2u;
let head = (index / 2u) % 2u;
let batch = index / 4u;
let t = block * 64u + lane;
var squares = 0.0f;
if (t < 128u && batch < 1u) {
let at = (batch * 128u + t) * 2u + head;
for (var s = 0u; s < 2u; s++) { let four = vec4f(x[at * 2u + s]); squares += dot(four, four); }
let decay = exp(min(numbers[0u + at], 0.0f));
squares = squares * decay * decay;
}
let largest = max_of_lanes(lane, squares);
if (lane == 0u && batch < 1u) { numbers[516u + index] = sqrt(largest); }
}

// decayAttentionBackward.reach: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> numbers: array<f32>;
fn isNaN(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn maximum(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, isNaN(b)), a, isNaN(a)); }
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
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let index = (group.y * groups.x + group.x);
let block = index % 2u;
let head = (index / 2u) % 2u;
let batch = index / 4u;
let t = block * 64u + lane;
var squares = 0.0f;
if (t < 128u && batch < 1u) {
let at = (batch * 128u + t) * 2u + head;
for (var s = 0u; s < 2u; s++) { let four = vec4f(x[at * 2u + s]); squares += dot(four, four); }
let decay = exp(min(numbers[256u + (batch * 128u + min(block * 64u + 63u, 127u)) * 2u + head] - numbers[256u + at], 0.0f));
squares = squares * decay * decay;
}
let largest = max_of_lanes(lane, squares);
if (lane == 0u && batch < 1u) { numbers[520u + index] = sqrt(largest); }
}

// decayAttentionBackward.queries: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> c: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> numbers: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dc: array<vec4<f32>>;

var<workgroup> slices: array<vec4f, 416>;
var<workgroup> weights: array<vec4f, 512>;
@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let index = (group.y * groups.x + group.x);
let tile = index % 2u;
let head = (index / 2u) % 2u;
let batch = index / 4u;
if (batch >= 1u) { return; }
let threadRow = lane % 16u;
let threadColumn = lane / 16u;
let firstOwn = tile * 64u;
let ownRow = firstOwn + threadRow * 4u;
let logSumExp = vec4f(numbers[524u + (batch * 2u + head) * 128u + min(ownRow + 0u, 127u)], numbers[524u + (batch * 2u + head) * 128u + min(ownRow + 1u, 127u)], numbers[524u + (batch * 2u + head) * 128u + min(ownRow + 2u, 127u)], numbers[524u + (batch * 2u + head) * 128u + min(ownRow + 3u, 127u)]);
let delta = vec4f(numbers[780u + (batch * 2u + head) * 128u + min(ownRow + 0u, 127u)], numbers[780u + (batch * 2u + head) * 128u + min(ownRow + 1u, 127u)], numbers[780u + (batch * 2u + head) * 128u + min(ownRow + 2u, 127u)], numbers[780u + (batch * 2u + head) * 128u + min(ownRow + 3u, 127u)]);
let position = vec4u(ownRow) + vec4u(0u, 1u, 2u, 3u);
let last = min(128u, firstOwn + 64u);
var sum_q0_0 = vec4f();
var sum_q0_1 = vec4f();
var sum_q0_2 = vec4f();
var sum_q0_3 = vec4f();
var sum_c0_0 = vec4f();
var sum_c0_1 = vec4f();
var sum_c0_2 = vec4f();
var sum_c0_3 = vec4f();
let lambda = numbers[512u + head];
let g = vec4f(numbers[0u + ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head)], numbers[0u + ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head)], numbers[0u + ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head)], numbers[0u + ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head)]);
let reach = lambda * numbers[516u + (batch * 2u + head) * 2u + tile];
var between = 0.0f;
var previous = tile;
for (var step = i32((last - 1u) / 32u); step >= 0; step--) {
let first = u32(step) * 32u;
var s0 = vec4f();
var s1 = vec4f();
var s2 = vec4f();
var s3 = vec4f();
for (var slice = 0u; slice < 32u; slice += 16u) {
for (var n = lane; n < 256u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(q[((batch * 128u + min(firstOwn + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[0u + (d * 4u + 0u) * 17u + r / 4u][r % 4u] = value[0];
slices[0u + (d * 4u + 1u) * 17u + r / 4u][r % 4u] = value[1];
slices[0u + (d * 4u + 2u) * 17u + r / 4u][r % 4u] = value[2];
slices[0u + (d * 4u + 3u) * 17u + r / 4u][r % 4u] = value[3];
}
for (var n = lane; n < 128u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(k[((batch * 128u + min(first + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[272u + (d * 4u + 0u) * 9u + r / 4u][r % 4u] = value[0];
slices[272u + (d * 4u + 1u) * 9u + r / 4u][r % 4u] = value[1];
slices[272u + (d * 4u + 2u) * 9u + r / 4u][r % 4u] = value[2];
slices[272u + (d * 4u + 3u) * 9u + r / 4u][r % 4u] = value[3];
}
workgroupBarrier();
for (var step = 0u; step < 16u; step++) {
let x = slices[step * 17u + threadRow];
let y = slices[272u + step * 9u + threadColumn];
s0 = fma(x, vec4f(y[0]), s0);
s1 = fma(x, vec4f(y[1]), s1);
s2 = fma(x, vec4f(y[2]), s2);
s3 = fma(x, vec4f(y[3]), s3);
}
workgroupBarrier();
}
s0 *= 0.25f;
s1 *= 0.25f;
s2 *= 0.25f;
s3 *= 0.25f;
let block = first / 64u;
let blockTotal = numbers[256u + (batch * 128u + min(u32(block) * 64u + 63u, 127u)) * 2u + head];
if (block != previous && previous < tile) { between += numbers[256u + (batch * 128u + min(u32(previous) * 64u + 63u, 127u)) * 2u + head]; }
previous = block;
let keyReach = numbers[520u + (batch * 2u + head) * 2u + block];
let important = block == tile || reach * keyReach * exp(between) > 5.960464477539063e-8;
var w0 = vec4f();
var w1 = vec4f();
var w2 = vec4f();
var w3 = vec4f();
if (important) {
for (var slice = 0u; slice < 8u; slice += 8u) {
for (var n = lane; n < 128u; n += 128u) {
let r = n / 2u;
let d = n % 2u;
let value = vec4f(c[((batch * 128u + min(firstOwn + r, 127u)) * 2u + head) * 2u + slice / 4u + d]);
slices[0u + (d * 4u + 0u) * 17u + r / 4u][r % 4u] = value[0];
slices[0u + (d * 4u + 1u) * 17u + r / 4u][r % 4u] = value[1];
slices[0u + (d * 4u + 2u) * 17u + r / 4u][r % 4u] = value[2];
slices[0u + (d * 4u + 3u) * 17u + r / 4u][r % 4u] = value[3];
}
for (var n = lane; n < 64u; n += 128u) {
let r = n / 2u;
let d = n % 2u;
let value = vec4f(b[((batch * 128u + min(first + r, 127u)) * 2u + head) * 2u + slice / 4u + d]);
slices[272u + (d * 4u + 0u) * 9u + r / 4u][r % 4u] = value[0];
slices[272u + (d * 4u + 1u) * 9u + r / 4u][r % 4u] = value[1];
slices[272u + (d * 4u + 2u) * 9u + r / 4u][r % 4u] = value[2];
slices[272u + (d * 4u + 3u) * 9u + r / 4u][r % 4u] = value[3];
}
workgroupBarrier();
for (var step = 0u; step < 8u; step++) {
let x = slices[step * 17u + threadRow];
let y = slices[272u + step * 9u + threadColumn];
w0 = fma(x, vec4f(y[0]), w0);
w1 = fma(x, vec4f(y[1]), w1);
w2 = fma(x, vec4f(y[2]), w2);
w3 = fma(x, vec4f(y[3]), w3);
}
workgroupBarrier();
}
let far = exp(g + between);
{
let gOther = numbers[256u + ((batch * 128u + min(first + threadColumn * 4u + 0u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), block == tile);
s0 = fma(weight, w0, s0);
w0 = weight;
}
{
let gOther = numbers[256u + ((batch * 128u + min(first + threadColumn * 4u + 1u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), block == tile);
s1 = fma(weight, w1, s1);
w1 = weight;
}
{
let gOther = numbers[256u + ((batch * 128u + min(first + threadColumn * 4u + 2u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), block == tile);
s2 = fma(weight, w2, s2);
w2 = weight;
}
{
let gOther = numbers[256u + ((batch * 128u + min(first + threadColumn * 4u + 3u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), block == tile);
s3 = fma(weight, w3, s3);
w3 = weight;
}
}
var d0 = vec4f();
var d1 = vec4f();
var d2 = vec4f();
var d3 = vec4f();
for (var slice = 0u; slice < 32u; slice += 16u) {
for (var n = lane; n < 256u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(gradient[((batch * 128u + min(firstOwn + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[0u + (d * 4u + 0u) * 17u + r / 4u][r % 4u] = value[0];
slices[0u + (d * 4u + 1u) * 17u + r / 4u][r % 4u] = value[1];
slices[0u + (d * 4u + 2u) * 17u + r / 4u][r % 4u] = value[2];
slices[0u + (d * 4u + 3u) * 17u + r / 4u][r % 4u] = value[3];
}
for (var n = lane; n < 128u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(v[((batch * 128u + min(first + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[272u + (d * 4u + 0u) * 9u + r / 4u][r % 4u] = value[0];
slices[272u + (d * 4u + 1u) * 9u + r / 4u][r % 4u] = value[1];
slices[272u + (d * 4u + 2u) * 9u + r / 4u][r % 4u] = value[2];
slices[272u + (d * 4u + 3u) * 9u + r / 4u][r % 4u] = value[3];
}
workgroupBarrier();
for (var step = 0u; step < 16u; step++) {
let x = slices[step * 17u + threadRow];
let y = slices[272u + step * 9u + threadColumn];
d0 = fma(x, vec4f(y[0]), d0);
d1 = fma(x, vec4f(y[1]), d1);
d2 = fma(x, vec4f(y[2]), d2);
d3 = fma(x, vec4f(y[3]), d3);
}
workgroupBarrier();
}
d0 = select(vec4f(), exp(s0 - logSumExp) * (d0 - delta), vec4<bool>(first + threadColumn * 4u + 0u < 128u) & (vec4u(first + threadColumn * 4u + 0u) <= position));
d1 = select(vec4f(), exp(s1 - logSumExp) * (d1 - delta), vec4<bool>(first + threadColumn * 4u + 1u < 128u) & (vec4u(first + threadColumn * 4u + 1u) <= position));
d2 = select(vec4f(), exp(s2 - logSumExp) * (d2 - delta), vec4<bool>(first + threadColumn * 4u + 2u < 128u) & (vec4u(first + threadColumn * 4u + 2u) <= position));
d3 = select(vec4f(), exp(s3 - logSumExp) * (d3 - delta), vec4<bool>(first + threadColumn * 4u + 3u < 128u) & (vec4u(first + threadColumn * 4u + 3u) <= position));
weights[(threadColumn * 4u + 0u) * 16u + threadRow] = d0;
weights[(threadColumn * 4u + 1u) * 16u + threadRow] = d1;
weights[(threadColumn * 4u + 2u) * 16u + threadRow] = d2;
weights[(threadColumn * 4u + 3u) * 16u + threadRow] = d3;
for (var slice = 0u; slice < 32u; slice += 32u) {
for (var n = lane; n < 256u; n += 128u) {
slices[n] = vec4f(k[((batch * 128u + min(first + slice + n / 8u, 127u)) * 2u + head) * 8u + n % 8u]);
}
workgroupBarrier();
for (var j = 0u; j < 32u; j++) {
let p = weights[(slice + j) * 16u + threadRow];
let y0 = slices[j * 8u + threadColumn + 0u];
sum_q0_0 = fma(p, vec4f(y0[0]), sum_q0_0);
sum_q0_1 = fma(p, vec4f(y0[1]), sum_q0_1);
sum_q0_2 = fma(p, vec4f(y0[2]), sum_q0_2);
sum_q0_3 = fma(p, vec4f(y0[3]), sum_q0_3);
}
workgroupBarrier();
}
if (important) {
weights[(threadColumn * 4u + 0u) * 16u + threadRow] = d0 * w0;
weights[(threadColumn * 4u + 1u) * 16u + threadRow] = d1 * w1;
weights[(threadColumn * 4u + 2u) * 16u + threadRow] = d2 * w2;
weights[(threadColumn * 4u + 3u) * 16u + threadRow] = d3 * w3;
for (var slice = 0u; slice < 32u; slice += 32u) {
for (var n = lane; n < 64u; n += 128u) {
slices[n] = vec4f(b[((batch * 128u + min(first + slice + n / 2u, 127u)) * 2u + head) * 2u + n % 2u]);
}
workgroupBarrier();
for (var j = 0u; j < 32u; j++) {
let p = weights[(slice + j) * 16u + threadRow];
let y0 = slices[j * 2u + min(threadColumn + 0u, 1u)];
sum_c0_0 = fma(p, vec4f(y0[0]), sum_c0_0);
sum_c0_1 = fma(p, vec4f(y0[1]), sum_c0_1);
sum_c0_2 = fma(p, vec4f(y0[2]), sum_c0_2);
sum_c0_3 = fma(p, vec4f(y0[3]), sum_c0_3);
}
workgroupBarrier();
}
}
}
{
let factor = vec4f(0.25f);
if (ownRow + 0u < 128u) {
let place = ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head);
dq[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_q0_0[0], sum_q0_1[0], sum_q0_2[0], sum_q0_3[0]) * factor[0]);
}
if (ownRow + 1u < 128u) {
let place = ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head);
dq[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_q0_0[1], sum_q0_1[1], sum_q0_2[1], sum_q0_3[1]) * factor[1]);
}
if (ownRow + 2u < 128u) {
let place = ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head);
dq[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_q0_0[2], sum_q0_1[2], sum_q0_2[2], sum_q0_3[2]) * factor[2]);
}
if (ownRow + 3u < 128u) {
let place = ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head);
dq[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_q0_0[3], sum_q0_1[3], sum_q0_2[3], sum_q0_3[3]) * factor[3]);
}
}
{
let factor = vec4f(1.0f);
if (ownRow + 0u < 128u) {
let place = ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { dc[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_c0_0[0], sum_c0_1[0], sum_c0_2[0], sum_c0_3[0]) * factor[0]); }
}
if (ownRow + 1u < 128u) {
let place = ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { dc[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_c0_0[1], sum_c0_1[1], sum_c0_2[1], sum_c0_3[1]) * factor[1]); }
}
if (ownRow + 2u < 128u) {
let place = ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { dc[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_c0_0[2], sum_c0_1[2], sum_c0_2[2], sum_c0_3[2]) * factor[2]); }
}
if (ownRow + 3u < 128u) {
let place = ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { dc[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_c0_0[3], sum_c0_1[3], sum_c0_2[3], sum_c0_3[3]) * factor[3]); }
}
}
}

// decayAttentionBackward.keys: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> c: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> numbers: array<f32>;
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> db: array<vec4<f32>>;

var<workgroup> slices: array<vec4f, 416>;
var<workgroup> weights: array<vec4f, 512>;
@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let index = (group.y * groups.x + group.x);
let tile = index % 2u;
let head = (index / 2u) % 2u;
let batch = index / 4u;
if (batch >= 1u) { return; }
let threadRow = lane % 16u;
let threadColumn = lane / 16u;
let firstOwn = tile * 64u;
let ownRow = firstOwn + threadRow * 4u;
let position = vec4u(ownRow) + vec4u(0u, 1u, 2u, 3u);
var sum_k0_0 = vec4f();
var sum_k0_1 = vec4f();
var sum_k0_2 = vec4f();
var sum_k0_3 = vec4f();
var sum_v0_0 = vec4f();
var sum_v0_1 = vec4f();
var sum_v0_2 = vec4f();
var sum_v0_3 = vec4f();
var sum_b0_0 = vec4f();
var sum_b0_1 = vec4f();
var sum_b0_2 = vec4f();
var sum_b0_3 = vec4f();
let lambda = numbers[512u + head];
let g = vec4f(numbers[256u + ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head)], numbers[256u + ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head)], numbers[256u + ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head)], numbers[256u + ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head)]);
let rest = exp(min(numbers[256u + (batch * 128u + min(u32(tile) * 64u + 63u, 127u)) * 2u + head] - g, vec4f()));
let reach = lambda * numbers[520u + (batch * 2u + head) * 2u + tile];
var between = 0.0f;
var previous = tile;
for (var first = firstOwn; first < 128u; first += 32u) {
var s0 = vec4f();
var s1 = vec4f();
var s2 = vec4f();
var s3 = vec4f();
for (var slice = 0u; slice < 32u; slice += 16u) {
for (var n = lane; n < 256u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(k[((batch * 128u + min(firstOwn + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[0u + (d * 4u + 0u) * 17u + r / 4u][r % 4u] = value[0];
slices[0u + (d * 4u + 1u) * 17u + r / 4u][r % 4u] = value[1];
slices[0u + (d * 4u + 2u) * 17u + r / 4u][r % 4u] = value[2];
slices[0u + (d * 4u + 3u) * 17u + r / 4u][r % 4u] = value[3];
}
for (var n = lane; n < 128u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(q[((batch * 128u + min(first + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[272u + (d * 4u + 0u) * 9u + r / 4u][r % 4u] = value[0];
slices[272u + (d * 4u + 1u) * 9u + r / 4u][r % 4u] = value[1];
slices[272u + (d * 4u + 2u) * 9u + r / 4u][r % 4u] = value[2];
slices[272u + (d * 4u + 3u) * 9u + r / 4u][r % 4u] = value[3];
}
workgroupBarrier();
for (var step = 0u; step < 16u; step++) {
let x = slices[step * 17u + threadRow];
let y = slices[272u + step * 9u + threadColumn];
s0 = fma(x, vec4f(y[0]), s0);
s1 = fma(x, vec4f(y[1]), s1);
s2 = fma(x, vec4f(y[2]), s2);
s3 = fma(x, vec4f(y[3]), s3);
}
workgroupBarrier();
}
s0 *= 0.25f;
s1 *= 0.25f;
s2 *= 0.25f;
s3 *= 0.25f;
let block = first / 64u;
if (block != previous && previous > tile) { between += numbers[256u + (batch * 128u + min(u32(previous) * 64u + 63u, 127u)) * 2u + head]; }
previous = block;
let queryReach = numbers[516u + (batch * 2u + head) * 2u + block];
let important = block == tile || reach * queryReach * exp(between) > 5.960464477539063e-8;
var w0 = vec4f();
var w1 = vec4f();
var w2 = vec4f();
var w3 = vec4f();
if (important) {
for (var slice = 0u; slice < 8u; slice += 8u) {
for (var n = lane; n < 128u; n += 128u) {
let r = n / 2u;
let d = n % 2u;
let value = vec4f(b[((batch * 128u + min(firstOwn + r, 127u)) * 2u + head) * 2u + slice / 4u + d]);
slices[0u + (d * 4u + 0u) * 17u + r / 4u][r % 4u] = value[0];
slices[0u + (d * 4u + 1u) * 17u + r / 4u][r % 4u] = value[1];
slices[0u + (d * 4u + 2u) * 17u + r / 4u][r % 4u] = value[2];
slices[0u + (d * 4u + 3u) * 17u + r / 4u][r % 4u] = value[3];
}
for (var n = lane; n < 64u; n += 128u) {
let r = n / 2u;
let d = n % 2u;
let value = vec4f(c[((batch * 128u + min(first + r, 127u)) * 2u + head) * 2u + slice / 4u + d]);
slices[272u + (d * 4u + 0u) * 9u + r / 4u][r % 4u] = value[0];
slices[272u + (d * 4u + 1u) * 9u + r / 4u][r % 4u] = value[1];
slices[272u + (d * 4u + 2u) * 9u + r / 4u][r % 4u] = value[2];
slices[272u + (d * 4u + 3u) * 9u + r / 4u][r % 4u] = value[3];
}
workgroupBarrier();
for (var step = 0u; step < 8u; step++) {
let x = slices[step * 17u + threadRow];
let y = slices[272u + step * 9u + threadColumn];
w0 = fma(x, vec4f(y[0]), w0);
w1 = fma(x, vec4f(y[1]), w1);
w2 = fma(x, vec4f(y[2]), w2);
w3 = fma(x, vec4f(y[3]), w3);
}
workgroupBarrier();
}
let far = rest * exp(between);
{
let gOther = numbers[0u + ((batch * 128u + min(first + threadColumn * 4u + 0u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(gOther, 0.0f)), exp(min(gOther - g, vec4f())), block == tile);
s0 = fma(weight, w0, s0);
w0 = weight;
}
{
let gOther = numbers[0u + ((batch * 128u + min(first + threadColumn * 4u + 1u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(gOther, 0.0f)), exp(min(gOther - g, vec4f())), block == tile);
s1 = fma(weight, w1, s1);
w1 = weight;
}
{
let gOther = numbers[0u + ((batch * 128u + min(first + threadColumn * 4u + 2u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(gOther, 0.0f)), exp(min(gOther - g, vec4f())), block == tile);
s2 = fma(weight, w2, s2);
w2 = weight;
}
{
let gOther = numbers[0u + ((batch * 128u + min(first + threadColumn * 4u + 3u, 127u)) * 2u + head)];
let weight = lambda * select(far * exp(min(gOther, 0.0f)), exp(min(gOther - g, vec4f())), block == tile);
s3 = fma(weight, w3, s3);
w3 = weight;
}
}
var d0 = vec4f();
var d1 = vec4f();
var d2 = vec4f();
var d3 = vec4f();
for (var slice = 0u; slice < 32u; slice += 16u) {
for (var n = lane; n < 256u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(v[((batch * 128u + min(firstOwn + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[0u + (d * 4u + 0u) * 17u + r / 4u][r % 4u] = value[0];
slices[0u + (d * 4u + 1u) * 17u + r / 4u][r % 4u] = value[1];
slices[0u + (d * 4u + 2u) * 17u + r / 4u][r % 4u] = value[2];
slices[0u + (d * 4u + 3u) * 17u + r / 4u][r % 4u] = value[3];
}
for (var n = lane; n < 128u; n += 128u) {
let r = n / 4u;
let d = n % 4u;
let value = vec4f(gradient[((batch * 128u + min(first + r, 127u)) * 2u + head) * 8u + slice / 4u + d]);
slices[272u + (d * 4u + 0u) * 9u + r / 4u][r % 4u] = value[0];
slices[272u + (d * 4u + 1u) * 9u + r / 4u][r % 4u] = value[1];
slices[272u + (d * 4u + 2u) * 9u + r / 4u][r % 4u] = value[2];
slices[272u + (d * 4u + 3u) * 9u + r / 4u][r % 4u] = value[3];
}
workgroupBarrier();
for (var step = 0u; step < 16u; step++) {
let x = slices[step * 17u + threadRow];
let y = slices[272u + step * 9u + threadColumn];
d0 = fma(x, vec4f(y[0]), d0);
d1 = fma(x, vec4f(y[1]), d1);
d2 = fma(x, vec4f(y[2]), d2);
d3 = fma(x, vec4f(y[3]), d3);
}
workgroupBarrier();
}
s0 = select(vec4f(), exp(s0 - numbers[524u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 0u, 127u)]), vec4<bool>(first + threadColumn * 4u + 0u < 128u) & (vec4u(first + threadColumn * 4u + 0u) >= position));
d0 = s0 * (d0 - numbers[780u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 0u, 127u)]);
s1 = select(vec4f(), exp(s1 - numbers[524u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 1u, 127u)]), vec4<bool>(first + threadColumn * 4u + 1u < 128u) & (vec4u(first + threadColumn * 4u + 1u) >= position));
d1 = s1 * (d1 - numbers[780u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 1u, 127u)]);
s2 = select(vec4f(), exp(s2 - numbers[524u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 2u, 127u)]), vec4<bool>(first + threadColumn * 4u + 2u < 128u) & (vec4u(first + threadColumn * 4u + 2u) >= position));
d2 = s2 * (d2 - numbers[780u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 2u, 127u)]);
s3 = select(vec4f(), exp(s3 - numbers[524u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 3u, 127u)]), vec4<bool>(first + threadColumn * 4u + 3u < 128u) & (vec4u(first + threadColumn * 4u + 3u) >= position));
d3 = s3 * (d3 - numbers[780u + (batch * 2u + head) * 128u + min(first + threadColumn * 4u + 3u, 127u)]);
weights[(threadColumn * 4u + 0u) * 16u + threadRow] = s0;
weights[(threadColumn * 4u + 1u) * 16u + threadRow] = s1;
weights[(threadColumn * 4u + 2u) * 16u + threadRow] = s2;
weights[(threadColumn * 4u + 3u) * 16u + threadRow] = s3;
for (var slice = 0u; slice < 32u; slice += 32u) {
for (var n = lane; n < 256u; n += 128u) {
slices[n] = vec4f(gradient[((batch * 128u + min(first + slice + n / 8u, 127u)) * 2u + head) * 8u + n % 8u]);
}
workgroupBarrier();
for (var j = 0u; j < 32u; j++) {
let p = weights[(slice + j) * 16u + threadRow];
let y0 = slices[j * 8u + threadColumn + 0u];
sum_v0_0 = fma(p, vec4f(y0[0]), sum_v0_0);
sum_v0_1 = fma(p, vec4f(y0[1]), sum_v0_1);
sum_v0_2 = fma(p, vec4f(y0[2]), sum_v0_2);
sum_v0_3 = fma(p, vec4f(y0[3]), sum_v0_3);
}
workgroupBarrier();
}
weights[(threadColumn * 4u + 0u) * 16u + threadRow] = d0;
weights[(threadColumn * 4u + 1u) * 16u + threadRow] = d1;
weights[(threadColumn * 4u + 2u) * 16u + threadRow] = d2;
weights[(threadColumn * 4u + 3u) * 16u + threadRow] = d3;
for (var slice = 0u; slice < 32u; slice += 32u) {
for (var n = lane; n < 256u; n += 128u) {
slices[n] = vec4f(q[((batch * 128u + min(first + slice + n / 8u, 127u)) * 2u + head) * 8u + n % 8u]);
}
workgroupBarrier();
for (var j = 0u; j < 32u; j++) {
let p = weights[(slice + j) * 16u + threadRow];
let y0 = slices[j * 8u + threadColumn + 0u];
sum_k0_0 = fma(p, vec4f(y0[0]), sum_k0_0);
sum_k0_1 = fma(p, vec4f(y0[1]), sum_k0_1);
sum_k0_2 = fma(p, vec4f(y0[2]), sum_k0_2);
sum_k0_3 = fma(p, vec4f(y0[3]), sum_k0_3);
}
workgroupBarrier();
}
if (important) {
weights[(threadColumn * 4u + 0u) * 16u + threadRow] = d0 * w0;
weights[(threadColumn * 4u + 1u) * 16u + threadRow] = d1 * w1;
weights[(threadColumn * 4u + 2u) * 16u + threadRow] = d2 * w2;
weights[(threadColumn * 4u + 3u) * 16u + threadRow] = d3 * w3;
for (var slice = 0u; slice < 32u; slice += 32u) {
for (var n = lane; n < 64u; n += 128u) {
slices[n] = vec4f(c[((batch * 128u + min(first + slice + n / 2u, 127u)) * 2u + head) * 2u + n % 2u]);
}
workgroupBarrier();
for (var j = 0u; j < 32u; j++) {
let p = weights[(slice + j) * 16u + threadRow];
let y0 = slices[j * 2u + min(threadColumn + 0u, 1u)];
sum_b0_0 = fma(p, vec4f(y0[0]), sum_b0_0);
sum_b0_1 = fma(p, vec4f(y0[1]), sum_b0_1);
sum_b0_2 = fma(p, vec4f(y0[2]), sum_b0_2);
sum_b0_3 = fma(p, vec4f(y0[3]), sum_b0_3);
}
workgroupBarrier();
}
}
}
{
let factor = vec4f(0.25f);
if (ownRow + 0u < 128u) {
let place = ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head);
dk[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_k0_0[0], sum_k0_1[0], sum_k0_2[0], sum_k0_3[0]) * factor[0]);
}
if (ownRow + 1u < 128u) {
let place = ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head);
dk[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_k0_0[1], sum_k0_1[1], sum_k0_2[1], sum_k0_3[1]) * factor[1]);
}
if (ownRow + 2u < 128u) {
let place = ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head);
dk[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_k0_0[2], sum_k0_1[2], sum_k0_2[2], sum_k0_3[2]) * factor[2]);
}
if (ownRow + 3u < 128u) {
let place = ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head);
dk[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_k0_0[3], sum_k0_1[3], sum_k0_2[3], sum_k0_3[3]) * factor[3]);
}
}
{
let factor = vec4f(1.0f);
if (ownRow + 0u < 128u) {
let place = ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head);
dv[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_v0_0[0], sum_v0_1[0], sum_v0_2[0], sum_v0_3[0]) * factor[0]);
}
if (ownRow + 1u < 128u) {
let place = ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head);
dv[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_v0_0[1], sum_v0_1[1], sum_v0_2[1], sum_v0_3[1]) * factor[1]);
}
if (ownRow + 2u < 128u) {
let place = ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head);
dv[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_v0_0[2], sum_v0_1[2], sum_v0_2[2], sum_v0_3[2]) * factor[2]);
}
if (ownRow + 3u < 128u) {
let place = ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head);
dv[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(sum_v0_0[3], sum_v0_1[3], sum_v0_2[3], sum_v0_3[3]) * factor[3]);
}
}
{
let factor = vec4f(1.0f);
if (ownRow + 0u < 128u) {
let place = ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { db[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_b0_0[0], sum_b0_1[0], sum_b0_2[0], sum_b0_3[0]) * factor[0]); }
}
if (ownRow + 1u < 128u) {
let place = ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { db[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_b0_0[1], sum_b0_1[1], sum_b0_2[1], sum_b0_3[1]) * factor[1]); }
}
if (ownRow + 2u < 128u) {
let place = ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { db[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_b0_0[2], sum_b0_1[2], sum_b0_2[2], sum_b0_3[2]) * factor[2]); }
}
if (ownRow + 3u < 128u) {
let place = ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head);
if (threadColumn + 0u < 2u) { db[place * 2u + threadColumn + 0u] = vec4<f32>(vec4f(sum_b0_0[3], sum_b0_1[3], sum_b0_2[3], sum_b0_3[3]) * factor[3]); }
}
}
}

// decayAttentionBackward.decay: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> c: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dc: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> db: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> gQuery: array<f32>;
@group(0) @binding(5) var<storage, read_write> gKey: array<f32>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;

var<workgroup> sum_held: array<vec2f, 64>;
fn sum_of_lanes(lane: u32, value: vec2f) -> vec2f {
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
let head = (index / 2u) % 2u;
let batch = index / 4u;
let t = block * 64u + lane;
var both = vec2f();
if (t < 128u && batch < 1u) {
let row = (batch * 128u + t) * 2u + head;
for (var d = row * 2u; d < (row + 1u) * 2u; d++) {
both += vec2f(dot(vec4f(c[d]), dc[d]), dot(vec4f(b[d]), db[d]));

}
gQuery[row] = f32(both.x);
gKey[row] = f32(-both.y);
}
let total = sum_of_lanes(lane, both);
if (lane == 0u && batch < 1u) {
sums[index * 2u] = total.x;
sums[index * 2u + 1u] = total.x - total.y;
}
}

// decayAttentionBackward.totals: 1 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> gKey: array<f32>;


@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let i = (group.y * groups.x + group.x) * 64u + lane;
if (i >= 2u) { return; }
var later = 0.0f;
for (var block = 2u; block > 0u; block--) {
let last = block * 64u - 1u;
if (last < 128u) {
let place = ((i / 2u) * 128u + last) * 2u + i % 2u;
gKey[place] = f32(f32(gKey[place]) + later);
}
later += sums[(i * 2u + block - 1u) * 2u + 1u];
}
}

// decayAttentionBackward.lambda: 1 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;


@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let i = (group.y * groups.x + group.x) * 64u + lane;
if (i >= 2u) { return; }
var total = 0.0f;
for (var batch = 0u; batch < 1u; batch++) {
for (var block = 0u; block < 2u; block++) { total += sums[((batch * 2u + i) * 2u + block) * 2u]; }
}
out[i] = f32(total / f32(weight[i]));
}
