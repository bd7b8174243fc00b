// What attention on Hopper needs of SISA's states, and its backward pass of each query, before it begins, see attention-hopper.cu
// for spans and their exponents; and what follows from its sums of gradients by c.
#include "attention-hopper-parts.cuh"
#include "overlap.cuh"
#include "states.cuh"

const int LONGEST = 128;  // positions of a span, of which a thread takes one

// What the forward pass takes for the last exponent of a span, so that it is the same for many in a row.
__device__ inline int coarse(int exponent) { return exponent & ~15; }

// Of a span, by a block of at least as many threads: its first and last exponent, and of a thread that of its position. g begins
// anew at every 64th position; `sequence` is the first of the span.
struct Exponents {
  int first, last;
  float own;
  __device__ Exponents(const float* sequence, int heads, int start, int count, double* shared) {
    auto gOf = [&](int position) { return (double)sequence[position * heads]; };
    int at = min((int)threadIdx.x, count - 1);
    double before = 0, within = gOf(at), total = count % 64 != 0 ? gOf(count - 1) : 0.0;
#pragma unroll
    for (int end = 63; end < LONGEST; end += 64) {
      if (end >= count) continue;
      double sum = gOf(end);
      total += sum;
      if (end < at / 64 * 64) within += sum;
    }
    for (int block = threadIdx.x; block < start / 64; block += blockDim.x) before += gOf(block * 64 + 63 - start);
    before = blockSum(before, shared);
    const double log2e = 1.4426950408889634;
    auto rounded = [](double x) { return (int)rint(fmax(x, -1e9)); };
    first = rounded(before * log2e), last = rounded((before + total) * log2e);
    own = (float)((before + within) * log2e - first);
  }
};

// Once for each span of each head: decay, firsts, lasts, where wanted cHat and bHat, and the largest norm of a row of each.
extern "C" __global__ void __launch_bounds__(256, 6)
    decaySpans(const bf16* c, const bf16* b, const float* g, const float* lambda, bf16* cHat, bf16* bHat, float* decay,
               int* firsts, int* lasts, float* cNorms, float* bNorms, const __grid_constant__ AttentionSizes sizes, int width,
               int span) {
  const int AT_ONCE = 2;  // rows whose loads are in flight at once
  __shared__ float2 factors[LONGEST];  // of c and b
  __shared__ double sums[32];
  __shared__ float norms[2][8];
  letNextBegin();
  // From the last positions back: states that were written last may still be in the second cache.
  int spans = gridDim.x / sizes.heads, own = spans - 1 - blockIdx.x / sizes.heads, head = blockIdx.x % sizes.heads, batch = gridDim.y - 1 - blockIdx.y;
  int line = batch * sizes.heads + head, T = sizes.length, first = own * span, count = min(span, T - first);
  // A row is taken by width / 8 lanes, a power of 2.
  int lanes = width / 8, digits = __ffs(lanes) - 1, step = 256 >> digits, row = threadIdx.x >> digits, pitch = sizes.heads * width;
  int64 start = (((int64)batch * T + first) * sizes.heads + head) * width + (threadIdx.x & (lanes - 1)) * 8;
  uint4 cParts[AT_ONCE], bParts[AT_ONCE];
  auto fetch = [&](int from) {
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      int at = from + row + i * step;
      cParts[i] = bParts[i] = uint4{};
      if (at >= count) continue;
      cParts[i] = *(const uint4*)(c + start + at * pitch);
      bParts[i] = *(const uint4*)(b + start + at * pitch);
    }
  };
  fetch(0);
  const float* sequence = g + ((int64)batch * T + first) * sizes.heads + head;
  Exponents exponents(sequence, sizes.heads, first, count, sums);
  int firstExponent = exponents.first, lastExponent = coarse(exponents.last);
  if (threadIdx.x < span) {
    float exponent = exponents.own;
    factors[threadIdx.x] = make_float2(exp2Of(exponent) * (lambda[head] / sizes.scale), exp2Of((float)(lastExponent - firstExponent) - exponent));
    decay[((int64)line * spans + own) * span + threadIdx.x] = exponent;
  }
  __syncthreads();
  auto scaled = [](uint32& pair, float factor) {
    float2 x = __bfloat1622float2(*(__nv_bfloat162*)&pair);
    x.x *= factor, x.y *= factor;
    *(__nv_bfloat162*)&pair = __floats2bfloat162_rn(x.x, x.y);
    return x.x * x.x + x.y * x.y;
  };
  float cMost = 0, bMost = 0;
  for (int from = 0; from < span; from += AT_ONCE * step) {
    if (from > 0) fetch(from);
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      int at = from + row + i * step;
      float2 factor = factors[min(at, span - 1)];
      uint4 &x = cParts[i], &y = bParts[i];
      float cSquares = scaled(x.x, factor.x) + scaled(x.y, factor.x) + scaled(x.z, factor.x) + scaled(x.w, factor.x);
      float bSquares = scaled(y.x, factor.y) + scaled(y.y, factor.y) + scaled(y.z, factor.y) + scaled(y.w, factor.y);
      if (at < count) {
        if (cHat) *(uint4*)(cHat + start + at * pitch) = x;
        if (bHat) *(uint4*)(bHat + start + at * pitch) = y;
      }
      for (int apart = 1; apart < lanes; apart *= 2) {
        cSquares += __shfl_xor_sync(0xffffffffu, cSquares, apart);
        bSquares += __shfl_xor_sync(0xffffffffu, bSquares, apart);
      }
      cMost = fmaxf(cMost, cSquares), bMost = fmaxf(bMost, bSquares);
    }
  }
  cMost = warpMax(cMost), bMost = warpMax(bMost);
  if (threadIdx.x % 32 == 0) norms[0][threadIdx.x / 32] = cMost, norms[1][threadIdx.x / 32] = bMost;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; i++) cMost = fmaxf(cMost, norms[0][i]), bMost = fmaxf(bMost, norms[1][i]);
    int64 place = (int64)line * spans + own;
    firsts[place] = firstExponent, lasts[place] = lastExponent;
    cNorms[place] = sqrtf(cMost), bNorms[place] = sqrtf(bMost);
  }
}

