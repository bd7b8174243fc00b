// What SISA needs of each token, and its gradients: angles and decays summed over time, and vectors rotated by the angle so far.
//
// Time is cut into blocks of 64 positions. A thread takes one line, a pair of elements of one head, through one block; sums
// of whole blocks come from a kernel before it (forward: angles modulo a turn) or are added by one after it (backward).
#include "common.cuh"

const int BLOCK = 64;  // decayBlock in @sisa/core
const int STEPS = 8;   // positions whose loads are in flight at once
const double turn = 6.283185307179586476925;

struct PrepareSizes {
  int batches, length, heads, lines;
  // Elements from one position to the next.
  int cPitch, bPitch, phasePitch;
};

__device__ inline double wrapped(double angle) { return angle - turn * floor(angle * (1.0 / turn)); }

__device__ inline float2 loadPair(const float* p) { return *(const float2*)p; }
__device__ inline float2 loadPair(const __nv_bfloat16* p) { return __bfloat1622float2(*(const __nv_bfloat162*)p); }
__device__ inline void storePair(float* p, float x, float y) { *(float2*)p = make_float2(x, y); }
__device__ inline void storePair(__nv_bfloat16* p, float x, float y) { *(__nv_bfloat162*)p = __floats2bfloat162_rn(x, y); }

// Sums of the angles of each block, modulo a turn: [batches, blocks, lines].
extern "C" __global__ void phaseTotals(const float* phase, double* totals, const __grid_constant__ PrepareSizes n) {
  int blocks = (n.length + BLOCK - 1) / BLOCK;
  int line = blockIdx.y * blockDim.x + threadIdx.x;
  if (line >= n.lines) return;
  int batch = blockIdx.x / blocks, block = blockIdx.x % blocks;
  int first = block * BLOCK, end = min(first + BLOCK, n.length);
  const float* from = phase + ((int64)batch * n.length + first) * n.phasePitch + line;
  double sum = 0;
#pragma unroll 8
  for (int t = first; t < end; t++, from += n.phasePitch) sum += *from;
  totals[(int64)blockIdx.x * n.lines + line] = wrapped(sum);
}

// blockIdx.y beyond the lines: sums of log decay within the block, one head a thread.
template <class T>
__device__ void prepare(const T* c, const T* b, const float* logDecay, const float* phase, const double* totals,
                        T* cRotated, T* bRotated, float* g, float* phi, const PrepareSizes& n) {
  int blocks = (n.length + BLOCK - 1) / BLOCK;
  int batch = blockIdx.x / blocks, block = blockIdx.x % blocks;
  int first = block * BLOCK, count = min(BLOCK, n.length - first);
  int64 row = (int64)batch * n.length + first;
  int lineBlocks = (n.lines + blockDim.x - 1) / blockDim.x;
  if (blockIdx.y >= lineBlocks) {
    int head = (blockIdx.y - lineBlocks) * blockDim.x + threadIdx.x;
    if (head >= n.heads) return;
    double sum = 0;
    for (int t = 0; t < count; t++) {
      sum += logDecay[(row + t) * n.heads + head];
      g[(row + t) * n.heads + head] = (float)sum;
    }
    return;
  }
  int line = blockIdx.y * blockDim.x + threadIdx.x;
  if (line >= n.lines) return;
  double angle = 0;
#pragma unroll 4
  for (int i = 0; i < block; i++) angle += totals[((int64)batch * blocks + i) * n.lines + line];
  angle = wrapped(angle);
  int width = 2 * n.lines;
  for (int start = 0; start < count; start += STEPS) {
    float steps[STEPS];
    float2 cs[STEPS], bs[STEPS];
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int64 at = row + min(start + j, count - 1);
      steps[j] = phase[at * n.phasePitch + line];
      cs[j] = loadPair(c + at * n.cPitch + 2 * line);
      bs[j] = loadPair(b + at * n.bPitch + 2 * line);
    }
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      if (start + j >= count) break;
      int64 at = row + start + j;
      angle = wrapped(angle + steps[j]);
      float narrow = (float)angle, sine, cosine;
      sincosf(narrow, &sine, &cosine);
      phi[at * n.lines + line] = narrow;
      storePair(cRotated + at * width + 2 * line, cs[j].x * cosine - cs[j].y * sine, cs[j].x * sine + cs[j].y * cosine);
      storePair(bRotated + at * width + 2 * line, bs[j].x * cosine - bs[j].y * sine, bs[j].x * sine + bs[j].y * cosine);
    }
  }
}

