// One token of each sequence, from its projections to what attention gives: rotation, SISA's states continued, the caches
// written, and attention to them.
#include "overlap.cuh"
#include "pages.cuh"

const int BLOCK = PAGE;  // decayBlock in @sisa/core; keys that a block of threads takes at a time
const int warps = 8;
const int lanes = 8;    // that share a key
const int perWarp = 8;  // keys that a warp takes at a time, two for each group of lanes

struct DecodeStep {
  const void *q, *k, *v, *c, *b;         // [batches, heads * width], rows at pitches
  const float *strength, *bias, *phase;  // [batches, heads], [heads], [batches, heads * stateWidth / 2]
  const float *cosine, *sine;            // [positions, width / 2]; none where nothing is rotated
  const float* lambda;                   // [heads]
  const int* start;                      // [batches]
  Pages pages;
  void *keys, *values, *importances;     // caches [rows, heads, width]
  float *decays, *phases;                // [rows, heads], [rows, heads, stateWidth / 2]
  void* value;                           // [batches, heads, width]
  float* partial;                        // [batches, heads, splits, 2 + width]: largest score, sum of weights, weighted values
  int* counters;                         // [batches, heads], zero between runs
  Fault* fault;
  int faultNode;
  int pitchQ, pitchK, pitchV, pitchC, pitchB, pitchStrength, pitchPhase;
  int batches, positions, heads, span, splits;
  float scale;
};

// Rotates pairs of neighbours.
template <int N> __device__ inline void rotate(float (&x)[N], const float* cosine, const float* sine) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cosine[i] - b * sine[i], x[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

// What a lane has found so far: weights are relative to the largest score.
template <int N> struct Found {
  float most = -INFINITY, total = 0, values[N] = {};

  __device__ void raise(float score) {
    if (score <= most) return;
    float shrink = expf(most - score);
    most = score, total *= shrink;
#pragma unroll
    for (int i = 0; i < N; i++) values[i] *= shrink;
  }
  template <class T> __device__ void add(float score, const Raw<T, N>& v) {
    if (score == -INFINITY) return;
    raise(score);
    float weight = expf(score - most);
    total += weight;
#pragma unroll
    for (int i = 0; i < N; i++) values[i] += weight * v[i];
  }
  // Both lanes of a pair have what the two found together.
  __device__ void join(int step) {
    raise(__shfl_xor_sync(0xffffffffu, most, step));
    total += __shfl_xor_sync(0xffffffffu, total, step);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] += __shfl_xor_sync(0xffffffffu, values[i], step);
  }
};

