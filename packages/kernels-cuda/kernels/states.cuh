// Gradients behind those that attention gives of SISA's states, in one pass over all of them: by c and b, which are rotated
// back; by the angles, which are summed over what comes later; by what decays are made of, summed likewise; and by lambda.
#pragma once
#include "common.cuh"

const int BLOCK = 64;  // positions of a block; decayBlock in @sisa/core
const double turn = 6.283185307179586476925;

__device__ inline double wrapped(double angle) { return angle - turn * floor(angle * (1.0 / turn)); }

// Of an angle from 0 to a turn. For bfloat16 the instructions of the device are near enough: 1e-6.
template <class T> __device__ inline void sineCosine(float angle, float& sine, float& cosine) {
  if constexpr (sizeof(T) == 4) sincosf(angle, &sine, &cosine);
  else __sincosf(angle > (float)(turn / 2) ? angle - (float)turn : angle, &sine, &cosine);
}

struct StateSizes {
  int batches, length, heads, width;
  // Elements from one position to the next.
  int strengthPitch, cPitch, bPitch, phasePitch, dStrengthPitch;
  // Of the attention around them.
  int headWidth;
  float scale;
};

// What a warp works on: a block of positions of a batch, and a part of the heads, of which each lane has four columns.
struct StatePlace {
  int lanes, heads;  // of a head, of a warp
  int parts, blocks, part, batch, block;
  int line;  // of [B,parts]
  int first, count;  // positions
  int64 start;  // row of the first one
  int head, own;  // of a lane: its head, and which of the lanes of a head it is
  bool inside;  // whether there is such a head
  // Items go by spans of `each` blocks, in those by lines, in those by blocks.
  __device__ StatePlace(const StateSizes& n, int item, int each = 1) {
    lanes = n.width / 4, heads = 32 / lanes, parts = (n.heads + heads - 1) / heads, blocks = (n.length + BLOCK - 1) / BLOCK;
    int lines = parts * n.batches, span = item / (each * lines) * each, inSpan = min(each, blocks - span);
    item -= span * lines, block = span + item % inSpan, line = item / inSpan, part = line % parts, batch = line / parts;
    first = block * BLOCK, count = min(BLOCK, n.length - first), start = (int64)batch * n.length + first;
    int lane = threadIdx.x;
    head = min(part * heads + lane / lanes, n.heads - 1), own = lane % lanes, inside = part * heads + lane / lanes < n.heads;
  }
};