// The same without hats, from squared norms of c and b, [B,T,H], for spans of 128 positions, `backwardRows` in
// src/lowerings/attention-hopper.ts: by a warp, whose lanes take every 32nd position.
struct SpanExponents {
  const float *cSquares, *bSquares, *g, *lambda;
  float* decay;
  int *firsts, *lasts;
  float *cNorms, *bNorms;
  // `item` counts spans of all heads.
  __device__ void make(const AttentionSizes& sizes, int spans, int item) const {
    const int EACH = 4, SPAN = 32 * EACH;
    int lane = threadIdx.x % 32, head = item % sizes.heads, own = item / sizes.heads % spans, batch = item / sizes.heads / spans;
    int first = own * SPAN, last = min(SPAN, sizes.length - first) - 1, place = (batch * sizes.heads + head) * spans + own;
    int64 start = ((int64)batch * sizes.length + first) * sizes.heads + head;
    float c[EACH], b[EACH], sums[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      int64 at = start + min(i * 32 + lane, last) * sizes.heads;
      c[i] = cSquares[at], b[i] = bSquares[at], sums[i] = g[at];
    }
    auto endOf = [&](int block) { return (double)g[start + (int64)(block * BLOCK + BLOCK - 1 - first) * sizes.heads]; };
    double before = 0, firstHalf = last < BLOCK ? 0 : endOf(first / BLOCK);
    for (int block = lane; block < first / BLOCK; block += 32) before += endOf(block);
    before = warpSum(before);
    auto within = [&](int i) { return i * 32 < BLOCK ? sums[i] : sums[i] + firstHalf; };
    const double log2e = 1.4426950408889634;
    auto rounded = [](double x) { return (int)rint(fmax(x, -1e9)); };
    double total = __shfl_sync(0xffffffffu, within(EACH - 1), 31);
    int firstExponent = rounded(before * log2e), lastExponent = rounded((before + total) * log2e);
    float cMost = 0, bMost = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      float exponent = (float)((before + within(i)) * log2e - firstExponent);
      decay[(int64)place * SPAN + i * 32 + lane] = exponent;
      cMost = fmaxf(cMost, sqrtf(c[i]) * exp2Of(exponent));
      bMost = fmaxf(bMost, sqrtf(b[i]) * exp2Of((float)(lastExponent - firstExponent) - exponent));
    }
    cMost = warpMax(cMost) * (fabsf(lambda[head]) / sizes.scale), bMost = warpMax(bMost);
    if (lane != 0) return;
    firsts[place] = firstExponent, lasts[place] = lastExponent, cNorms[place] = cMost, bNorms[place] = bMost;
  }
};

