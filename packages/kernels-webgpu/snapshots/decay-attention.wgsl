// decayAttention.numbers: 1 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read_write> numbers: array<f32>;
@group(0) @binding(1) var<storage, read> gQuery: array<f32>;
@group(0) @binding(2) var<storage, read> gKey: array<f32>;
@group(0) @binding(3) var<storage, read> lambda: array<f32>;


@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u) {
let i = (group.y * groups.x + group.x) * 256u + lane;
if (i < 256u) { numbers[0u + i] = f32(gQuery[i]); }
if (i < 256u) { numbers[256u + i] = f32(gKey[i]); }
if (i < 2u) { numbers[512u + i] = f32(lambda[i]); }
if (i < 1u) { numbers[514u + i] = bitcast<f32>(0); }
if (i < 1u) { numbers[515u + i] = bitcast<f32>(128); }
}

// decayAttention.reach: 4 x 1 x 1 workgroups
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

// decayAttention.reach: 4 x 1 x 1 workgroups
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

// decayAttention: 4 x 1 x 1 workgroups
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> c: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> numbers: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> logSumExp: array<f32>;
var<private> infinityBits: u32 = 0x7f800000u;
fn infinity() -> f32 { return bitcast<f32>(infinityBits); }
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
let start = bitcast<i32>(numbers[514u + batch]);
let seen = min(bitcast<i32>(numbers[515u + batch]), 128);
let position = vec4i(start + i32(ownRow)) + vec4i(0, 1, 2, 3);
let last = min(seen, start + i32(min(firstOwn + 64u, 128u)));
var o0_0 = vec4f();
var o0_1 = vec4f();
var o0_2 = vec4f();
var o0_3 = vec4f();
var largest = vec4f(-3e+38f);
var total = vec4f();
let lambda = numbers[512u + head];
let g = vec4f(numbers[0u + ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head)], numbers[0u + ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head)], numbers[0u + ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head)], numbers[0u + ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head)]);
let reach = lambda * numbers[516u + (batch * 2u + head) * 2u + tile];
let ownBlock = position / 64;
let firstBlock = (start + i32(firstOwn)) / 64;
var between = vec4f();
var leastBetween = 0.0f;
var previous = (last - 1) / 64;
for (var step = (last - 1) / 32; step >= 0 && last > 0; step--) {
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
s0 *= 0.17677669529663687f;
s1 *= 0.17677669529663687f;
s2 *= 0.17677669529663687f;
s3 *= 0.17677669529663687f;
let block = i32(first) / 64;
let blockTotal = numbers[256u + (batch * 128u + min(u32(block) * 64u + 63u, 127u)) * 2u + head];
if (block != previous) {
let passed = numbers[256u + (batch * 128u + min(u32(previous) * 64u + 63u, 127u)) * 2u + head];
between += select(vec4f(), vec4f(passed), vec4i(previous) < ownBlock);
leastBetween += select(0.0f, passed, previous < firstBlock);
previous = block;
}
let keyReach = numbers[520u + (batch * 2u + head) * 2u + u32(block)];
if (block >= firstBlock || reach * keyReach * exp(leastBetween) > 5.960464477539063e-8) {
var w0 = vec4f();
var w1 = vec4f();
var w2 = vec4f();
var w3 = vec4f();
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
let decay = select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), vec4i(block) >= ownBlock);
s0 = fma(lambda * decay, w0, s0);
}
{
let gOther = numbers[256u + ((batch * 128u + min(first + threadColumn * 4u + 1u, 127u)) * 2u + head)];
let decay = select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), vec4i(block) >= ownBlock);
s1 = fma(lambda * decay, w1, s1);
}
{
let gOther = numbers[256u + ((batch * 128u + min(first + threadColumn * 4u + 2u, 127u)) * 2u + head)];
let decay = select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), vec4i(block) >= ownBlock);
s2 = fma(lambda * decay, w2, s2);
}
{
let gOther = numbers[256u + ((batch * 128u + min(first + threadColumn * 4u + 3u, 127u)) * 2u + head)];
let decay = select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), vec4i(block) >= ownBlock);
s3 = fma(lambda * decay, w3, s3);
}
}
s0 = select(vec4f(-3e+38f), s0, vec4<bool>(i32(first + threadColumn * 4u + 0u) < seen) & (vec4i(i32(first + threadColumn * 4u + 0u)) <= position));
s1 = select(vec4f(-3e+38f), s1, vec4<bool>(i32(first + threadColumn * 4u + 1u) < seen) & (vec4i(i32(first + threadColumn * 4u + 1u)) <= position));
s2 = select(vec4f(-3e+38f), s2, vec4<bool>(i32(first + threadColumn * 4u + 2u) < seen) & (vec4i(i32(first + threadColumn * 4u + 2u)) <= position));
s3 = select(vec4f(-3e+38f), s3, vec4<bool>(i32(first + threadColumn * 4u + 3u) < seen) & (vec4i(i32(first + threadColumn * 4u + 3u)) <= position));
weights[threadColumn * 16u + threadRow] = max(max(s0, s1), max(s2, s3));
workgroupBarrier();
var peak = largest;
for (var n = 0u; n < 8u; n++) { peak = max(peak, weights[n * 16u + threadRow]); }
workgroupBarrier();
let fix = exp(largest - peak);
largest = peak;
total *= fix;
o0_0 *= fix;
o0_1 *= fix;
o0_2 *= fix;
o0_3 *= fix;
s0 = select(exp(s0 - peak), vec4f(), s0 <= vec4f(-3e+38f));
total += s0;
s1 = select(exp(s1 - peak), vec4f(), s1 <= vec4f(-3e+38f));
total += s1;
s2 = select(exp(s2 - peak), vec4f(), s2 <= vec4f(-3e+38f));
total += s2;
s3 = select(exp(s3 - peak), vec4f(), s3 <= vec4f(-3e+38f));
total += s3;
weights[(threadColumn * 4u + 0u) * 16u + threadRow] = s0;
weights[(threadColumn * 4u + 1u) * 16u + threadRow] = s1;
weights[(threadColumn * 4u + 2u) * 16u + threadRow] = s2;
weights[(threadColumn * 4u + 3u) * 16u + threadRow] = s3;
for (var slice = 0u; slice < 32u; slice += 32u) {
for (var n = lane; n < 256u; n += 128u) {
slices[n] = vec4f(v[((batch * 128u + min(first + slice + n / 8u, 127u)) * 2u + head) * 8u + n % 8u]);
}
workgroupBarrier();
for (var j = 0u; j < 32u; j++) {
let p = weights[(slice + j) * 16u + threadRow];
let y0 = slices[j * 8u + threadColumn + 0u];
o0_0 = fma(p, vec4f(y0[0]), o0_0);
o0_1 = fma(p, vec4f(y0[1]), o0_1);
o0_2 = fma(p, vec4f(y0[2]), o0_2);
o0_3 = fma(p, vec4f(y0[3]), o0_3);
}
workgroupBarrier();
}
}
weights[threadColumn * 16u + threadRow] = total;
workgroupBarrier();
var sum = vec4f();
for (var n = 0u; n < 8u; n++) { sum += weights[n * 16u + threadRow]; }
let none = sum == vec4f();
let share = select(1.0f / sum, vec4f(), none);
{
let factor = vec4f(share);
if (ownRow + 0u < 128u) {
let place = ((batch * 128u + min(ownRow + 0u, 127u)) * 2u + head);
out[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(o0_0[0], o0_1[0], o0_2[0], o0_3[0]) * factor[0]);
}
if (ownRow + 1u < 128u) {
let place = ((batch * 128u + min(ownRow + 1u, 127u)) * 2u + head);
out[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(o0_0[1], o0_1[1], o0_2[1], o0_3[1]) * factor[1]);
}
if (ownRow + 2u < 128u) {
let place = ((batch * 128u + min(ownRow + 2u, 127u)) * 2u + head);
out[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(o0_0[2], o0_1[2], o0_2[2], o0_3[2]) * factor[2]);
}
if (ownRow + 3u < 128u) {
let place = ((batch * 128u + min(ownRow + 3u, 127u)) * 2u + head);
out[place * 8u + threadColumn + 0u] = vec4<f32>(vec4f(o0_0[3], o0_1[3], o0_2[3], o0_3[3]) * factor[3]);
}
}
if (threadColumn == 0u) {
let value = select(largest + log(sum), vec4f(-infinity()), none);
if (ownRow + 0u < 128u) { logSumExp[(batch * 2u + head) * 128u + ownRow + 0u] = f32(value[0]); }
if (ownRow + 1u < 128u) { logSumExp[(batch * 2u + head) * 128u + ownRow + 1u] = f32(value[1]); }
if (ownRow + 2u < 128u) { logSumExp[(batch * 2u + head) * 128u + ownRow + 2u] = f32(value[2]); }
if (ownRow + 3u < 128u) { logSumExp[(batch * 2u + head) * 128u + ownRow + 3u] = f32(value[3]); }
}
}
