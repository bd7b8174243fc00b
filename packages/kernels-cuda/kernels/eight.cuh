#pragma once
#include "common.cuh"

// Eight neighbouring elements at a time, 16 bytes of bfloat16 or twice 16 of float.
template <class T> struct Eight;
template <> struct Eight<float> {
  static __device__ void load(float (&x)[8], const float* p) {
    *(float4*)&x[0] = ((const float4*)p)[0];
    *(float4*)&x[4] = ((const float4*)p)[1];
  }
  static __device__ void store(float* p, const float (&x)[8]) {
    ((float4*)p)[0] = *(const float4*)&x[0];
    ((float4*)p)[1] = *(const float4*)&x[4];
  }
};
template <> struct Eight<__nv_bfloat16> {
  static __device__ void load(float (&x)[8], const __nv_bfloat16* p) {
    uint4 bits = *(const uint4*)p;
    const __nv_bfloat162* pairs = (const __nv_bfloat162*)&bits;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float2 pair = __bfloat1622float2(pairs[i]);
      x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
  }
  static __device__ void store(__nv_bfloat16* p, const float (&x)[8]) {
    uint4 bits;
    __nv_bfloat162* pairs = (__nv_bfloat162*)&bits;
#pragma unroll
    for (int i = 0; i < 4; i++) pairs[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    *(uint4*)p = bits;
  }
};