// Gradients of c and b, which are rotated back; of log decay; and, in `within`, of the phase as far as its own block goes,
// with the sum of each block in totals. The gradient by an angle is the cross product of a rotated pair with its gradient.
template <class T, class G>
__device__ void prepareBackward(const T* cRotated, const T* bRotated, const float* phi, const G* cGradient,
                                const G* bGradient, const float* gGradient, const float* phiGradient, T* dc, T* db,
                                float* dLogDecay, float* within, double* totals, const PrepareSizes& n) {
  int blocks = (n.length + BLOCK - 1) / BLOCK;
  int batch = blockIdx.x / blocks, block = blockIdx.x % blocks;
  int first = block * BLOCK, count = min(BLOCK, n.length - first);
  int64 row = (int64)batch * n.length + first;
  int lineBlocks = (n.lines + blockDim.x - 1) / blockDim.x;
  if (blockIdx.y >= lineBlocks) {
    int head = (blockIdx.y - lineBlocks) * blockDim.x + threadIdx.x;
    if (head >= n.heads) return;
    double sum = 0;
    for (int t = count - 1; t >= 0; t--) {
      sum += gGradient[(row + t) * n.heads + head];
      dLogDecay[(row + t) * n.heads + head] = (float)sum;
    }
    return;
  }
  int line = blockIdx.y * blockDim.x + threadIdx.x;
  if (line >= n.lines) return;
  int width = 2 * n.lines;
  double sum = 0;
  for (int start = 0; start < count; start += STEPS) {
    float angles[STEPS];
    float2 cs[STEPS], bs[STEPS], dcs[STEPS], dbs[STEPS];
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      int64 at = row + max(count - 1 - start - j, 0);
      angles[j] = phi[at * n.lines + line];
      cs[j] = loadPair(cRotated + at * width + 2 * line);
      bs[j] = loadPair(bRotated + at * width + 2 * line);
      dcs[j] = loadPair(cGradient + at * width + 2 * line);
      dbs[j] = loadPair(bGradient + at * width + 2 * line);
    }
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
      if (start + j >= count) break;
      int64 at = row + count - 1 - start - j;
      sum += (cs[j].x * dcs[j].y - cs[j].y * dcs[j].x) + (bs[j].x * dbs[j].y - bs[j].y * dbs[j].x);
      if (phiGradient) sum += phiGradient[at * n.lines + line];
      within[at * n.lines + line] = (float)sum;
      float sine, cosine;
      sincosf(angles[j], &sine, &cosine);
      storePair(dc + at * n.cPitch + 2 * line, dcs[j].x * cosine + dcs[j].y * sine, dcs[j].y * cosine - dcs[j].x * sine);
      storePair(db + at * n.bPitch + 2 * line, dbs[j].x * cosine + dbs[j].y * sine, dbs[j].y * cosine - dbs[j].x * sine);
    }
  }
  totals[(int64)blockIdx.x * n.lines + line] = sum;
}