__device__ inline float groupSum(float x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__device__ inline float weightOf(float score, float most) { return score == -INFINITY ? 0.f : expf(score - most); }

// Elements DE of a head's width and SE of its states belong to each lane of a group. Block x takes `span` positions of one
// head; the block that holds the newest token writes the caches, and the last block to end joins what all have found.
template <class T, int DE, int SE> __device__ void decodeStep(const DecodeStep& p) {
  const int width = DE * lanes, states = SE * lanes, phases = SE / 2;
  const int type = sizeof(T) == 4 ? Float32 : Bfloat16;
  __shared__ float most[warps], total[warps], values[256 / 32][width];
  __shared__ int isLast;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / lanes, own = lane % lanes;
  int head = blockIdx.y, batch = blockIdx.z;
  letNextBegin();

  // Caches and positions are written by no other kernel of a run.
  int position = p.start[batch];
  if (position < 0 || position >= p.pages.capacity) {
    if (threadIdx.x == 0 && blockIdx.x == 0 && head == 0) report(p.fault, p.faultNode, position);
    return;
  }
  int first = blockIdx.x * p.span, active = position / p.span + 1;
  if (blockIdx.x >= active) return;
  auto at = [&](int position) { return keyRowAt(p.pages, batch, position) * p.heads + head; };
  Raw<T, DE> k[2], v[2];
  Raw<T, SE == 0 ? 2 : SE> b[2];
  float g[2] = {};
  auto keyOf = [&](int base, int i) { return base + warp * perWarp + i * (perWarp / 2) + group; };
  auto fetch = [&](int base) {
    int64 block = base < position ? at(base) : 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      k[i].clear(), v[i].clear(), b[i].clear();
      int j = keyOf(base, i);
      if (j >= position) continue;
      int64 key = block + (int64)(j - base) * p.heads;
      k[i].load((const T*)p.keys + key * width + own * DE);
      v[i].load((const T*)p.values + key * width + own * DE);
      if constexpr (SE > 0) {
        b[i].load((const T*)p.importances + key * states + own * SE);
        g[i] = __ldcg(p.decays + key);
      }
    }
  };
  fetch(first);
  float cosine[DE / 2], sine[DE / 2];
  if (p.cosine) {
    int64 row = (int64)min(position, p.positions - 1) * (width / 2) + own * (DE / 2);
#pragma unroll
    for (int i = 0; i < DE / 2; i++) cosine[i] = p.cosine[row + i], sine[i] = p.sine[row + i];
  }
  int queryBlock = position / BLOCK;
  int64 before = at(max(position - 1, 0));
  double between = 0, gBefore = 0, angles[SE == 0 ? 1 : phases] = {};
  if constexpr (SE > 0) {
    // Totals of the blocks from the first of the span up to that of the query.
    for (int m = first / BLOCK + lane; m < queryBlock; m += 32) between += __ldcg(p.decays + at(m * BLOCK + BLOCK - 1));
    between = warpSum(between);
    if (position % BLOCK != 0) gBefore = __ldcg(p.decays + before);
#pragma unroll
    for (int i = 0; i < phases; i++) if (position > 0) angles[i] = __ldcg(p.phases + before * (states / 2) + own * phases + i);
  }
  waitForOthers();

  auto elements = [&](const void* x, int pitch, int count) { return (const T*)x + (int64)batch * pitch + head * count * lanes + own * count; };
  Raw<T, DE> raw, newKey, newValue;
  float q[DE], key[DE];
  raw.load(elements(p.q, p.pitchQ, DE));
  newKey.load(elements(p.k, p.pitchK, DE));
  newValue.load(elements(p.v, p.pitchV, DE));
#pragma unroll
  for (int i = 0; i < DE; i++) q[i] = raw[i], key[i] = newKey[i];
  if (p.cosine) {
    rotate(q, cosine, sine), rotate(key, cosine, sine);
    newKey.set(key);
  }
#pragma unroll
  for (int i = 0; i < DE; i++) q[i] = rounded<T>(q[i]) * p.scale;
  float c[SE == 0 ? 1 : SE] = {}, factor = 0, newG = 0, angle[SE == 0 ? 1 : phases];
  Raw<T, SE == 0 ? 2 : SE> newState;
  if constexpr (SE > 0) {
    const double turn = 6.283185307179586476925;
    Raw<T, SE> read;
    float write[SE], cosPhi[phases], sinPhi[phases];
    read.load(elements(p.c, p.pitchC, SE));
    newState.load(elements(p.b, p.pitchB, SE));
    float strength = __ldcg(p.strength + (int64)batch * p.pitchStrength + head) + p.bias[head];
    newG = (float)(gBefore - (fmaxf(strength, 0.f) + log1pf(expf(-fabsf(strength)))));
#pragma unroll
    for (int i = 0; i < phases; i++) {
      double now = angles[i] + __ldcg(p.phase + (int64)batch * p.pitchPhase + head * (states / 2) + own * phases + i);
      angle[i] = (float)(now - turn * floor(now / turn));
      sincosf(angle[i], &sinPhi[i], &cosPhi[i]);
    }
#pragma unroll
    for (int i = 0; i < SE; i++) c[i] = read[i], write[i] = newState[i];
    rotate(c, cosPhi, sinPhi), rotate(write, cosPhi, sinPhi);
    newState.set(write);
    factor = p.lambda[head];
#pragma unroll
    for (int i = 0; i < SE; i++) c[i] = rounded<T>(c[i]) * factor;
  }
  auto scoreOf = [&](const Raw<T, DE>& k, const Raw<T, SE == 0 ? 2 : SE>& b, float decay) {
    float content = 0, state = 0;
#pragma unroll
    for (int i = 0; i < DE; i++) content += q[i] * k[i];
    if constexpr (SE > 0) {
#pragma unroll
      for (int i = 0; i < SE; i++) state += c[i] * b[i];
    }
    return groupSum(content + state * decay);
  };

  Found<DE> found;
  for (int base = first; base < min(first + p.span, position + 1); base += BLOCK) {
    float rest = (float)(between + newG);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float score = scoreOf(k[i], b[i], SE > 0 ? expf(fminf(rest - g[i], 0.f)) : 0.f);
      found.add(keyOf(base, i) < position ? score : -INFINITY, v[i]);
    }
    if (base + BLOCK >= first + p.span) break;
    if constexpr (SE > 0) if (base / BLOCK < queryBlock) between -= __ldcg(p.decays + at(base + BLOCK - 1));
    fetch(base + BLOCK);
  }
  if (blockIdx.x == active - 1 && warp == 0) {
    float score = scoreOf(newKey, newState, 1.f);
    if (group == 0) {
      found.add(score, newValue);
      int64 newest = at(position);
      newKey.store((T*)p.keys + newest * width + own * DE);
      newValue.store((T*)p.values + newest * width + own * DE);
      if constexpr (SE > 0) {
        newState.store((T*)p.importances + newest * states + own * SE);
#pragma unroll
        for (int i = 0; i < phases; i++) p.phases[newest * (states / 2) + own * phases + i] = angle[i];
        if (own == 0) p.decays[newest] = newG;
      }
    }
  }

  found.join(lanes), found.join(2 * lanes);
  if (own == lane) {
#pragma unroll
    for (int i = 0; i < DE; i++) values[warp][own * DE + i] = found.values[i];
    if (lane == 0) most[warp] = found.most, total[warp] = found.total;
  }
  __syncthreads();
  int64 row = (int64)batch * p.heads + head;
  float* parts = p.partial + row * p.splits * (2 + width);
  float largest = most[0], sum = 0, result = 0;
  for (int i = 1; i < warps; i++) largest = fmaxf(largest, most[i]);
  for (int i = 0; i < warps; i++) {
    float weight = weightOf(most[i], largest);
    sum += weight * total[i];
    if (threadIdx.x < width) result += weight * values[i][threadIdx.x];
  }
  if (active == 1) {
    if (threadIdx.x < width) store(p.value, type, row * width + threadIdx.x, result / sum);
    return;
  }
  float* part = parts + blockIdx.x * (2 + width);
  if (threadIdx.x < width) part[2 + threadIdx.x] = result;
  if (threadIdx.x == 0) part[0] = largest, part[1] = sum;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) isLast = atomicAdd(p.counters + row, 1) == active - 1;
  __syncthreads();
  if (!isLast) return;
  __threadfence();
  if (threadIdx.x == 0) p.counters[row] = 0;
  largest = -INFINITY, sum = 0, result = 0;
  for (int i = lane; i < active; i += 32) largest = fmaxf(largest, __ldcg(parts + i * (2 + width)));
  largest = warpMax(largest);
  for (int i = lane; i < active; i += 32) sum += weightOf(__ldcg(parts + i * (2 + width)), largest) * __ldcg(parts + i * (2 + width) + 1);
  sum = warpSum(sum);
  const int turns = 256 / width;
  int column = threadIdx.x % width, turn = threadIdx.x / width;
