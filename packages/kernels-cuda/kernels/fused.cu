// Composites as one kernel each: norms, rotation, gates, and the loss. Narrow floats are computed in float.
#include "eight.cuh"

// y = x / sqrt(mean(x^2) + epsilon) * weight, one warp a row. width is a multiple of 8. All loads of up to 1024 elements are
// started before the first is used, and kept.
template <class T, class W>
__device__ void rmsNormRows(const T* x, const W* weight, T* out, int64 rows, int width, float epsilon) {
  const int HELD = 4;
  int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int64 row = (int64)blockIdx.x * warps + threadIdx.x / 32; row < rows; row += (int64)gridDim.x * warps) {
    float held[HELD][8];
    auto fetch = [&](int start) {
#pragma unroll
      for (int i = 0; i < HELD; i++)
        if (start + i * 256 < width) Eight<T>::load(held[i], x + row * width + start + i * 256);
    };
    float squares = 0;
    for (int start = lane * 8; start < width; start += HELD * 256) {
      fetch(start);
#pragma unroll
      for (int i = 0; i < HELD; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) squares += start + i * 256 < width ? held[i][j] * held[i][j] : 0.f;
    }
    float inverse = 1.f / sqrtf(warpSum(squares) / width + epsilon);
    for (int start = lane * 8; start < width; start += HELD * 256) {
      if (width > HELD * 256) fetch(start);
#pragma unroll
      for (int i = 0; i < HELD; i++) {
        int column = start + i * 256;
        if (column >= width) break;
        float w[8];
        Eight<W>::load(w, weight + column);
#pragma unroll
        for (int j = 0; j < 8; j++) w[j] *= held[i][j] * inverse;
        Eight<T>::store(out + row * width + column, w);
      }
    }
  }
}

// Gradients by x, with an addend, and, for the rows of one block each, by the weight: parts [gridDim.x, width]. Thread t owns
// columns 8t..8t+7. The next row is on its way while this one is summed.
template <class T, class W>
__device__ void rmsNormBackwardRows(const T* x, const W* weight, const T* gradient, const T* addend, T* dx, float* parts,
                                    int64 rows, int width, float epsilon) {
  struct alignas(16) Narrow {
    T x[8];
  };
  // Of two rows in turn, so that one barrier a row is enough.
  __shared__ float2 shared[2][32];
  int column = threadIdx.x * 8, warps = blockDim.x / 32, turn = 0;
  bool own = column < width;
  float w[8] = {}, dw[8] = {};
  if (own) Eight<W>::load(w, weight + column);
  Narrow next[3] = {};
  auto fetch = [&](int64 row) {
    if (!own || row >= rows) return;
    next[0] = *(const Narrow*)(x + row * width + column);
    next[1] = *(const Narrow*)(gradient + row * width + column);
    if (addend) next[2] = *(const Narrow*)(addend + row * width + column);
  };
  fetch(blockIdx.x);
  for (int64 row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    float part[8], g[8], before[8];
    Eight<T>::load(part, next[0].x), Eight<T>::load(g, next[1].x), Eight<T>::load(before, next[2].x);
    fetch(row + gridDim.x);
    float squares = 0, dot = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) squares += part[j] * part[j], dot += part[j] * g[j] * w[j];
    squares = warpSum(squares), dot = warpSum(dot);
    if (threadIdx.x % 32 == 0) shared[turn][threadIdx.x / 32] = make_float2(squares, dot);
    __syncthreads();
    squares = 0, dot = 0;
    for (int warp = 0; warp < warps; warp++) squares += shared[turn][warp].x, dot += shared[turn][warp].y;
    float inverse = 1.f / sqrtf(squares / width + epsilon);
    float mean = dot * inverse / width;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float normal = part[j] * inverse;
      dw[j] += g[j] * normal;
      part[j] = before[j] + inverse * (g[j] * w[j] - normal * mean);
    }
    if (own) Eight<T>::store(dx + row * width + column, part);
  }
  if (own) Eight<float>::store(parts + (int64)blockIdx.x * width + column, dw);
}

#define NORMS(suffix, T, W)                                                                                             \
  extern "C" __global__ void rmsNorm_##suffix(const T* x, const W* weight, T* out, int64 rows, int width, float epsilon) { \
    rmsNormRows<T, W>(x, weight, out, rows, width, epsilon);                                                            \
  }                                                                                                                     \
  extern "C" __global__ void rmsNormBackward_##suffix(const T* x, const W* weight, const T* gradient, const T* addend,  \
                                                      T* dx, float* parts, int64 rows, int width, float epsilon) {      \
    rmsNormBackwardRows<T, W>(x, weight, gradient, addend, dx, parts, rows, width, epsilon);                            \
  }