// What the backward pass needs of each query: LOG2E logSumExp, and delta, the sum over the width of out and its gradient.
// [B,H,blocks of 64,2,64]; rows beyond the sequence get infinity and 0. One group of width / 8 lanes for each row. By blocks of
// threads from `firstBlock` on.
__device__ inline void makeRows(const bf16* out, const bf16* gradient, const float* logSumExp, float* rows, const AttentionSizes& sizes,
                                int width, int firstBlock) {
  int lanes = width / 8, lane = threadIdx.x % lanes, T = sizes.length, padded = (T + 63) / 64 * 64;
  int64 count = (int64)sizes.batches * padded * sizes.heads;
  int own = blockIdx.x - firstBlock, blocks = gridDim.x - firstBlock;
  for (int64 row = (own * blockDim.x + threadIdx.x) / lanes; row < count; row += blocks * blockDim.x / lanes) {
    // Division of 64 bits would take longer than the memory.
    uint32 token = (uint32)row / sizes.heads, head = (uint32)row % sizes.heads;
    int position = token % padded, batch = token / padded;
    float sum = 0;
    if (position < T) {
      int64 place = (((int64)batch * T + position) * sizes.heads + head) * width + lane * 8;
      uint4 x = *(const uint4*)(out + place), y = *(const uint4*)(gradient + place);
      auto product = [](uint32 a, uint32 b) {
        float2 left = __bfloat1622float2(*(__nv_bfloat162*)&a), right = __bfloat1622float2(*(__nv_bfloat162*)&b);
        return left.x * right.x + left.y * right.y;
      };
      sum = product(x.x, y.x) + product(x.y, y.y) + product(x.z, y.z) + product(x.w, y.w);
    }
    for (int step = 1; step < lanes; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane != 0) continue;
    int64 line = batch * sizes.heads + head;
    float* target = rows + (line * (padded / 64) + position / 64) * 128 + position % 64;
    target[0] = position < T ? logSumExp[line * T + position] * LOG2E : INFINITY;
    target[64] = sum;
  }
}
extern "C" __global__ void attentionRows(const bf16* out, const bf16* gradient, const float* logSumExp, float* rows,
                                         const __grid_constant__ AttentionSizes sizes, int width) {
  makeRows(out, gradient, logSumExp, rows, sizes, width, 0);
}

// Both in one launch: the first blocks make spans, of which there are `spans` for each head.
extern "C" __global__ void __launch_bounds__(256, 6)
    attentionRowsAndSpans(const bf16* out, const bf16* gradient, const float* logSumExp, float* rows, const float* cSquares,
                          const float* bSquares, const float* g, const float* lambda, float* decay, int* firsts, int* lasts, float* cNorms,
                          float* bNorms, const __grid_constant__ AttentionSizes sizes, int width, int spans) {
  int count = sizes.batches * sizes.heads * spans, warps = blockDim.x / 32, firstBlock = (count + warps - 1) / warps;
  if (blockIdx.x >= firstBlock) return makeRows(out, gradient, logSumExp, rows, sizes, width, firstBlock);
  int item = blockIdx.x * warps + threadIdx.x / 32;
  if (item < count) SpanExponents{cSquares, bSquares, g, lambda, decay, firsts, lasts, cNorms, bNorms}.make(sizes, spans, item);
}

// How far each span reaches, as reachOf says. One warp for each span.
extern "C" __global__ void decayReach(const int* firsts, const int* lasts, const float* cNorms, const float* bNorms, int* reach,
                                      const __grid_constant__ AttentionSizes sizes, int spans, int ahead) {
  int own = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (own >= spans) return;
  int found = reachOf({nullptr, firsts, lasts, cNorms, bNorms}, sizes, blockIdx.y, spans, own, ahead);
  if (threadIdx.x % 32 == 0) reach[blockIdx.y * spans + own] = found;
}

// ---------------------------------------------------------------------------------------------------------------------
// Two floats to shared memory while the program goes on, and the end of all such copies.
__device__ inline void copyPair(float2* shared, const float* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(addressOf(shared)), "l"(global) : "memory");
}
__device__ inline void waitForPairs() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Sum of what the lanes before have, of those that are multiples of `step` lanes away.
__device__ inline double sumBefore(double x, int step) {
  for (int apart = step; apart < 32; apart *= 2) {
    double before = __shfl_up_sync(0xffffffffu, x, apart);
    if (threadIdx.x >= apart) x += before;
  }
  x = __shfl_up_sync(0xffffffffu, x, step);
  return threadIdx.x < step ? 0 : x;
}