#pragma unroll 4
  for (int i = turn; i < active; i += turns) {
    const float* from = parts + i * (2 + width);
    result += weightOf(__ldcg(from), largest) * __ldcg(from + 2 + column);
  }
  __syncthreads();
  (&values[0][0])[threadIdx.x] = result;
  __syncthreads();
  if (turn > 0) return;
  for (int i = 1; i < turns; i++) result += (&values[0][0])[i * width + column];
  store(p.value, type, row * width + column, result / sum);
}

#define DECODE_STEP(suffix, T, width, states)                                                                    \
  extern "C" __global__ void __launch_bounds__(256) decodeStep_##suffix##_##width##_##states(                    \
      const __grid_constant__ DecodeStep p) {                                                                    \
    decodeStep<T, width / lanes, states / lanes>(p);                                                             \
  }
#define DECODE_STEPS(suffix, T, width) \
  DECODE_STEP(suffix, T, width, 0)     \
  DECODE_STEP(suffix, T, width, 16)    \
  DECODE_STEP(suffix, T, width, 32)    \
  DECODE_STEP(suffix, T, width, 64)    \
  DECODE_STEP(suffix, T, width, 128)
DECODE_STEPS(float32, float, 64)
DECODE_STEPS(float32, float, 128)
DECODE_STEPS(bfloat16, __nv_bfloat16, 64)
DECODE_STEPS(bfloat16, __nv_bfloat16, 128)
