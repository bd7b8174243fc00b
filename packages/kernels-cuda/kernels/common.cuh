// Shared by all kernels: element types as numbers (the order of src/device/element-type.ts), and loads and stores that
// convert between them and the type in which a kernel computes.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef long long int64;
typedef unsigned int uint32;

enum ElementType { Float32 = 0, Float64 = 1, Float16 = 2, Bfloat16 = 3, Int32 = 4, Bool = 5 };

// Rounded once: a float that is not exact gets an odd last digit, so that the second rounding cannot meet a false tie.
__device__ inline __nv_bfloat16 bfloat16Of(double x) {
  float narrow = __double2float_rz(x);
  if ((double)narrow != x && isfinite(narrow)) narrow = __uint_as_float(__float_as_uint(narrow) | 1u);
  return __float2bfloat16_rn(narrow);
}
__device__ inline __nv_bfloat16 bfloat16Of(float x) { return __float2bfloat16_rn(x); }
__device__ inline __nv_bfloat16 bfloat16Of(int x) { return bfloat16Of((double)x); }
__device__ inline __half float16Of(double x) { return __double2half(x); }
__device__ inline __half float16Of(float x) { return __float2half_rn(x); }
__device__ inline __half float16Of(int x) { return __int2half_rn(x); }

// As an Int32Array takes a number: without its fraction, modulo 2^32; 0 where it is not finite.
__device__ inline int int32Of(double x) {
  if (fabs(x) < 2147483648.0) return (int)x;
  if (!isfinite(x)) return 0;
  double rest = fmod(trunc(x), 4294967296.0);
  return (int)(uint32)(int64)rest;
}
__device__ inline int int32Of(float x) { return int32Of((double)x); }
__device__ inline int int32Of(int x) { return x; }

template <class C> __device__ inline C load(const void* data, int type, int64 index) {
  switch (type) {
    case Float32: return (C)((const float*)data)[index];
    case Float64: return (C)((const double*)data)[index];
    case Float16: return (C)__half2float(((const __half*)data)[index]);
    case Bfloat16: return (C)__bfloat162float(((const __nv_bfloat16*)data)[index]);
    case Int32: return (C)((const int*)data)[index];
    default: return (C)((const unsigned char*)data)[index];
  }
}

template <class C> __device__ inline void store(void* data, int type, int64 index, C value) {
  switch (type) {
    case Float32: ((float*)data)[index] = (float)value; break;
    case Float64: ((double*)data)[index] = (double)value; break;
    case Float16: ((__half*)data)[index] = float16Of(value); break;
    case Bfloat16: ((__nv_bfloat16*)data)[index] = bfloat16Of(value); break;
    case Int32: ((int*)data)[index] = int32Of(value); break;
    default: ((unsigned char*)data)[index] = value != (C)0;
  }
}

// Up to eight axes with the strides, in elements, of up to four tensors; axis 0 is the slowest.
const int maximumRank = 8;
struct Axes {
  int64 count;
  int rank;
  int type[4];
  uint32 size[maximumRank];
  int64 stride[4][maximumRank];
};

struct Places {
  int64 at[4];
};

// Where element `index`, in row-major order of the axes, lies in each of the first N tensors.
template <int N> __device__ inline Places placesOf(const Axes& axes, int64 index) {
  Places places;
  if (axes.rank == 1) {
#pragma unroll
    for (int n = 0; n < N; n++) places.at[n] = index * axes.stride[n][0];
    return places;
  }
#pragma unroll
  for (int n = 0; n < N; n++) places.at[n] = 0;
  if (axes.count <= 0xffffffffll) {
    uint32 rest = (uint32)index;
    for (int axis = axes.rank - 1; axis >= 0; axis--) {
      uint32 size = axes.size[axis];
      uint32 quotient = rest / size;
      int64 place = rest - quotient * size;
#pragma unroll
      for (int n = 0; n < N; n++) places.at[n] += place * axes.stride[n][axis];
      rest = quotient;
    }
  } else {
    int64 rest = index;
    for (int axis = axes.rank - 1; axis >= 0; axis--) {
      int64 size = axes.size[axis];
      int64 quotient = rest / size;
      int64 place = rest - quotient * size;
#pragma unroll
      for (int n = 0; n < N; n++) places.at[n] += place * axes.stride[n][axis];
      rest = quotient;
    }
  }
  return places;
}

// The first bad value of a run, for the host: which node found it, and what it was.
struct Fault {
  int node;
  int value;
};

__device__ inline void report(Fault* fault, int node, int value) {
  if (atomicCAS(&fault->node, 0, node) == 0) fault->value = value;
}

#define GRID_STRIDE(index, count)                                                       \
  for (int64 index = (int64)blockIdx.x * blockDim.x + threadIdx.x; index < (count); \
       index += (int64)gridDim.x * blockDim.x)

template <class C> __device__ inline C warpSum(C x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ inline float warpMax(float x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

// Sum over a block of any number of warps; every thread gets it. `shared` holds 32 elements.
template <class C> __device__ inline C blockSum(C x, C* shared) {
  x = warpSum(x);
  int warps = (blockDim.x + 31) / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  C total = 0;
  for (int i = 0; i < warps; i++) total += shared[i];
  return total;
}
__device__ inline float blockMax(float x, float* shared) {
  x = warpMax(x);
  int warps = (blockDim.x + 31) / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float largest = shared[0];
  for (int i = 1; i < warps; i++) largest = fmaxf(largest, shared[i]);
  return largest;
}
