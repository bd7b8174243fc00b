// Products x W^T of up to eight rows of x, which are bound by reading W: with the norm before them, and what comes after.
#include "overlap.cuh"

const int mostRows = 8;
const int warps = 8;

struct FewRows {
  const void* x;           // rows of k elements
  const float* norm;       // weight of an rmsNorm of x; none where x is taken as it is
  const int* row;          // [rows], which of `length` rows of x each takes, the first for less than 0 where `isFromZero`; its own where left out
  const void* weights[2];  // [n, k]
  const void* addend;      // [rows, n[0]], of the dtype of the first result
  void* results[2];        // [rows, n]
  Fault* fault;
  int faultNode;
  int n[2], isWide[2], weightPitch[2];  // results are float where wide, else as x
  int rows, k, xPitch, length, depth, isGate, isFromZero;
  float epsilon;
};

// A warp takes UNIT rows of W at a time, and copies `depth` times as many ahead, the first before x is there. Each result
// is summed in one order, however many rows there are. Of a gate, the first results are silu(x W0^T) * (x W1^T).
template <class T, int ROWS, int UNIT> __device__ void fewRows(const FewRows& p) {
  extern __shared__ uint4 shared[];
  const int size = 16 / sizeof(T);
  const int type = sizeof(T) == 4 ? Float32 : Bfloat16;
  const int chunks = p.k / size, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T* x = (T*)shared;                                                         // [rows, k]
  uint4* ring = shared + p.rows * chunks + warp * p.depth * UNIT * chunks;  // [depth, UNIT, k]
  float* norm = (float*)(shared + p.rows * chunks + warps * p.depth * UNIT * chunks);
  const int all = p.isGate ? p.n[0] : p.n[0] + p.n[1];
  const int units = p.isGate ? all : (all + UNIT - 1) / UNIT;
  const int first = warp * gridDim.x + blockIdx.x, step = warps * gridDim.x;

  auto placeOf = [&](int unit, int j, int& part) {
    int index = p.isGate ? unit : unit * UNIT + j;
    part = p.isGate ? j : index >= p.n[0];
    return p.isGate ? unit : index - part * p.n[0];
  };
  auto fetch = [&](int unit, int slot) {
    if (unit < units) {
#pragma unroll
      for (int j = 0; j < UNIT; j++) {
        int part, index = placeOf(unit, j, part);
        if (!p.isGate && unit * UNIT + j >= all) break;
        const T* from = (const T*)(part ? p.weights[1] : p.weights[0]) + (int64)index * (part ? p.weightPitch[1] : p.weightPitch[0]);
        uint4* to = ring + (slot * UNIT + j) * chunks;
        for (int i = lane; i < chunks; i += 32) copyAsync(to + i, from + i * size);
      }
    }
    endOfCopies();
  };
  letNextBegin();
  for (int slot = 0; slot < p.depth; slot++) fetch(first + slot * step, slot);
  if (p.norm) for (int i = threadIdx.x; i < p.k; i += blockDim.x) norm[i] = p.norm[i];
  __syncthreads();
  waitForOthers();

  auto rowOf = [&](int row) {
    if (!p.row) return row;
    int own = __ldcg(p.row + row);
    if (p.isFromZero) own = max(own, 0);
    if (own < 0 || own >= p.length) {
      if (lane == 0 && blockIdx.x == 0) report(p.fault, p.faultNode, own);
      own = 0;
    }
    return row * p.length + own;
  };
  for (int row = warp; row < p.rows; row += warps) {
    const T* from = (const T*)p.x + (int64)rowOf(row) * p.xPitch;
    T* to = x + row * p.k;
    float squares = 0;
#pragma unroll 4
    for (int i = lane; i < chunks; i += 32) {
      Raw<T, size> part;
      part.load(from + i * size);
      ((uint4*)to)[i] = *(uint4*)part.word;
#pragma unroll
      for (int j = 0; j < size; j++) squares += part[j] * part[j];
    }
    if (!p.norm) continue;
    float inverse = 1.f / sqrtf(warpSum(squares) / p.k + p.epsilon);
    for (int i = lane; i < chunks; i += 32) {
      Raw<T, size> part;
      *(uint4*)part.word = ((uint4*)to)[i];
      float values[size];
#pragma unroll
      for (int j = 0; j < size; j++) values[j] = part[j] * inverse * norm[i * size + j];
      part.set(values);
      ((uint4*)to)[i] = *(uint4*)part.word;
    }
  }
  __syncthreads();

  for (int unit = first, slot = 0; unit < units; unit += step, slot = slot + 1 == p.depth ? 0 : slot + 1) {
    waitForCopies(p.depth - 1);
    float sums[UNIT][ROWS] = {};
    const uint4* own = ring + slot * UNIT * chunks;
#pragma unroll 2
    for (int i = lane; i < chunks; i += 32) {
      float w[UNIT][size];
#pragma unroll
      for (int j = 0; j < UNIT; j++) {
        Raw<T, size> part;
        *(uint4*)part.word = own[j * chunks + i];
#pragma unroll
        for (int e = 0; e < size; e++) w[j][e] = part[e];
      }
#pragma unroll
      for (int row = 0; row < ROWS; row++) {
        if (row >= p.rows) break;
        Raw<T, size> part;
        *(uint4*)part.word = ((uint4*)x)[row * chunks + i];
#pragma unroll
        for (int j = 0; j < UNIT; j++)
#pragma unroll
          for (int e = 0; e < size; e++) sums[j][row] += part[e] * w[j][e];
      }
    }
    fetch(unit + p.depth * step, slot);
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
      if (row >= p.rows) break;
#pragma unroll
      for (int j = 0; j < UNIT; j++) sums[j][row] = warpSum(sums[j][row]);
      if (p.isGate) {
        if constexpr (UNIT == 2) {
          float gate = rounded<T>(sums[0][row]), up = rounded<T>(sums[1][row]);
          if (lane == row) store(p.results[0], type, (int64)row * p.n[0] + unit, gate / (1 + expf(-gate)) * up);
        }
        continue;
      }
#pragma unroll
      for (int j = 0; j < UNIT; j++) {
        int part, index = placeOf(unit, j, part);
        if (lane != row || unit * UNIT + j >= all) continue;
        int to = (part ? p.isWide[1] : p.isWide[0]) ? Float32 : type;
        int64 at = (int64)row * (part ? p.n[1] : p.n[0]) + index;
        float sum = p.addend && !part ? sums[j][row] + load<float>(p.addend, to, at) : sums[j][row];
        store(part ? p.results[1] : p.results[0], to, at, sum);
      }
    }
  }
  waitForCopies(0);
}
#define FEW_ROWS(suffix, T, rows, unit) \
  extern "C" __global__ void __launch_bounds__(256) fewRows_##suffix##_##rows##_##unit(const __grid_constant__ FewRows p) { fewRows<T, rows, unit>(p); }
FEW_ROWS(float32, float, 1, 1)
FEW_ROWS(float32, float, 1, 2)
FEW_ROWS(float32, float, 8, 1)
FEW_ROWS(float32, float, 8, 2)
FEW_ROWS(bfloat16, __nv_bfloat16, 1, 1)
FEW_ROWS(bfloat16, __nv_bfloat16, 1, 2)
FEW_ROWS(bfloat16, __nv_bfloat16, 8, 1)
FEW_ROWS(bfloat16, __nv_bfloat16, 8, 2)
