// The attention of attention.cu for Hopper: tiles come by the copy engine, products run on warpgroups of four warps, and
// one warp that only fetches runs ahead of those that compute. Blocks stay and take one piece of work after another.
//
//   score_ij = scale q_i.k_j + lambda_h exp(g_i - g_j) c_i.b_j                    for j <= i
//
// Positions are cut into spans, and exponents are of 2. G is g log2(e) summed from the start of the sequence on; `firsts`
// and `lasts` of a span are G at its start and end, rounded to integers. For i in span I and j in span J,
//   exp(g_i - g_j) = 2^decay_i * 2^(firsts_I - lasts_J) * 2^(lasts_J - G_j),   decay_i = G_i - firsts_I.
// bHat is b times the last factor, cHat is c times the first (and lambda / scale). The factor between them is a power of 2,
// so that scaling by it loses nothing, and forward and backward, by queries and by keys, all see the same scores. Where
// hats are made in memory, `lasts` are rounded down to multiples of 16: in the forward pass, tiles in a row then have the same
// factor, and cHat times it stays in shared memory. For J < I no factor is above 2^16. In a span's product with itself the one
// between is the inverse of the span's own decay; where that could leave the range of numbers (`steep`), the product is taken
// without decay, and each element gets its own. Farther than `reach` the term is below `skip` in every score and left out.
//
// The backward pass by keys needs scores and their gradients, the one by queries needs them again. Together, by keys, each
// is computed once, and gradients by queries are added up in memory in the order in which blocks come to them.
// Dao et al. 2024, arXiv:2407.08608 (asynchrony on Hopper); arXiv:2606.02332 (the score).
#include "attention-hopper-backward.cuh"
#include "attention-hopper-forward.cuh"