NORMS(float32_float32, float, float)
NORMS(bfloat16_float32, __nv_bfloat16, float)
NORMS(bfloat16_bfloat16, __nv_bfloat16, __nv_bfloat16)

// Rotates pairs. Axes go over pairs: tensor 0 the result and tensor 1 the operand (strides in elements), 2 cos, 3 sin.
// From the first element of a pair to its second: `second` in x, `outSecond` in the result.
extern "C" __global__ void rope(const void* x, const void* cosines, const void* sines, void* out, int64 second,
                                int64 outSecond, const __grid_constant__ Axes axes) {
  GRID_STRIDE(index, axes.count) {
    Places p = placesOf<4>(axes, index);
    float a = load<float>(x, axes.type[1], p.at[1]), b = load<float>(x, axes.type[1], p.at[1] + second);
    float c = load<float>(cosines, axes.type[2], p.at[2]), s = load<float>(sines, axes.type[3], p.at[3]);
    store(out, axes.type[0], p.at[0], a * c - b * s);
    store(out, axes.type[0], p.at[0] + outSecond, a * s + b * c);
  }
}

// The same, eight neighbouring pairs at a time, so that finding their place is not most of the work: axes go over such
// groups, and the tables are float32 and dense in them.
template <class T> __device__ void rotateEights(const T* x, const float* cosines, const float* sines, T* out, const Axes& axes) {
  GRID_STRIDE(index, axes.count) {
    Places p = placesOf<4>(axes, index);
    float part[2][8], c[8], s[8];
    Eight<T>::load(part[0], x + p.at[1]), Eight<T>::load(part[1], x + p.at[1] + 8);
    Eight<float>::load(c, cosines + p.at[2]), Eight<float>::load(s, sines + p.at[3]);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float &first = part[i / 4][i % 4 * 2], &second = part[i / 4][i % 4 * 2 + 1], a = first, b = second;
      first = a * c[i] - b * s[i];
      second = a * s[i] + b * c[i];
    }
    Eight<T>::store(out + p.at[0], part[0]), Eight<T>::store(out + p.at[0] + 8, part[1]);
  }
}
extern "C" __global__ void ropeEights_float32(const float* x, const float* cosines, const float* sines, float* out,
                                              const __grid_constant__ Axes axes) {
  rotateEights<float>(x, cosines, sines, out, axes);
}
extern "C" __global__ void ropeEights_bfloat16(const __nv_bfloat16* x, const float* cosines, const float* sines,
                                               __nv_bfloat16* out, const __grid_constant__ Axes axes) {
  rotateEights<__nv_bfloat16>(x, cosines, sines, out, axes);
}

__device__ inline float logistic(float x) {
  float e = expf(-fabsf(x));
  return (x < 0.f ? e : 1.f) / (1.f + e);
}

// Rows of `width` elements, a multiple of eight; rows of each operand are its pitch apart.
template <class T>
__device__ void gate(const T* gates, const T* ups, T* out, int64 rows, int64 width, int64 gatePitch, int64 upPitch) {
  uint32 eights = width / 8;
  GRID_STRIDE(index, rows * eights) {
    int64 row = index / eights, column = (index - row * eights) * 8;
    float g[8], u[8];
    Eight<T>::load(g, gates + row * gatePitch + column);
    Eight<T>::load(u, ups + row * upPitch + column);
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] *= g[j] * logistic(g[j]);
    Eight<T>::store(out + index * 8, u);
  }
}
template <class T>
__device__ void gateBackward(const T* gates, const T* ups, const T* gradient, T* dGates, T* dUps, int64 rows, int64 width,
                             int64 gatePitch, int64 upPitch, int64 gradientPitch, int64 dGatePitch, int64 dUpPitch) {
  uint32 eights = width / 8;
  GRID_STRIDE(index, rows * eights) {
    int64 row = index / eights, column = (index - row * eights) * 8;
    float g[8], u[8], d[8];
    Eight<T>::load(g, gates + row * gatePitch + column);
    Eight<T>::load(u, ups + row * upPitch + column);
    Eight<T>::load(d, gradient + row * gradientPitch + column);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float s = logistic(g[j]), activated = g[j] * s;
      g[j] = d[j] * u[j] * (s + activated * (1.f - s));
      u[j] = d[j] * activated;
    }
    Eight<T>::store(dGates + row * dGatePitch + column, g);
    Eight<T>::store(dUps + row * dUpPitch + column, u);
  }
}
#define GATES(suffix, T)                                                                                            \
  extern "C" __global__ void swiglu_##suffix(const T* gates, const T* ups, T* out, int64 rows, int64 width,         \
                                             int64 gatePitch, int64 upPitch) {                                      \
    gate<T>(gates, ups, out, rows, width, gatePitch, upPitch);                                                      \
  }                                                                                                                 \
  extern "C" __global__ void swigluBackward_##suffix(                                                               \
      const T* gates, const T* ups, const T* gradient, T* dGates, T* dUps, int64 rows, int64 width, int64 gatePitch, \
      int64 upPitch, int64 gradientPitch, int64 dGatePitch, int64 dUpPitch) {                                       \
    gateBackward<T>(gates, ups, gradient, dGates, dUps, rows, width, gatePitch, upPitch, gradientPitch, dGatePitch, \
                    dUpPitch);                                                                                      \
  }