// What ssmPrepare and decaySpans make, and squared norms [B,T,H], in one launch, with decays from their projection:
// log alpha = -softplus(strength + bias). One warp for a block of positions, whose lanes take four columns each of some heads.
// Earlier spans come first, and blocks of a span one after another: what one waits for, up to the end of its span, has begun.
extern "C" __global__ void __launch_bounds__(32)
    prepareSpans(const bf16* c, const bf16* b, const float* phase, const float* strength, const float* bias, const float* lambda,
                 bf16* cRotated, bf16* bRotated, float* phi, float* cSquares, float* bSquares, float* g, bf16* bHat, float* decay,
                 int* firsts, int* lasts, float* cNorms, float* bNorms, double* told, uint32* next, uint32* lineEnds, uint32* ready,
                 const __grid_constant__ StateSizes n, int span) {
  const int STEPS = 8;  // positions whose loads are in flight at once
  extern __shared__ float2 turns[];  // [BLOCK,32], and after them log decays up to each position, [BLOCK,heads of a warp]
  float* decays = (float*)(turns + BLOCK * 32);
  int each = span / BLOCK;
  StatePlace place(n, nextItem(next), each);
  SumsOfBlocks ofLine{told, ready};
  int lane = threadIdx.x, heads = place.heads, head = place.head, count = place.count, column = head * n.width + place.own * 4;
  int64 start = place.start;
  phase += start * n.phasePitch + column / 2;
  for (int t = 0; t < count; t++) copyPair(&turns[t * 32 + lane], phase + t * n.phasePitch);
  c += start * n.cPitch + column, b += start * n.bPitch + column;
  uint2 cs[STEPS], bs[STEPS];
  auto fetch = [&](int from) {
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int t = min(from + j, count - 1);
      cs[j] = *(const uint2*)(c + t * n.cPitch), bs[j] = *(const uint2*)(b + t * n.bPitch);
    }
  };
  fetch(0);
  // Each lane takes a run of positions of one head.
  int second = lane % heads, secondHead = place.part * heads + second, run = BLOCK / place.lanes, first = lane / heads * run;
  int end = secondHead < n.heads ? min(first + run, count) : first;
  float shift = bias[min(secondHead, n.heads - 1)];
  double sum = 0;
#pragma unroll 8
  for (int t = first; t < end; t++) {
    float x = strength[(start + t) * n.strengthPitch + secondHead] + shift, y = -(fmaxf(x, 0.f) + log1pf(expf(-fabsf(x))));
    decays[t * heads + second] = y, sum += y;
  }
  sum = sumBefore(sum, heads);
#pragma unroll 8
  for (int t = first; t < end; t++) {
    sum += decays[t * heads + second];
    g[(start + t) * n.heads + secondHead] = decays[t * heads + second] = (float)sum;
  }
  __syncwarp();
  waitForPairs();
  double own[3] = {0, 0, decays[(count - 1) * heads + lane / place.lanes]};
