// One token of each sequence, from its projections to what attention gives: rotation, SISA's states continued, the caches
// written, and attention to them.
#include "decode-step.cuh"

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
template <int N, class Numbers> __device__ inline void rotate(float (&x)[N], const Numbers& cosine, const Numbers& sine) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cosine[i] - b * sine[i], x[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

__device__ inline float groupSum(float x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// Elements DE of a head's width and SE of its states belong to each lane of a group. Block x takes `span` positions of one
// head; the block that holds the newest token writes the caches, and the last block to end joins what all have found.
template <class T, int DE, int SE> __device__ void decodeStep(const DecodeStep& p) {
  const int width = DE * lanes, states = SE * lanes, phases = SE / 2;
  const int type = sizeof(T) == 4 ? Float32 : Bfloat16;
  __shared__ float most[warps], total[warps], values[warps][width];
  __shared__ int isLast;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / lanes, own = lane % lanes;
  int part = blockIdx.x, head = blockIdx.y, batch = blockIdx.z;
  letNextBegin();
  // Caches and positions are written by no other kernel of a run.
  int position = p.start[batch];
  if (position < 0 || position >= p.pages.capacity) {
    if (threadIdx.x == 0 && part == 0 && head == 0) report(p.fault, p.faultNode, position);
    return;
  }
  int first = part * p.span, active = position / p.span + 1, end = min(first + p.span, position);
  if (part >= active) return;
  auto at = [&](int position) { return keyRowAt(p.pages, batch, position) * p.heads + head; };
  int queryBlock = position / BLOCK;
  Raw<T, DE> k[2], v[2];
  Raw<T, SE == 0 ? 2 : SE> b[2];
  float g[2] = {};
  auto keyOf = [&](int base, int i) { return base + warp * perWarp + i * (perWarp / 2) + group; };
  auto fetch = [&](int base) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int64 key = at(max(min(keyOf(base, i), end - 1), 0));
      k[i].load((const T*)p.keys + key * width + own * DE), v[i].load((const T*)p.values + key * width + own * DE);
      if constexpr (SE > 0) b[i].load((const T*)p.importances + key * states + own * SE), g[i] = __ldcg(p.decays + key);
    }
  };
  // Totals of the blocks from that of a key up to that of the query.
  double between[2] = {}, rest = 0;
  int block = first / BLOCK;
  auto totalOf = [&](int m) { return __ldg(p.decays + at(m * BLOCK + BLOCK - 1)); };
  auto follow = [&](int base) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int j = keyOf(base, i);
      for (; j < end && block < j / BLOCK; block++) rest -= totalOf(block);
      between[i] = rest;
    }
  };
  float ownTotal = SE > 0 && block + lane < queryBlock ? totalOf(block + lane) : 0;
  fetch(first);
  Raw<float, DE / 2> cosine, sine;
  if (p.cosine) {
    int row = min(position, p.positions - 1) * (width / 2) + own * (DE / 2);
    cosine.load(p.cosine + row), sine.load(p.sine + row);
  }
  double gBefore = 0;
  Raw<float, SE == 0 ? 1 : phases> angles;
  angles.clear();
  float bias = 0, factor = 0;
  if constexpr (SE > 0) {
    bias = p.bias[head], factor = p.lambda[head];
    int64 before = at(max(position - 1, 0));
    if (position % BLOCK != 0) gBefore = __ldcg(p.decays + before);
    if (position > 0) angles.load(p.phases + before * (states / 2) + own * phases);
  }
  if constexpr (SE > 0) {
    rest = ownTotal;
#pragma unroll 1
    for (int m = block + lane + 32; m < queryBlock; m += 32) rest += totalOf(m);
    rest = warpSum(rest);
    follow(first);
  }
  waitForOthers();

  auto elements = [&](const void* x, int pitch, int count) { return (const T*)x + (int64)batch * pitch + head * count * lanes + own * count; };
  bool isNewest = part == active - 1 && warp == 0;
  Raw<T, DE> raw, newKey, newValue;
  float q[DE];
  raw.load(elements(p.q, p.pitchQ, DE));
  if (isNewest) newKey.load(elements(p.k, p.pitchK, DE)), newValue.load(elements(p.v, p.pitchV, DE));
