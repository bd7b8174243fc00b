// What SISA needs of each token, and its gradients: angles and decays summed over time, and vectors rotated by the angle so far.
//
// Time is cut into blocks of 64 positions. A thread takes one line, a pair of elements of one head, through one block; sums
// of whole blocks come from a kernel before it (forward: angles modulo a turn) or are added by one after it (backward). Every
// other kernel goes through the positions from the last back: what was read or written last may still be in the second cache.
#include "states.cuh"

const int THREADS = 64;  // of a block of threads; `threads` in src/lowerings/ssm-prepare.ts

struct PrepareSizes {
  int batches, length, heads, lines;
  // Elements from one position to the next.
  int cPitch, bPitch, phasePitch;
};

// A block of positions, and which of its lines a thread takes.
struct Place {
  int batch, block, line, count;
  int64 row;
  // `index` counts parts of lines of one block of positions after another.
  __device__ Place(const PrepareSizes& n, int index) {
    int blocks = (n.length + BLOCK - 1) / BLOCK, parts = (n.lines + THREADS - 1) / THREADS, own = index / parts;
    batch = own / blocks, block = own % blocks, line = index % parts * THREADS + threadIdx.x;
    count = min(BLOCK, n.length - block * BLOCK), row = (int64)batch * n.length + block * BLOCK;
  }
  // Where the sum of a block is, [batches, blocks, lines].
  __device__ int64 total(const PrepareSizes& n, int of) const {
    return ((int64)batch * ((n.length + BLOCK - 1) / BLOCK) + of) * n.lines + line;
  }
};

// Two neighbouring elements as they lie in memory.
template <class T> struct PairOf;
template <> struct PairOf<float> {
  typedef float2 Type;
};
template <> struct PairOf<__nv_bfloat16> {
  typedef __nv_bfloat162 Type;
};
template <class T> using Pair = typename PairOf<T>::Type;
__device__ inline float2 wide(float2 pair) { return pair; }
__device__ inline float2 wide(__nv_bfloat162 pair) { return __bfloat1622float2(pair); }
__device__ inline void storePair(float* p, float x, float y) { *(float2*)p = make_float2(x, y); }
__device__ inline void storePair(__nv_bfloat16* p, float x, float y) { *(__nv_bfloat162*)p = __floats2bfloat162_rn(x, y); }

// Sums of the angles of each block, modulo a turn.
extern "C" __global__ void __launch_bounds__(THREADS) phaseTotals(const float* phase, double* totals, const __grid_constant__ PrepareSizes n) {
  Place place(n, gridDim.x - 1 - blockIdx.x);
  if (place.line >= n.lines) return;
  const float* from = phase + place.row * n.phasePitch + place.line;
  double sum = 0;
#pragma unroll 16
  for (int t = 0; t < place.count; t++, from += n.phasePitch) sum += *from;
  totals[place.total(n, place.block)] = wrapped(sum);
}

// Sums within blocks of values of each head, from the first position on or from the last back: what blocks of threads beyond
// those for lines do.
__device__ inline void sumHeads(const float* x, float* sums, const PrepareSizes& n, int index, bool fromLast) {
  int blocks = (n.length + BLOCK - 1) / BLOCK, line = index * THREADS + threadIdx.x, own = line / n.heads;
  if (own >= n.batches * blocks) return;
  int first = own % blocks * BLOCK, count = min(BLOCK, n.length - first);
  int64 start = ((int64)(own / blocks) * n.length + first) * n.heads + line % n.heads;
  double sum = 0;
#pragma unroll 8
  for (int i = 0; i < count; i++) {
    int64 at = start + (fromLast ? count - 1 - i : i) * n.heads;
    sum += x[at];
    sums[at] = (float)sum;
  }
}

__device__ inline int lineBlocks(const PrepareSizes& n) {
  return (n.length + BLOCK - 1) / BLOCK * n.batches * ((n.lines + THREADS - 1) / THREADS);
}