#pragma unroll 16
  for (int t = 0; t < count; t++) {
    float2 turn = turns[t * 32 + lane];
    own[0] += turn.x, own[1] += turn.y;
  }
  own[0] = wrapped(own[0]), own[1] = wrapped(own[1]);
  // Norms begin at 0, before another block of the span can be beyond the wait.
  int ofSpan = place.block / each, spans = (place.blocks + each - 1) / each, norm = (place.batch * n.heads + head) * spans + ofSpan;
  if (place.block == ofSpan * each && place.own == 0) cNorms[norm] = bNorms[norm] = 0;
  ofLine.tell(place, own);
  // Angles in front of the block, and G in front of the span, of the block, and behind the span.
  double angles[2] = {}, before = 0, within = 0, total = 0;
  ofLine.wait(place, 0, min((ofSpan + 1) * each, place.blocks), [&](int i, double first, double second, double third) {
    if (i < place.block) angles[0] += first, angles[1] += second;
    total += third;
    if (i < ofSpan * each) before += third;
    else if (i < place.block) within += third;
  });
  uint32 ended = lane == 0 ? atomicInc(&lineEnds[place.line], place.blocks - 1) : 0;
  angles[0] = wrapped(angles[0]), angles[1] = wrapped(angles[1]);
  const double log2e = 1.4426950408889634;
  auto rounded = [](double x) { return (int)rint(fmax(x, -1e9)); };
  int firstExponent = rounded(before * log2e), lastExponent = coarse(rounded(total * log2e));
  float across = (float)(lastExponent - firstExponent), weight = lambda[head] / n.scale, exponent = 0, cMost = 0, bMost = 0;
  decay += (int64)norm * span + place.first - ofSpan * span;
  int pitch = n.heads * n.width;
  int64 at = start * pitch + column;
  phi += at / 2, cRotated += at, bRotated += at, bHat += at, cSquares += start * n.heads + head, bSquares += start * n.heads + head;
  for (int from = 0; from < count; from += STEPS) {
    if (from > 0) fetch(from);
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int t = from + j;
      if (t >= count) break;
      float sine[2], cosine[2];
      float2 turn = turns[t * 32 + lane];
      angles[0] = wrapped(angles[0] + turn.x), angles[1] = wrapped(angles[1] + turn.y);
      float2 narrow = make_float2((float)angles[0], (float)angles[1]);
      sineCosine<bf16>(narrow.x, sine[0], cosine[0]), sineCosine<bf16>(narrow.y, sine[1], cosine[1]);
      auto rotated = [&](uint2 pairs) {
        float4 x = fourOf(pairs);
        return make_uint2(packed(x.x * cosine[0] - x.y * sine[0], x.x * sine[0] + x.y * cosine[0]),
                          packed(x.z * cosine[1] - x.w * sine[1], x.z * sine[1] + x.w * cosine[1]));
      };
      uint2 cPairs = rotated(cs[j]), bPairs = rotated(bs[j]);
      exponent = (float)((before + within + decays[t * heads + lane / place.lanes]) * log2e - firstExponent);
      float cFactor = exp2Of(exponent) * weight, bFactor = exp2Of(across - exponent);
      float4 x = fourOf(cPairs), y = fourOf(bPairs);
      float cSum = sumOfLanes(dot(x, x), 1, place.lanes), bSum = sumOfLanes(dot(y, y), 1, place.lanes);
      cMost = fmaxf(cMost, cSum * cFactor * cFactor), bMost = fmaxf(bMost, bSum * bFactor * bFactor);
      if (!place.inside) continue;
      *(float2*)(phi + t * (pitch / 2)) = narrow;
      *(uint2*)(cRotated + t * pitch) = cPairs, *(uint2*)(bRotated + t * pitch) = bPairs;
      storeFour(bHat + t * pitch, y.x * bFactor, y.y * bFactor, y.z * bFactor, y.w * bFactor);
      if (place.own != 0) continue;
      decay[t] = exponent, cSquares[t * n.heads] = cSum, bSquares[t * n.heads] = bSum;
    }
  }
  if (__shfl_sync(0xffffffffu, ended, 0) == place.blocks - 1) ofLine.forget(place);
  if (!place.inside) return;
  // Rows of a span that lie behind the sequence.
  if (place.block == place.blocks - 1)
    for (int t = count + place.own; t < (ofSpan + 1) * span - place.first; t += place.lanes) decay[t] = exponent;
  if (place.own != 0) return;
  // As numbers without sign, floats that are not negative are ordered as they are.
  atomicMax((uint32*)&cNorms[norm], __float_as_uint(sqrtf(cMost)));
  atomicMax((uint32*)&bNorms[norm], __float_as_uint(sqrtf(bMost)));
  if (place.block == ofSpan * each) firsts[norm] = firstExponent, lasts[norm] = lastExponent;
}

// ---------------------------------------------------------------------------------------------------------------------
// Gradients by c in sums of the pass that gives all gradients together.
struct SumsOfQueries {
  const float* sums;
  __device__ int columnOf(int part) const { return part / 4 * 16 + part % 2 * 8 + part % 4 / 2 * 4; }
  __device__ float4 load(const StateSizes& n, int batch, int position, int head, int part) const {
    int64 padded = (n.length + 63) / 64 * 64;
    int within = position % 16;
    const float* rows = sums + (((int64)batch * n.heads + head) * padded + position - within) * (n.headWidth + n.width) + 16 * n.headWidth;
    return *(const float4*)(rows + within * n.width + sumPart(n.width, within, part) * 4);
  }
  // Lanes in twos swap one of their two pairs of columns for four columns in a row.
  __device__ float4 finish(const StateSizes& n, const float4& x, int part) const {
    bool odd = part % 2;
    float a = __shfl_xor_sync(0xffffffffu, odd ? x.x : x.z, 1) * n.scale, b = __shfl_xor_sync(0xffffffffu, odd ? x.y : x.w, 1) * n.scale;
    return odd ? make_float4(a, b, x.z * n.scale, x.w * n.scale) : make_float4(x.x * n.scale, x.y * n.scale, a, b);
  }
  __device__ float2 dots(int64, int, float4 c, float4 dc, float4 b, float4 db) const { return make_float2(dot(c, dc), dot(b, db)); }
};
STATE_GRADIENTS(stateGradientsOfSums, const float* sums, SumsOfQueries{sums})