#pragma unroll
  for (int i = 0; i < DE; i++) q[i] = raw[i];
  if (p.cosine) rotate(q, cosine, sine);
#pragma unroll
  for (int i = 0; i < DE; i++) q[i] = rounded<T>(q[i]) * p.scale;
  float c[SE == 0 ? 1 : SE] = {}, newG = 0;
  Raw<T, SE == 0 ? 2 : SE> newState;
  Raw<float, SE == 0 ? 1 : phases> cosPhi, sinPhi;
  if constexpr (SE > 0) {
    const double turn = 6.283185307179586476925, perTurn = 0.15915494309189533577;
    Raw<T, SE> read;
    float now[phases], cosines[phases], sines[phases];
    read.load(elements(p.c, p.pitchC, SE));
    if (isNewest) newState.load(elements(p.b, p.pitchB, SE));
    float strength = __ldcg(p.strength + (int64)batch * p.pitchStrength + head) + bias;
    newG = (float)(gBefore - (fmaxf(strength, 0.f) + log1pf(expf(-fabsf(strength)))));
#pragma unroll
    for (int i = 0; i < phases; i++) {
      float step = __ldcg(p.phase + (int64)batch * p.pitchPhase + head * (states / 2) + own * phases + i);
      double turns = ((double)angles[i] + step) * perTurn;
      turns -= floor(turns);
      now[i] = (float)(turn * turns);
      sincospif((float)(2 * turns), &sines[i], &cosines[i]);
    }
    angles.set(now), cosPhi.set(cosines), sinPhi.set(sines);
#pragma unroll
    for (int i = 0; i < SE; i++) c[i] = read[i];
    rotate(c, cosPhi, sinPhi);
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
  for (int base = first; base < end; base += warps * perWarp) {
    float scores[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float decay = SE > 0 ? __expf(fminf((float)(between[i] + newG) - g[i], 0.f)) : 0.f;
      float score = scoreOf(k[i], b[i], decay);
      scores[i] = keyOf(base, i) < end ? score : -INFINITY;
    }
    found.raise(fmaxf(scores[0], scores[1]));
    found.add(scores[0], v[0]), found.add(scores[1], v[1]);
    if (base + warps * perWarp >= end) break;
    fetch(base + warps * perWarp);
    if constexpr (SE > 0) follow(base + warps * perWarp);
  }
  if (isNewest) {
    auto turned = [&](auto& x, const auto& cosine, const auto& sine) {
      const int count = sizeof(x) / sizeof(T);
      float values[count];
#pragma unroll
      for (int i = 0; i < count; i++) values[i] = x[i];
      rotate(values, cosine, sine);
      x.set(values);
    };
    if (p.cosine) turned(newKey, cosine, sine);
    if constexpr (SE > 0) turned(newState, cosPhi, sinPhi);
    float score = scoreOf(newKey, newState, 1.f);
    if (group == 0) {
      found.raise(score), found.add(score, newValue);
      int64 newest = at(position);
      newKey.store((T*)p.keys + newest * width + own * DE);
      newValue.store((T*)p.values + newest * width + own * DE);
      if constexpr (SE > 0) {
        newState.store((T*)p.importances + newest * states + own * SE);
        angles.store(p.phases + newest * (states / 2) + own * phases);
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
  float ownMost = lane < warps ? most[lane] : -INFINITY, largest = warpMax(ownMost), weight = weightOf(ownMost, largest);
  float sum = warpSum(lane < warps ? weight * total[lane] : 0.f), result = 0;
#pragma unroll
  for (int i = 0; i < warps; i++) {
    float of = __shfl_sync(0xffffffffu, weight, i);
    if (threadIdx.x < width) result += of * values[i][threadIdx.x];
  }
  if (active == 1) {
    if (threadIdx.x < width) store(p.value, type, row * width + threadIdx.x, result / sum);
    return;
  }
  float* to = parts + part * (2 + width);
  if (threadIdx.x < width) to[2 + threadIdx.x] = result;
  if (threadIdx.x == 0) to[0] = largest, to[1] = sum;
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
  const int turns = 32 * warps / width;
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
    decodeStep<T, width / lanes, states / lanes>(p);                                                       \
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
