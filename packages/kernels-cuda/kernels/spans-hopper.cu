// What attention on Hopper needs of SISA's states before it begins, see attention-hopper.cu for spans and their exponents; and
// what follows from its sums of gradients by c.
#include "attention-hopper-parts.cuh"
#include "states.cuh"

const int LONGEST = 192;  // positions of a span, of which a thread takes one

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
extern "C" __global__ void __launch_bounds__(256, 4)
    decaySpans(const bf16* c, const bf16* b, const float* g, const float* lambda, bf16* cHat, bf16* bHat, float* decay,
               int* firsts, int* lasts, float* cNorms, float* bNorms, const __grid_constant__ AttentionSizes sizes, int width,
               int span) {
  const int AT_ONCE = 3;  // rows whose loads are in flight at once
  __shared__ float2 factors[LONGEST];  // of c and b
  __shared__ double sums[32];
  __shared__ float norms[2][8];
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
  int firstExponent = exponents.first, lastExponent = exponents.last;
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

// The same without hats, from squared norms of c and b, [B,T,H]. A thread for each position of a span.
extern "C" __global__ void spanExponents(const float* cSquares, const float* bSquares, const float* g, const float* lambda, float* decay,
                                         int* firsts, int* lasts, float* cNorms, float* bNorms,
                                         const __grid_constant__ AttentionSizes sizes) {
  __shared__ double sums[32];
  __shared__ float norms[32];
  int spans = gridDim.x / sizes.heads, own = blockIdx.x / sizes.heads, head = blockIdx.x % sizes.heads, batch = blockIdx.y;
  int line = batch * sizes.heads + head, span = blockDim.x, first = own * span, count = min(span, sizes.length - first);
  int64 start = ((int64)batch * sizes.length + first) * sizes.heads + head;
  int64 at = start + min((int)threadIdx.x, count - 1) * sizes.heads, place = (int64)line * spans + own;
  float c = cSquares[at], b = bSquares[at];
  Exponents exponents(g + start, sizes.heads, first, count, sums);
  decay[place * span + threadIdx.x] = exponents.own;
  c = blockMax(sqrtf(c) * exp2Of(exponents.own) * (lambda[head] / sizes.scale), norms);
  b = blockMax(sqrtf(b) * exp2Of((float)(exponents.last - exponents.first) - exponents.own), norms);
  if (threadIdx.x != 0) return;
  firsts[place] = exponents.first, lasts[place] = exponents.last, cNorms[place] = c, bNorms[place] = b;
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
// What ssmPrepare and decaySpans make, in two launches, with decays from their projection: log alpha = -softplus(strength + bias).
// Here sums of the angles of each block modulo a turn, [parts,B,blocks,2,32] by lanes, and of log decays within blocks; norms begin
// at 0.
extern "C" __global__ void __launch_bounds__(32) stateTotals(const float* phase, const float* strength, const float* bias, double* totals,
                                                             float* g, float* cNorms, float* bNorms,
                                                             const __grid_constant__ StateSizes n, int span) {
  StatePlace place(n, gridDim.x - 1 - blockIdx.x);
  int lane = threadIdx.x, heads = place.heads, head = place.part * heads + lane % heads, each = span / BLOCK;
  if (place.block % each == 0 && place.own == 0) {
    int norm = (place.batch * n.heads + place.head) * ((place.blocks + each - 1) / each) + place.block / each;
    cNorms[norm] = bNorms[norm] = 0;
  }
  const float* from = phase + place.start * n.phasePitch + (place.head * n.width + place.own * 4) / 2;
  double sums[2] = {};
#pragma unroll 16
  for (int t = 0; t < place.count; t++) {
    float2 x = *(const float2*)(from + t * n.phasePitch);
    sums[0] += x.x, sums[1] += x.y;
  }
  double* own = totals + ((int64)place.line * place.blocks + place.block) * 64 + lane;
  own[0] = wrapped(sums[0]), own[32] = wrapped(sums[1]);
  // Lanes take positions of one head each.
  float shift = head < n.heads ? bias[head] : 0.f;
  double sum = 0;
#pragma unroll 4
  for (int from = 0; from < place.count; from += place.lanes) {
    int t = from + lane / heads;
    bool inside = t < place.count && head < n.heads;
    float x = inside ? strength[(place.start + t) * n.strengthPitch + head] + shift : 0.f;
    double next = inside ? -(fmaxf(x, 0.f) + log1pf(expf(-fabsf(x)))) : 0.f;
    for (int apart = heads; apart < 32; apart *= 2) {
      double before = __shfl_up_sync(0xffffffffu, next, apart);
      if (lane >= apart) next += before;
    }
    if (inside) g[(place.start + t) * n.heads + head] = (float)(sum + next);
    sum += __shfl_sync(0xffffffffu, next, 32 - heads + lane % heads);
  }
}

// And here what is rotated, with squared norms [B,T,H], bHat, exponents of spans, and the largest norm of a row of cHat and bHat.
extern "C" __global__ void __launch_bounds__(32)
    prepareSpans(const bf16* c, const bf16* b, const float* phase, const double* totals, const float* g, const float* lambda, bf16* cRotated,
                 bf16* bRotated, float* phi, bf16* bHat, float* cSquares, float* bSquares, float* decay, int* firsts, int* lasts,
                 float* cNorms, float* bNorms, const __grid_constant__ StateSizes n, int span) {
  const int STEPS = 8;  // positions whose loads are in flight at once
  StatePlace place(n, blockIdx.x);
  int lane = threadIdx.x, head = place.head, count = place.count, column = head * n.width + place.own * 4;
  int64 start = place.start;
  uint2 cs[STEPS], bs[STEPS];
  float2 turns[STEPS];
  float gs[STEPS];
  auto fetch = [&](int from) {
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int64 row = start + min(from + j, count - 1);
      cs[j] = *(const uint2*)(c + row * n.cPitch + column), bs[j] = *(const uint2*)(b + row * n.bPitch + column);
      turns[j] = *(const float2*)(phase + row * n.phasePitch + column / 2);
      gs[j] = g[row * n.heads + head];
    }
  };
  fetch(0);
  const double* ofBlocks = totals + (int64)place.line * place.blocks * 64 + lane;
  double angles[2] = {};
#pragma unroll 8
  for (int i = 0; i < place.block; i++) angles[0] += ofBlocks[i * 64], angles[1] += ofBlocks[i * 64 + 32];
  angles[0] = wrapped(angles[0]), angles[1] = wrapped(angles[1]);
  // G in front of the span, of the block, and behind the span.
  int each = span / BLOCK, own = place.block / each, line = place.batch * n.heads + head, spans = (place.blocks + each - 1) / each;
  const float* sequence = g + (int64)place.batch * n.length * n.heads + head;
  double before = 0, within = 0, total = 0;
#pragma unroll 8
  for (int i = 0; i < min((own + 1) * each, place.blocks); i++) {
    double sum = sequence[(int64)min(i * BLOCK + BLOCK - 1, n.length - 1) * n.heads];
    total += sum;
    if (i < own * each) before += sum;
    else if (i < place.block) within += sum;
  }
  const double log2e = 1.4426950408889634;
  auto rounded = [](double x) { return (int)rint(fmax(x, -1e9)); };
  int firstExponent = rounded(before * log2e), lastExponent = rounded(total * log2e);
  float across = (float)(lastExponent - firstExponent), weight = lambda[head] / n.scale, exponent = 0, cMost = 0, bMost = 0;
  float* ownDecay = decay + ((int64)line * spans + own) * span + place.first - own * span;
  for (int from = 0; from < count; from += STEPS) {
    if (from > 0) fetch(from);
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      if (from + j >= count) break;
      int64 at = (start + from + j) * n.heads * n.width + column;
      float sine[2], cosine[2];
      angles[0] = wrapped(angles[0] + turns[j].x), angles[1] = wrapped(angles[1] + turns[j].y);
      float2 narrow = make_float2((float)angles[0], (float)angles[1]);
      sineCosine<bf16>(narrow.x, sine[0], cosine[0]), sineCosine<bf16>(narrow.y, sine[1], cosine[1]);
      auto rotated = [&](uint2 pairs) {
        float4 x = fourOf(pairs);
        return make_uint2(packed(x.x * cosine[0] - x.y * sine[0], x.x * sine[0] + x.y * cosine[0]),
                          packed(x.z * cosine[1] - x.w * sine[1], x.z * sine[1] + x.w * cosine[1]));
      };
      uint2 cPairs = rotated(cs[j]), bPairs = rotated(bs[j]);
      exponent = (float)((before + within + gs[j]) * log2e - firstExponent);
      float cFactor = exp2Of(exponent) * weight, bFactor = exp2Of(across - exponent);
      float4 x = fourOf(cPairs), y = fourOf(bPairs);
      float cSum = sumOfLanes(dot(x, x), 1, place.lanes), bSum = sumOfLanes(dot(y, y), 1, place.lanes);
      cMost = fmaxf(cMost, cSum * cFactor * cFactor), bMost = fmaxf(bMost, bSum * bFactor * bFactor);
      if (!place.inside) continue;
      *(float2*)(phi + at / 2) = narrow;
      *(uint2*)(cRotated + at) = cPairs, *(uint2*)(bRotated + at) = bPairs;
      *(uint2*)(bHat + at) = make_uint2(packed(y.x * bFactor, y.y * bFactor), packed(y.z * bFactor, y.w * bFactor));
      if (place.own != 0) continue;
      ownDecay[from + j] = exponent;
      cSquares[(start + from + j) * n.heads + head] = cSum, bSquares[(start + from + j) * n.heads + head] = bSum;
    }
  }
  if (!place.inside) return;
  // Rows of a span that lie behind the sequence.
  if (place.block == place.blocks - 1)
    for (int t = count + place.own; t < (own + 1) * span - place.first; t += place.lanes) ownDecay[t] = exponent;
  if (place.own != 0) return;
  // As numbers without sign, floats that are not negative are ordered as they are.
  atomicMax((uint32*)&cNorms[line * spans + own], __float_as_uint(sqrtf(cMost)));
  atomicMax((uint32*)&bNorms[line * spans + own], __float_as_uint(sqrtf(bMost)));
  if (place.block == own * each) firsts[line * spans + own] = firstExponent, lasts[line * spans + own] = lastExponent;
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