__device__ inline float4 fourOf(uint2 x) {
  float2 low = __bfloat1622float2(*(__nv_bfloat162*)&x.x), high = __bfloat1622float2(*(__nv_bfloat162*)&x.y);
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ inline void storeFour(__nv_bfloat16* p, float x, float y, float z, float w) {
  __nv_bfloat162 low = __floats2bfloat162_rn(x, y), high = __floats2bfloat162_rn(z, w);
  *(uint2*)p = make_uint2(*(uint32*)&low, *(uint32*)&high);
}

// Sum over lanes that differ in bits from `from` on and below `to`, powers of 2; each of them gets it.
template <class C> __device__ inline C sumOfLanes(C x, int from, int to) {
  for (int apart = from; apart < to; apart *= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}

// Gradients by c as [B,T,H,S], read = c . dc and write = b . db as attention's kernels have added them up, [B,T,H].
struct DenseGradients {
  const float *gradients, *read, *write;
  __device__ int columnOf(int part) const { return part * 4; }
  __device__ float4 load(const StateSizes& n, int batch, int position, int head, int part) const {
    return *(const float4*)(gradients + (((int64)batch * n.length + position) * n.heads + head) * n.width + part * 4);
  }
  __device__ float4 finish(const StateSizes&, const float4& loaded, int) const { return loaded; }
  // What a lane has of both.
  __device__ float2 dots(int64 row, int part, float4, float4, float4, float4) const {
    return part == 0 ? make_float2(read[row], write[row]) : make_float2(0, 0);
  }
};

__device__ inline float dot(float4 x, float4 y) { return x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w; }

// A warp's piece of work, of as many as there are blocks of threads: those before it have begun.
__device__ inline int nextItem(uint32* counter) {
  return __shfl_sync(0xffffffffu, threadIdx.x == 0 ? atomicInc(counter, gridDim.x - 1) : 0, 0);
}

// Of a warp that all threads are: whether it is the last of `count` that come here. Sees what the others wrote before.
__device__ inline bool isLastOf(uint32* counter, int count) {
  __threadfence();
  __syncwarp();
  uint32 before = threadIdx.x == 0 ? atomicInc(counter, count - 1) : 0;
  before = __shfl_sync(0xffffffffu, before, 0);
  __threadfence();
  return before == count - 1;
}

// What warps tell each other of their blocks of positions.
struct SumsOfBlocks {
  double* sums;   // [B,parts,blocks,3,32], of two angles and of the decay that a lane has
  uint32* ready;  // [B,parts,blocks], 0 before and after
  __device__ void tell(const StatePlace& place, const double (&own)[3]) const {
    int index = place.line * place.blocks + place.block;
#pragma unroll
    for (int i = 0; i < 3; i++) sums[(int64)index * 96 + i * 32 + threadIdx.x] = own[i];
    __threadfence();
    __syncwarp();
    if (threadIdx.x == 0) atomicExch(&ready[index], 1);
  }
  // Gives what blocks from..to-1 of the line have told, once they have.
  template <class Take> __device__ void wait(const StatePlace& place, int from, int to, Take take) const {
    const uint32* ready = this->ready + place.line * place.blocks;
    const double* sums = this->sums + (int64)place.line * place.blocks * 96 + threadIdx.x;
    for (; from < to; from += 32) {
      int end = min(from + 32, to), own = from + threadIdx.x;
      if (own < end)
        while (*(volatile const uint32*)&ready[own] == 0) {}
      __threadfence();
      __syncwarp();
#pragma unroll 8
      for (int i = from; i < end; i++) take(i, __ldcg(&sums[i * 96]), __ldcg(&sums[i * 96 + 32]), __ldcg(&sums[i * 96 + 64]));
    }
  }
  // By a warp, when all of its line have waited.
  __device__ void forget(const StatePlace& place) const {
    for (int i = threadIdx.x; i < place.blocks; i += 32) ready[place.line * place.blocks + i] = 0;
  }
};

// Memory that blocks share.
struct StateSums {
  SumsOfBlocks told;
  double2* ofBlocks;                   // [B,parts,blocks,heads of a warp], of c . dc and of gradients by strength
  double2* ofBatches;                  // [parts,B,heads of a warp]
  uint32 *next, *partEnds, *lineEnds;  // next piece of work; how many of each part and line have ended; 0 before and after
};

// One warp for a block of positions, whose lanes take four columns each of some heads. Later blocks come first, so that
// those that one waits for have begun. log alpha = -softplus(strength + bias), lambda = softplus(raw) where there is raw.
template <class Gradients>
__device__ void stateGradients(const Gradients& ofC, const __nv_bfloat16* c, const __nv_bfloat16* b, const float* phi,
                               const float* bGradient, const float* strength, const float* bias, const float* lambda,
                               const float* raw, __nv_bfloat16* dc, __nv_bfloat16* db, __nv_bfloat16* dPhase,
                               __nv_bfloat16* dStrength, float* dBias, float* dLambda, const StateSums& shared, const StateSizes& n) {
  const int STEPS = 4;  // positions whose loads are in flight at once
  extern __shared__ float2 angles[];  // [BLOCK,32], and after them changes of decays, [BLOCK,heads of a warp]
  float* changes = (float*)(angles + BLOCK * 32);
  StatePlace place(n, gridDim.x - 1 - nextItem(shared.next));
  int lane = threadIdx.x, lanes = place.lanes, heads = place.heads, blocks = place.blocks;
  int part = place.part, batch = place.batch, block = place.block, line = place.line, count = place.count, head = place.head;
  int64 start = place.start;
  int column = ofC.columnOf(place.own), firstColumn = head * n.width + column;

  double sums[3] = {}, reads = 0;
  uint2 xs[STEPS], ys[STEPS];
  float2 turns[STEPS];
  float4 dxs[STEPS], dys[STEPS];
  for (int done = 0; done < count; done += STEPS) {
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int t = max(count - 1 - done - j, 0);
      int64 at = ((start + t) * n.heads + head) * n.width + column;
      xs[j] = *(const uint2*)(c + at), ys[j] = *(const uint2*)(b + at);
      turns[j] = *(const float2*)(phi + at / 2);
      dxs[j] = ofC.load(n, batch, place.first + t, head, place.own), dys[j] = *(const float4*)(bGradient + at);
    }
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int t = count - 1 - done - j;
      if (t < 0) break;
      float4 x = fourOf(xs[j]), y = fourOf(ys[j]), dx = ofC.finish(n, dxs[j], place.own), dy = dys[j];
      // The gradient by an angle is the cross product of a rotated pair with its gradient.
      sums[0] += (x.x * dx.y - x.y * dx.x) + (y.x * dy.y - y.y * dy.x);
      sums[1] += (x.z * dx.w - x.w * dx.z) + (y.z * dy.w - y.w * dy.z);
      angles[t * 32 + lane] = make_float2((float)sums[0], (float)sums[1]);
      float2 dots = ofC.dots((start + t) * n.heads + head, place.own, x, dx, y, dy);
      reads += dots.x;
      sums[2] += sumOfLanes(dots.x - dots.y, 1, lanes);
      if (place.own == 0) changes[t * heads + lane / lanes] = (float)sums[2];
      if (!place.inside) continue;
      float sine[2], cosine[2];
      sineCosine<__nv_bfloat16>(turns[j].x, sine[0], cosine[0]), sineCosine<__nv_bfloat16>(turns[j].y, sine[1], cosine[1]);
      int64 row = start + t;
      storeFour(dc + row * n.cPitch + firstColumn, dx.x * cosine[0] + dx.y * sine[0], dx.y * cosine[0] - dx.x * sine[0],
                dx.z * cosine[1] + dx.w * sine[1], dx.w * cosine[1] - dx.z * sine[1]);
      storeFour(db + row * n.bPitch + firstColumn, dy.x * cosine[0] + dy.y * sine[0], dy.y * cosine[0] - dy.x * sine[0],
                dy.z * cosine[1] + dy.w * sine[1], dy.w * cosine[1] - dy.z * sine[1]);
    }
  }

  shared.told.tell(place, sums);
  double later[3] = {};
  shared.told.wait(place, block + 1, blocks, [&](int, double first, double second, double third) {
    later[0] += first, later[1] += second, later[2] += third;
  });

  if (place.inside)
#pragma unroll 8
    for (int t = 0; t < count; t++) {
      float2 sum = angles[t * 32 + lane];
      *(__nv_bfloat162*)(dPhase + (start + t) * n.phasePitch + firstColumn / 2) =
          __floats2bfloat162_rn((float)(sum.x + later[0]), (float)(sum.y + later[1]));
    }
  // Lanes take positions of one head each.
  int second = lane % heads, secondHead = part * heads + second;
  double laterChange = __shfl_sync(0xffffffffu, later[2], second * lanes), gradients = 0;
  if (secondHead < n.heads) {
    float shift = bias[secondHead];
#pragma unroll 8
    for (int t = lane / heads; t < count; t += lanes) {
      float x = strength[(start + t) * n.strengthPitch + secondHead] + shift, e = expf(-fabsf(x));
      float result = -(float)(changes[t * heads + second] + laterChange) * (x < 0.f ? e : 1.f) / (1.f + e);
      dStrength[(start + t) * n.dStrengthPitch + secondHead] = __float2bfloat16_rn(result);
      gradients += result;
    }
  }
  gradients = sumOfLanes(gradients, heads, 32);
  reads = __shfl_sync(0xffffffffu, sumOfLanes(reads, 1, lanes), second * lanes);

  // Blocks of a batch, then batches, each time by the last to end.
  auto sumAll = [&](const double2* terms, int count) {
    reads = gradients = 0;
    for (int i = lane / heads; i < count; i += lanes) {
      double2 term = __ldcg((const double2*)&terms[i * heads + second]);
      reads += term.x, gradients += term.y;
    }
    reads = sumOfLanes(reads, heads, 32), gradients = sumOfLanes(gradients, heads, 32);
  };
  double2* ofBlocks = shared.ofBlocks + (int64)line * blocks * heads;
  if (lane < heads) ofBlocks[block * heads + lane] = make_double2(reads, gradients);
  if (!isLastOf(&shared.lineEnds[line], blocks)) return;
  shared.told.forget(place);
  sumAll(ofBlocks, blocks);
  double2* ofBatches = shared.ofBatches + part * n.batches * heads;
  if (lane < heads) ofBatches[batch * heads + lane] = make_double2(reads, gradients);
  if (!isLastOf(&shared.partEnds[part], n.batches)) return;
  sumAll(ofBatches, n.batches);
  if (lane >= heads || secondHead >= n.heads) return;
  dBias[secondHead] = (float)gradients;
  dLambda[secondHead] = (float)(reads / lambda[secondHead]) * (raw ? 1.f / (1.f + expf(-raw[secondHead])) : 1.f);
}

// The kernel of stateGradients, with what it is given in front of the rest, and what it makes of that.
#define STATE_GRADIENTS(NAME, GIVEN, GRADIENTS)                                                                            \
  extern "C" __global__ void __launch_bounds__(32) NAME(                                                                  \
      GIVEN, const __nv_bfloat16* c, const __nv_bfloat16* b, const float* phi, const float* bGradient,                    \
      const float* strength, const float* bias, const float* lambda, const float* raw, __nv_bfloat16* dc,                 \
      __nv_bfloat16* db, __nv_bfloat16* dPhase, __nv_bfloat16* dStrength, float* dBias, float* dLambda, double* told,     \
      uint32* next, uint32* lineEnds, uint32* ready, double2* ofBlocks, double2* ofBatches, uint32* partEnds,             \
      const __grid_constant__ StateSizes n) {                                                                             \
    StateSums shared{{told, ready}, ofBlocks, ofBatches, next, partEnds, lineEnds};                                       \
    stateGradients(GRADIENTS, c, b, phi, bGradient, strength, bias, lambda, raw, dc, db, dPhase, dStrength, dBias,        \
                   dLambda, shared, n);                                                                                   \
  }
