// What attention on Hopper needs of SISA's states before it begins; see attention-hopper.cu for spans and their exponents.
#include "attention-hopper-parts.cuh"

const int LONGEST = 192;  // positions of a span, of which a thread takes one

// Once for each span of each head: decay, firsts, lasts, bHat, and where wanted cHat; the largest norm of a row of each.
// g begins anew at every 64th position.
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
  auto gOf = [&](int position) { return (double)sequence[position * sizes.heads]; };
  int at = min((int)threadIdx.x, count - 1);
  double before = 0, within = gOf(at), total = count % 64 != 0 ? gOf(count - 1) : 0.0;
#pragma unroll
  for (int last = 63; last < LONGEST; last += 64) {
    if (last >= count) continue;
    double sum = gOf(last);
    total += sum;
    if (last < at / 64 * 64) within += sum;
  }
  for (int block = threadIdx.x; block < first / 64; block += 256) before += gOf(block * 64 + 63 - first);
  before = blockSum(before, sums);
  const double log2e = 1.4426950408889634;
  auto rounded = [](double x) { return (int)rint(fmax(x, -1e9)); };
  int firstExponent = rounded(before * log2e), lastExponent = rounded((before + total) * log2e);
  if (threadIdx.x < span) {
    float exponent = (float)((before + within) * log2e - firstExponent);
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
        *(uint4*)(bHat + start + at * pitch) = y;
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

// How far each span reaches, as reachOf says. One warp for each span.
extern "C" __global__ void decayReach(const int* firsts, const int* lasts, const float* cNorms, const float* bNorms, int* reach,
                                      const __grid_constant__ AttentionSizes sizes, int spans, int ahead) {
  int own = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (own >= spans) return;
  int found = reachOf({nullptr, firsts, lasts, cNorms, bNorms}, sizes, blockIdx.y, spans, own, ahead);
  if (threadIdx.x % 32 == 0) reach[blockIdx.y * spans + own] = found;
}