// dPhase gets, of each position, the sum inside its block and what comes after the block.
template <class T> __device__ void addLater(const float* within, const double* totals, T* dPhase, const PrepareSizes& n) {
  int blocks = (n.length + BLOCK - 1) / BLOCK;
  int line = blockIdx.y * blockDim.x + threadIdx.x;
  if (line >= n.lines) return;
  int batch = blockIdx.x / blocks, block = blockIdx.x % blocks;
  int first = block * BLOCK, count = min(BLOCK, n.length - first);
  int64 row = (int64)batch * n.length + first;
  double later = 0;
#pragma unroll 4
  for (int i = block + 1; i < blocks; i++) later += totals[((int64)batch * blocks + i) * n.lines + line];
  for (int start = 0; start < count; start += STEPS) {
    float sums[STEPS];
#pragma unroll
    for (int j = 0; j < STEPS; j++) sums[j] = within[(row + min(start + j, count - 1)) * n.lines + line];
#pragma unroll
    for (int j = 0; j < STEPS; j++)
      if (start + j < count) dPhase[(row + start + j) * n.phasePitch + line] = (T)(float)(sums[j] + later);
  }
}
extern "C" __global__ void phaseLater_float32(const float* within, const double* totals, float* dPhase,
                                              const __grid_constant__ PrepareSizes n) {
  addLater<float>(within, totals, dPhase, n);
}
extern "C" __global__ void phaseLater_bfloat16(const float* within, const double* totals, __nv_bfloat16* dPhase,
                                               const __grid_constant__ PrepareSizes n) {
  addLater<__nv_bfloat16>(within, totals, dPhase, n);
}

// ---------------------------------------------------------------------------------------------------------------------
// log alpha = -softplus(x + bias) of each position and head; rows of x are `pitch` apart.
extern "C" __global__ void logDecay(const float* x, const float* bias, float* out, int64 rows, int heads, int64 pitch) {
  GRID_STRIDE(index, rows * heads) {
    int64 row = index / heads;
    int head = index - row * heads;
    float strength = x[row * pitch + head] + bias[head];
    out[index] = -(fmaxf(strength, 0.f) + log1pf(expf(-fabsf(strength))));
  }
}

// Its gradients by x, in bfloat16, and, for what one block sees, by the bias: parts [gridDim.x, heads]. Threads are a
// multiple of the heads, so that each stays with one head.
extern "C" __global__ void logDecayBackward(const float* x, const float* bias, const float* gradient, __nv_bfloat16* dx,
                                            float* parts, int64 rows, int heads, int64 pitch, int64 dxPitch) {
  __shared__ float sums[256];
  int head = threadIdx.x % heads;
  float own = bias[head], sum = 0;
  for (int64 index = (int64)blockIdx.x * blockDim.x + threadIdx.x; index < rows * heads; index += (int64)gridDim.x * blockDim.x) {
    int64 row = index / heads;
    float strength = x[row * pitch + head] + own, e = expf(-fabsf(strength));
    float result = -gradient[index] * (strength < 0.f ? e : 1.f) / (1.f + e);
    dx[row * dxPitch + head] = __float2bfloat16_rn(result);
    sum += result;
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= heads) return;
  for (int other = threadIdx.x + heads; other < blockDim.x; other += heads) sum += sums[other];
  parts[(int64)blockIdx.x * heads + threadIdx.x] = sum;
}

#define PREPARE(suffix, T)                                                                                              \
  extern "C" __global__ void ssmPrepare_##suffix(const T* c, const T* b, const float* logDecay, const float* phase,     \
                                                 const double* totals, T* cRotated, T* bRotated, float* g, float* phi,  \
                                                 const __grid_constant__ PrepareSizes n) {                              \
    prepare<T>(c, b, logDecay, phase, totals, cRotated, bRotated, g, phi, n);                                           \
  }
PREPARE(float32, float)
PREPARE(bfloat16, __nv_bfloat16)

#define PREPARE_BACKWARD(suffix, T, G)                                                                                  \
  extern "C" __global__ void ssmPrepareBackward_##suffix(                                                               \
      const T* cRotated, const T* bRotated, const float* phi, const G* cGradient, const G* bGradient,                   \
      const float* gGradient, const float* phiGradient, T* dc, T* db, float* dLogDecay, float* within, double* totals,  \
      const __grid_constant__ PrepareSizes n) {                                                                         \
    prepareBackward<T, G>(cRotated, bRotated, phi, cGradient, bGradient, gGradient, phiGradient, dc, db, dLogDecay,     \
                          within, totals, n);                                                                           \
  }
PREPARE_BACKWARD(float32_float32, float, float)
PREPARE_BACKWARD(bfloat16_bfloat16, __nv_bfloat16, __nv_bfloat16)
PREPARE_BACKWARD(bfloat16_float32, __nv_bfloat16, float)