GATES(float32, float)
GATES(bfloat16, __nv_bfloat16)

// One block a row of logits, `stride` apart: its loss, and the gradient by the logits in their place, times share. Where
// `keeps`, the row stays in shared memory between the two. What is beyond the vocabulary counts as minus infinity.
template <class T>
__device__ void lossRows(T* logits, const int* targets, float* losses, int vocabulary, int stride, float share, int keeps,
                         Fault* fault, int node) {
  extern __shared__ uint4 kept[];
  __shared__ float shared[32];
  int64 row = blockIdx.x;
  T* own = logits + row * stride;
  int target = targets[row];
  bool bad = target < 0 || target >= vocabulary;
  if (bad && threadIdx.x == 0) report(fault, node, target);
  float atTarget = bad ? 0.f : load<float>(own, sizeof(T) == 2 ? Bfloat16 : Float32, target);
  auto loadEight = [&](float(&x)[8], int i) {
    Eight<T>::load(x, own + i);
    if (i + 8 <= vocabulary) return;
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = i + j < vocabulary ? x[j] : -INFINITY;
  };
  auto again = [&](float(&x)[8], int i) {
    if (keeps) Eight<T>::load(x, (const T*)kept + i);
    else loadEight(x, i);
  };
  float most = -INFINITY, total = 0;
#pragma unroll 4
  for (int i = threadIdx.x * 8; i < vocabulary; i += blockDim.x * 8) {
    float x[8];
    loadEight(x, i);
    if (keeps) Eight<T>::store((T*)kept + i, x);
#pragma unroll
    for (int j = 0; j < 8; j++) most = fmaxf(most, x[j]);
  }
  most = blockMax(most, shared);
#pragma unroll 2
  for (int i = threadIdx.x * 8; i < vocabulary; i += blockDim.x * 8) {
    float x[8];
    again(x, i);
#pragma unroll
    for (int j = 0; j < 8; j++) total += __expf(x[j] - most);
  }
  total = blockSum(total, shared);
  float logTotal = logf(total) + most;
  if (threadIdx.x == 0) losses[row] = bad ? 0.f : logTotal - atTarget;
#pragma unroll 2
  for (int i = threadIdx.x * 8; i < vocabulary; i += blockDim.x * 8) {
    float x[8];
    again(x, i);
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = __expf(x[j] - logTotal) * share;
    if (target - i >= 0 && target - i < 8) {
#pragma unroll
      for (int j = 0; j < 8; j++) x[j] -= i + j == target ? share : 0.f;
    }
    Eight<T>::store(own + i, x);
  }
}
extern "C" __global__ void lossRows_float32(float* logits, const int* targets, float* losses, int vocabulary, int stride,
                                            float share, int keeps, Fault* fault, int node) {
  lossRows<float>(logits, targets, losses, vocabulary, stride, share, keeps, fault, node);
}
extern "C" __global__ void lossRows_bfloat16(__nv_bfloat16* logits, const int* targets, float* losses, int vocabulary,
                                             int stride, float share, int keeps, Fault* fault, int node) {
  lossRows<__nv_bfloat16>(logits, targets, losses, vocabulary, stride, share, keeps, fault, node);
}
// The mean of row losses, in one fixed order.
extern "C" __global__ void meanOf(const float* x, int64 count, float* out) {
  __shared__ double shared[32];
  double sum = 0;
  for (int64 i = threadIdx.x; i < count; i += blockDim.x) sum += x[i];
  sum = blockSum(sum, shared);
  if (threadIdx.x == 0) *out = (float)(sum / count);
}
