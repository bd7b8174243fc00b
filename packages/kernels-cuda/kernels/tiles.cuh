// Tiles of 64 rows in shared memory, and their products by the matrix units that GPUs have from sm_80 on: bfloat16 with sums in
// float32. A block has four warps, each for 16 rows of its own side.
#pragma once
#include "common.cuh"

typedef __nv_bfloat16 bf16;
const int TILE = 64;
const int THREADS = 128;
const float LOG2E = 1.4426950408889634f;

__device__ inline uint32 sharedAddress(const void* p) { return (uint32)__cvta_generic_to_shared(p); }
__device__ inline void copyAsync(void* target, const void* source, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(target)), "l"(source), "r"(inside ? 16 : 0));
}
__device__ inline void commitCopies() { asm volatile("cp.async.commit_group;"); }
template <int N> __device__ inline void waitCopies() { asm volatile("cp.async.wait_group %0;" ::"n"(N)); }

__device__ inline void loadMatrices(uint32 (&r)[4], const bf16* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(sharedAddress(p)));
}
__device__ inline void loadMatricesTransposed(uint32 (&r)[4], const bf16* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(sharedAddress(p)));
}
// d += a b, of 16 x 16 by 16 x 8.
__device__ inline void multiply(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline uint32 packed(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *(uint32*)&pair;
}

// A tile of 64 rows in shared memory; 16 bytes of padding a row keep loads of matrices free of bank conflicts.
template <int W> struct Tile {
  static const int STRIDE = W + 8;
  static const int ELEMENTS = TILE * STRIDE;
  bf16* data;

  // Rows from `first` on of [rows, stride]; what is beyond `rows` becomes zero.
  __device__ void load(const bf16* source, int64 stride, int first, int rows) const {
    for (int i = threadIdx.x; i < TILE * (W / 8); i += THREADS) {
      int row = i / (W / 8), column = i % (W / 8) * 8;
      bool inside = first + row < rows;
      copyAsync(data + row * STRIDE + column, source + (inside ? (first + row) * stride + column : 0), inside);
    }
  }
  // Rows row..row+15 and columns k..k+15 as the left operand.
  __device__ void left(uint32 (&a)[4], int row, int k) const {
    int lane = threadIdx.x % 32;
    loadMatrices(a, data + (row + lane % 16) * STRIDE + k + lane / 16 * 8);
  }
  // Rows n..n+15 as columns of the right operand: two of its fragments, for sums over columns k..k+15 of the tile.
  __device__ void rightByRow(uint32 (&b)[4], int n, int k) const {
    int lane = threadIdx.x % 32;
    loadMatrices(b, data + (n + lane / 16 * 8 + lane % 8) * STRIDE + k + lane / 8 % 2 * 8);
  }
  // Columns n..n+15 of the right operand, for sums over rows k..k+15 of the tile.
  __device__ void rightByColumn(uint32 (&b)[4], int k, int n) const {
    int lane = threadIdx.x % 32;
    loadMatricesTransposed(b, data + (k + lane / 8 % 2 * 8 + lane % 8) * STRIDE + n + lane / 16 * 8);
  }
};

// sums[n] += rows of `a` (16 from `row`), a tile or another left operand, times rows of `b` (from `from`), both W wide.
template <int W, int N, class Left> __device__ inline void productByRow(float (&sums)[N][4], const Left& a, int row, const Tile<W>& b, int from) {
#pragma unroll
  for (int k = 0; k < W; k += 16) {
    uint32 left[4];
    a.left(left, row, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32 right[4];
      b.rightByRow(right, from + n * 8, k);
      multiply(sums[n], left, right[0], right[1]);
      multiply(sums[n + 1], left, right[2], right[3]);
    }
  }
}

// sums[n] += x, a 16 x 8N matrix in the layout of results, times rows of `b` (from `from`), W wide.
template <int W, int N> __device__ inline void productByColumn(float (&sums)[W / 8][4], const float (&x)[N][4], const Tile<W>& b, int from) {
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    uint32 left[4] = {packed(x[k][0], x[k][1]), packed(x[k][2], x[k][3]), packed(x[k + 1][0], x[k + 1][1]),
                      packed(x[k + 1][2], x[k + 1][3])};
#pragma unroll
    for (int n = 0; n < W / 8; n += 2) {
      uint32 right[4];
      b.rightByColumn(right, from + k * 8, n * 8);
      multiply(sums[n], left, right[0], right[1]);
      multiply(sums[n + 1], left, right[2], right[3]);
    }
  }
}

template <int N> __device__ inline void clear(float (&x)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) x[n][i] = 0.f;
}

template <int N> __device__ inline void copy(float (&x)[N][4], const float (&from)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) x[n][i] = from[n][i];
}
template <int N> __device__ inline void scale(float (&x)[N][4], float factor) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) x[n][i] *= factor;
}

// Place of element i of fragment n in a result: row and column.
__device__ inline int rowOf(int i) { return threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ inline int columnOf(int n, int i) { return n * 8 + threadIdx.x % 4 * 2 + i % 2; }

__device__ inline float quadSum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float quadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