template <class T>
__device__ void prepare(const T* c, const T* b, const float* logDecay, const float* phase, const double* totals,
                        T* cRotated, T* bRotated, float* g, float* phi, const PrepareSizes& n) {
  const int STEPS = 8;  // positions whose loads are in flight at once
  int beyond = blockIdx.x - lineBlocks(n);
  if (beyond >= 0) return sumHeads(logDecay, g, n, beyond, false);
  Place place(n, blockIdx.x);
  if (place.line >= n.lines) return;
  float steps[STEPS];
  Pair<T> cs[STEPS], bs[STEPS];
  auto fetch = [&](int start) {
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int64 at = place.row + min(start + j, place.count - 1);
      steps[j] = phase[at * n.phasePitch + place.line];
      cs[j] = *(const Pair<T>*)(c + at * n.cPitch + 2 * place.line);
      bs[j] = *(const Pair<T>*)(b + at * n.bPitch + 2 * place.line);
    }
  };
  fetch(0);
  double angle = 0;
#pragma unroll 8
  for (int i = 0; i < place.block; i++) angle += totals[place.total(n, i)];
  angle = wrapped(angle);
  for (int start = 0; start < place.count; start += STEPS) {
    if (start > 0) fetch(start);
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      if (start + j >= place.count) break;
      int64 at = (place.row + start + j) * n.lines + place.line;
      angle = wrapped(angle + steps[j]);
      float narrow = (float)angle, sine, cosine;
      sineCosine<T>(narrow, sine, cosine);
      phi[at] = narrow;
      float2 x = wide(cs[j]), y = wide(bs[j]);
      storePair(cRotated + 2 * at, x.x * cosine - x.y * sine, x.x * sine + x.y * cosine);
      storePair(bRotated + 2 * at, y.x * cosine - y.y * sine, y.x * sine + y.y * cosine);
    }
  }
}

// Gradients of c and b, which are rotated back; of log decay; and, in `within`, of the phase as far as its own block goes,
// with the sum of each block in totals. The gradient by an angle is the cross product of a rotated pair with its gradient.
template <class T, class G>
__device__ void prepareBackward(const T* cRotated, const T* bRotated, const float* phi, const G* cGradient,
                                const G* bGradient, const float* gGradient, const float* phiGradient, T* dc, T* db,
                                float* dLogDecay, float* within, double* totals, const PrepareSizes& n) {
  const int STEPS = 4;  // positions whose loads are in flight at once
  int beyond = blockIdx.x - lineBlocks(n);
  if (beyond >= 0) return sumHeads(gGradient, dLogDecay, n, beyond, true);
  Place place(n, -1 - beyond);
  if (place.line >= n.lines) return;
  double sum = 0;
  for (int start = 0; start < place.count; start += STEPS) {
    float angles[STEPS];
    Pair<T> cs[STEPS], bs[STEPS];
    Pair<G> dcs[STEPS], dbs[STEPS];
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int64 at = (place.row + max(place.count - 1 - start - j, 0)) * n.lines + place.line;
      angles[j] = phi[at];
      cs[j] = ((const Pair<T>*)cRotated)[at];
      bs[j] = ((const Pair<T>*)bRotated)[at];
      dcs[j] = ((const Pair<G>*)cGradient)[at];
      dbs[j] = ((const Pair<G>*)bGradient)[at];
    }
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      if (start + j >= place.count) break;
      int64 row = place.row + place.count - 1 - start - j, at = row * n.lines + place.line;
      float2 x = wide(cs[j]), y = wide(bs[j]), dx = wide(dcs[j]), dy = wide(dbs[j]);
      sum += (x.x * dx.y - x.y * dx.x) + (y.x * dy.y - y.y * dy.x);
      if (phiGradient) sum += phiGradient[at];
      within[at] = (float)sum;
      float sine, cosine;
      sineCosine<T>(angles[j], sine, cosine);
      storePair(dc + row * n.cPitch + 2 * place.line, dx.x * cosine + dx.y * sine, dx.y * cosine - dx.x * sine);
      storePair(db + row * n.bPitch + 2 * place.line, dy.x * cosine + dy.y * sine, dy.y * cosine - dy.x * sine);
    }
  }
  totals[place.total(n, place.block)] = sum;
}