// ---------------------------------------------------------------------------------------------------------------------
// From sums of the pass that gives all gradients together: those of q, turned by the tables where there are any, and, by
// blocks of the second row of the grid, those of c, and c . dc. One thread for each four elements.
extern "C" __global__ void attentionQueryGradients(const float* sums, const bf16* c, const float* cosines, const float* sines, bf16* dq,
                                                   float* dc, float* dot, const __grid_constant__ AttentionSizes sizes, int width,
                                                   int stateWidth, int pitch) {
  int64 T = sizes.length, padded = (T + 63) / 64 * 64, rows = sizes.batches * T * sizes.heads, stride = (int64)gridDim.x * blockDim.x;
  // A power of 2; division of 64 bits would take longer than the memory.
  int all = width + stateWidth, parts = (blockIdx.y == 0 ? width : stateWidth) / 4, digits = __ffs(parts) - 1;
  for (int64 index = (int64)blockIdx.x * blockDim.x + threadIdx.x; index < rows * parts; index += stride) {
    uint32 line = (uint32)(index >> digits), token = line / sizes.heads, head = line % sizes.heads;
    int part = (int)index & (parts - 1);
    int64 row = line, position = token % sizes.length, batch = token / sizes.length;
    int own = blockIdx.y == 0 ? width : stateWidth, within = position % 16;
    const float* rows16 = sums + ((batch * sizes.heads + head) * padded + position - within) * all + (blockIdx.y == 0 ? 0 : 16 * width);
    float4 x = *(const float4*)(rows16 + within * own + sumPart(own, within, part) * 4);
    // Lanes in twos swap one of their two pairs of columns for four columns in a row.
    bool odd = part % 2;
    float a = __shfl_xor_sync(0xffffffffu, odd ? x.x : x.z, 1), b = __shfl_xor_sync(0xffffffffu, odd ? x.y : x.w, 1);
    x = odd ? make_float4(a, b, x.z, x.w) : make_float4(x.x, x.y, a, b);
    x = make_float4(x.x * sizes.scale, x.y * sizes.scale, x.z * sizes.scale, x.w * sizes.scale);
    int column = part / 4 * 16 + odd * 8 + part % 4 / 2 * 4;
    if (blockIdx.y == 0) {
      if (cosines) {
        int64 place = (position * width + column) / 2;
        float2 cosine = *(const float2*)(cosines + place), sine = *(const float2*)(sines + place);
        x = make_float4(x.x * cosine.x - x.y * sine.x, x.x * sine.x + x.y * cosine.x, x.z * cosine.y - x.w * sine.y, x.z * sine.y + x.w * cosine.y);
      }
      *(uint2*)(dq + (batch * T + position) * pitch + head * width + column) = make_uint2(packed(x.x, x.y), packed(x.z, x.w));
    } else {
      *(float4*)(dc + row * stateWidth + column) = x;
      uint2 read = *(const uint2*)(c + row * stateWidth + column);
      float2 low = __bfloat1622float2(*(__nv_bfloat162*)&read.x), high = __bfloat1622float2(*(__nv_bfloat162*)&read.y);
      float sum = x.x * low.x + x.y * low.y + x.z * high.x + x.w * high.y;
      for (int apart = 1; apart < parts; apart *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
      if (part == 0) dot[row] = sum;
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
#define FORWARD(D, S, WARPGROUPS, N, STAGES)                                                                           \
  extern "C" __global__ void __launch_bounds__(128 * (WARPGROUPS + 1), 1)                                              \
      attentionForwardHopper_##D##_##S##_##WARPGROUPS##_##N##_##STAGES(                                                \
          const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v, \
          const __grid_constant__ TensorMap c, const __grid_constant__ TensorMap b,                                    \
          const __grid_constant__ TensorMap bHat, const float* lambda, const float* decay, const int* firsts,          \
          const int* lasts, const float* cNorms, const float* bNorms, uint32* counter, bf16* out, float* logSumExp,    \
          const __grid_constant__ AttentionSizes sizes) {                                                              \
    attentionForward<D, S, WARPGROUPS, N, STAGES>(q, k, v, c, b, bHat, lambda,                                         \
                                                  Spans{decay, firsts, lasts, cNorms, bNorms}, counter, out,           \
                                                  logSumExp, sizes);                                                   \
  }
#define BACKWARD(NAME, PASS, THREADS, D, S, N, STAGES)                                                                 \
  extern "C" __global__ void __launch_bounds__(THREADS, 1) attentionBackward##NAME##Hopper_##D##_##S##_##N##_##STAGES( \
      const __grid_constant__ TensorMap first, const __grid_constant__ TensorMap second,                               \
      const __grid_constant__ TensorMap narrow, const __grid_constant__ TensorMap otherFirst,                          \
      const __grid_constant__ TensorMap otherSecond, const __grid_constant__ TensorMap otherNarrow,                    \
      const __grid_constant__ TensorMap otherHat, const float* lambda,                                                 \
      const float* decay, const int* firsts, const int* lasts, const int* reach, int* counter, const float* lines,     \
      bf16* dFirst, bf16* dSecond, float* dNarrow, float* dot, float* sums, const float* cosines, const float* sines,  \
      const __grid_constant__ AttentionSizes sizes, int firstPitch, int secondPitch) {                                 \
    attentionBackward<D, S, PASS, N, STAGES>(first, second, narrow, otherFirst, otherSecond, otherNarrow, otherHat,    \
                                             lambda, Spans{decay, firsts, lasts, nullptr, nullptr, reach}, counter,    \
                                             lines, dFirst,                                                            \
                                             dSecond, dNarrow, dot, sums, cosines, sines, sizes, firstPitch,           \
                                             secondPitch);                                                             \
  }
#define QUERIES(D, S, N, STAGES) BACKWARD(Queries, ByQueries, 384, D, S, N, STAGES)
#define KEYS(D, S, N, STAGES) BACKWARD(Keys, ByKeys, 384, D, S, N, STAGES)
#define TOGETHER(D, S, N, STAGES) BACKWARD(Together, Together, 512, D, S, N, STAGES)

// As in src/lowerings/attention-hopper.ts.
FORWARD(64, 0, 3, 128, 3)
FORWARD(64, 16, 3, 128, 3)
FORWARD(64, 32, 3, 128, 3)
FORWARD(64, 64, 2, 128, 3)
FORWARD(64, 128, 2, 128, 2)
FORWARD(128, 0, 2, 128, 2)
FORWARD(128, 16, 2, 128, 2)
FORWARD(128, 32, 2, 128, 2)
FORWARD(128, 64, 2, 128, 2)
FORWARD(128, 128, 2, 64, 2)
QUERIES(64, 0, 128, 3)
QUERIES(64, 16, 64, 4)
QUERIES(64, 32, 64, 4)
QUERIES(64, 64, 64, 4)
QUERIES(64, 128, 64, 3)
QUERIES(128, 0, 64, 3)
QUERIES(128, 16, 64, 3)
QUERIES(128, 32, 64, 2)
QUERIES(128, 64, 64, 2)
QUERIES(128, 128, 64, 2)
KEYS(64, 0, 64, 4)
KEYS(64, 16, 64, 4)
KEYS(64, 32, 64, 4)
KEYS(64, 64, 32, 4)
KEYS(64, 128, 32, 4)
KEYS(128, 0, 32, 4)
KEYS(128, 16, 32, 4)
KEYS(128, 32, 32, 4)
KEYS(128, 64, 32, 4)
KEYS(128, 128, 16, 4)
TOGETHER(64, 0, 64, 5)
TOGETHER(64, 16, 64, 4)
TOGETHER(64, 32, 64, 3)
