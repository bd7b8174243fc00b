// Composites as one kernel each: norms, rotation, gates, and the loss. Narrow floats are computed in float.
#include "eight.cuh"

// y = x / sqrt(mean(x^2) + epsilon) * weight, one warp a row. width is a multiple of 8.
template <class T, class W>
__device__ void rmsNormRows(const T* x, const W* weight, T* out, int64 rows, int width, float epsilon) {
  int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int64 row = (int64)blockIdx.x * warps + threadIdx.x / 32; row < rows; row += (int64)gridDim.x * warps) {
    const T* from = x + row * width;
    float squares = 0;
    for (int i = lane * 8; i < width; i += 256) {
      float part[8];
      Eight<T>::load(part, from + i);
#pragma unroll
      for (int j = 0; j < 8; j++) squares += part[j] * part[j];
    }
    float inverse = 1.f / sqrtf(warpSum(squares) / width + epsilon);
    for (int i = lane * 8; i < width; i += 256) {
      float part[8], w[8];
      Eight<T>::load(part, from + i);
      Eight<W>::load(w, weight + i);
#pragma unroll
      for (int j = 0; j < 8; j++) part[j] = part[j] * inverse * w[j];
      Eight<T>::store(out + row * width + i, part);
    }
  }
}

// Gradients by x, with an addend, and, for the rows of one block each, by the weight: parts [gridDim.x, width]. Thread t owns columns 8t..8t+7.
template <class T, class W>
__device__ void rmsNormBackwardRows(const T* x, const W* weight, const T* gradient, const T* addend, T* dx, float* parts,
                                    int64 rows, int width, float epsilon) {
  __shared__ float shared[2][32];
  int column = threadIdx.x * 8;
  bool own = column < width;
  float w[8] = {}, dw[8] = {};
  if (own) Eight<W>::load(w, weight + column);
  for (int64 row = blockIdx.x; row < rows; row += gridDim.x) {
    float part[8] = {}, g[8] = {}, before[8] = {};
    if (own) Eight<T>::load(part, x + row * width + column), Eight<T>::load(g, gradient + row * width + column);
    if (own && addend) Eight<T>::load(before, addend + row * width + column);
    float squares = 0, dot = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) squares += part[j] * part[j], dot += part[j] * g[j] * w[j];
    squares = blockSum(squares, shared[0]);
    dot = blockSum(dot, shared[1]);
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

// The same, four neighbouring pairs at a time: axes go over such groups, and the tables are float32 and dense in them.
template <class T> __device__ void rotateFours(const T* x, const float* cosines, const float* sines, T* out, const Axes& axes) {
  GRID_STRIDE(index, axes.count) {
    Places p = placesOf<4>(axes, index);
    float part[8];
    Eight<T>::load(part, x + p.at[1]);
    float4 cosine = *(const float4*)(cosines + p.at[2]), sine = *(const float4*)(sines + p.at[3]);
    const float* c = &cosine.x;
    const float* s = &sine.x;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float a = part[2 * i], b = part[2 * i + 1];
      part[2 * i] = a * c[i] - b * s[i];
      part[2 * i + 1] = a * s[i] + b * c[i];
    }
    Eight<T>::store(out + p.at[0], part);
  }
}
extern "C" __global__ void ropeFours_float32(const float* x, const float* cosines, const float* sines, float* out,
                                             const __grid_constant__ Axes axes) {
  rotateFours<float>(x, cosines, sines, out, axes);
}
extern "C" __global__ void ropeFours_bfloat16(const __nv_bfloat16* x, const float* cosines, const float* sines,
                                              __nv_bfloat16* out, const __grid_constant__ Axes axes) {
  rotateFours<__nv_bfloat16>(x, cosines, sines, out, axes);
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