// dPhase gets, of each position, the sum inside its block and what comes after the block.
template <class T> __device__ void addLater(const float* within, const double* totals, T* dPhase, const PrepareSizes& n) {
  const int STEPS = 16;  // positions whose loads are in flight at once
  Place place(n, blockIdx.x);
  if (place.line >= n.lines) return;
  float sums[STEPS];
  auto fetch = [&](int start) {
#pragma unroll
    for (int j = 0; j < STEPS; j++) sums[j] = within[(place.row + min(start + j, place.count - 1)) * n.lines + place.line];
  };
  fetch(0);
  int blocks = (n.length + BLOCK - 1) / BLOCK;
  double later = 0;
#pragma unroll 8
  for (int i = place.block + 1; i < blocks; i++) later += totals[place.total(n, i)];
  for (int start = 0; start < place.count; start += STEPS) {
    if (start > 0) fetch(start);
#pragma unroll
    for (int j = 0; j < STEPS; j++)
      if (start + j < place.count) dPhase[(place.row + start + j) * n.phasePitch + place.line] = (T)(float)(sums[j] + later);
  }
}
extern "C" __global__ void __launch_bounds__(THREADS) phaseLater_float32(const float* within, const double* totals, float* dPhase,
                                              const __grid_constant__ PrepareSizes n) {
  addLater<float>(within, totals, dPhase, n);
}
extern "C" __global__ void __launch_bounds__(THREADS) phaseLater_bfloat16(const float* within, const double* totals, __nv_bfloat16* dPhase,
                                               const __grid_constant__ PrepareSizes n) {
  addLater<__nv_bfloat16>(within, totals, dPhase, n);
}

// ---------------------------------------------------------------------------------------------------------------------
// log alpha = -softplus(x + bias) of each position and head; rows of x are `pitch` apart.
extern "C" __global__ void logDecay(const float* x, const float* bias, float* out, uint32 count, int heads, int64 pitch) {
  GRID_STRIDE(index, count) {
    // Division of 64 bits would take longer than the memory.
    uint32 row = (uint32)index / heads, head = (uint32)index - row * heads;
    float strength = x[row * pitch + head] + bias[head];
    out[index] = -(fmaxf(strength, 0.f) + log1pf(expf(-fabsf(strength))));
  }
}

#define DENSE const float *cGradient, const float *read, const float *write
STATE_GRADIENTS(stateGradients, DENSE, (DenseGradients{cGradient, read, write}))

#define PREPARE(suffix, T)                                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS, 13)                                                             \
      ssmPrepare_##suffix(const T* c, const T* b, const float* logDecay, const float* phase,                            \
                          const double* totals, T* cRotated, T* bRotated, float* g, float* phi,                         \
                          const __grid_constant__ PrepareSizes n) {                                                     \
    prepare<T>(c, b, logDecay, phase, totals, cRotated, bRotated, g, phi, n);                                           \
  }
PREPARE(float32, float)
PREPARE(bfloat16, __nv_bfloat16)

#define PREPARE_BACKWARD(suffix, T, G)                                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS, 13) ssmPrepareBackward_##suffix(                                \
      const T* cRotated, const T* bRotated, const float* phi, const G* cGradient, const G* bGradient,                   \
      const float* gGradient, const float* phiGradient, T* dc, T* db, float* dLogDecay, float* within, double* totals,  \
      const __grid_constant__ PrepareSizes n) {                                                                         \
    prepareBackward<T, G>(cRotated, bRotated, phi, cGradient, bGradient, gGradient, phiGradient, dc, db, dLogDecay,     \
                          within, totals, n);                                                                           \
  }
PREPARE_BACKWARD(float32_float32, float, float)
PREPARE_BACKWARD(bfloat16_bfloat16, __nv_bfloat16, __nv_bfloat16)
PREPARE_BACKWARD(bfloat16_float32, __nv_bfloat16, float)
