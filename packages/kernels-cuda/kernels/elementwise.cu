// Elementwise operations with broadcasting: tensor 0 is the result, tensors 1 to 3 the operands.
// Suffix f computes in float (for float32, float16 and bfloat16), d in double, i in int (for int32 and bool).
#include "eight.cuh"

__device__ inline float absolute(float x) { return fabsf(x); }
__device__ inline double absolute(double x) { return fabs(x); }
__device__ inline int absolute(int x) { return x < 0 ? (int)(0u - (uint32)x) : x; }
__device__ inline bool isNegative(float x) { return signbit(x); }
__device__ inline bool isNegative(double x) { return signbit(x); }
__device__ inline bool isNegative(int x) { return x < 0; }

// NaN where one operand is, and -0 below 0.
template <class C> __device__ inline C smaller(C a, C b) {
  if (a != a || b != b) return a + b;
  return a < b || (a == b && isNegative(a)) ? a : b;
}
template <class C> __device__ inline C larger(C a, C b) {
  if (a != a || b != b) return a + b;
  return a > b || (a == b && !isNegative(a)) ? a : b;
}
__device__ inline int floorQuotient(int a, int b) {
  if (b == 0) return 0;
  if (b == -1) return (int)(0u - (uint32)a);
  int quotient = a / b;
  return quotient - (a % b != 0 && (a < 0) != (b < 0));
}
template <class C> __device__ inline C logistic(C x) {
  C e = exp(-absolute(x));
  return (x < (C)0 ? e : (C)1) / ((C)1 + e);
}
template <class C> __device__ inline C softened(C x) { return larger(x, (C)0) + log1p(exp(-absolute(x))); }
__device__ inline int wrapped(uint32 x) { return (int)x; }

// Whether the tensors can be read and written eight elements at a time: dense or single numbers, of float32 or bfloat16.
template <class C, int N> __device__ inline bool byEights(const Axes& axes, const void* const (&data)[N]) {
  if (sizeof(C) != 4 || (C)0.5f == (C)0 || axes.rank != 1 || axes.count % 8 != 0 || axes.stride[0][0] != 1) return false;
#pragma unroll
  for (int n = 0; n < N; n++) {
    if (axes.type[n] != Float32 && axes.type[n] != Bfloat16) return false;
    if (axes.stride[n][0] != 0 && (axes.stride[n][0] != 1 || (unsigned long long)data[n] % 16 != 0)) return false;
  }
  return true;
}
template <class C> __device__ inline void loadEight(C (&x)[8], const void* data, int type, int64 stride, int64 index) {
  float part[8];
  if (stride == 0) {
    C single = load<C>(data, type, 0);
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = single;
    return;
  }
  if (type == Float32) Eight<float>::load(part, (const float*)data + index);
  else Eight<__nv_bfloat16>::load(part, (const __nv_bfloat16*)data + index);
#pragma unroll
  for (int j = 0; j < 8; j++) x[j] = (C)part[j];
}
__device__ inline void storeEight(void* data, int type, int64 index, const float (&x)[8]) {
  if (type == Float32) Eight<float>::store((float*)data + index, x);
  else Eight<__nv_bfloat16>::store((__nv_bfloat16*)data + index, x);
}

#define UNARY(name, suffix, C, expression)                                                                   \
  extern "C" __global__ void name##_##suffix(const void* x_, void* out, const __grid_constant__ Axes axes) { \
    if (byEights<C>(axes, {out, x_})) {                                                                      \
      GRID_STRIDE(eight, axes.count / 8) {                                                                   \
        C xs[8];                                                                                             \
        float results[8];                                                                                    \
        loadEight(xs, x_, axes.type[1], axes.stride[1][0], eight * 8);                                       \
        _Pragma("unroll") for (int j = 0; j < 8; j++) {                                                      \
          C x = xs[j];                                                                                       \
          results[j] = (float)(expression);                                                                  \
        }                                                                                                    \
        storeEight(out, axes.type[0], eight * 8, results);                                                   \
      }                                                                                                      \
      return;                                                                                                \
    }                                                                                                        \
    GRID_STRIDE(index, axes.count) {                                                                         \
      Places p = placesOf<2>(axes, index);                                                                   \
      C x = load<C>(x_, axes.type[1], p.at[1]);                                                              \
      store(out, axes.type[0], p.at[0], expression);                                                         \
    }                                                                                                        \
  }
#define BINARY(name, suffix, C, expression)                                                \
  extern "C" __global__ void name##_##suffix(const void* a_, const void* b_, void* out,    \
                                             const __grid_constant__ Axes axes) {          \
    if (byEights<C>(axes, {out, a_, b_})) {                                                \
      GRID_STRIDE(eight, axes.count / 8) {                                                 \
        C as[8], bs[8];                                                                    \
        float results[8];                                                                  \
        loadEight(as, a_, axes.type[1], axes.stride[1][0], eight * 8);                     \
        loadEight(bs, b_, axes.type[2], axes.stride[2][0], eight * 8);                     \
        _Pragma("unroll") for (int j = 0; j < 8; j++) {                                    \
          C a = as[j], b = bs[j];                                                          \
          results[j] = (float)(expression);                                                \
        }                                                                                  \
        storeEight(out, axes.type[0], eight * 8, results);                                 \
      }                                                                                    \
      return;                                                                              \
    }                                                                                      \
    GRID_STRIDE(index, axes.count) {                                                       \
      Places p = placesOf<3>(axes, index);                                                 \
      C a = load<C>(a_, axes.type[1], p.at[1]);                                            \
      C b = load<C>(b_, axes.type[2], p.at[2]);                                            \
      store(out, axes.type[0], p.at[0], expression);                                       \
    }                                                                                      \
  }
#define FLOAT_UNARY(name, expression) UNARY(name, f, float, expression) UNARY(name, d, double, expression)
#define FLOAT_BINARY(name, expression) BINARY(name, f, float, expression) BINARY(name, d, double, expression)

FLOAT_BINARY(add, a + b)
BINARY(add, i, int, wrapped((uint32)a + (uint32)b))
FLOAT_BINARY(sub, a - b)
BINARY(sub, i, int, wrapped((uint32)a - (uint32)b))
FLOAT_BINARY(mul, a* b)
BINARY(mul, i, int, wrapped((uint32)a * (uint32)b))
FLOAT_BINARY(div, a / b)
BINARY(floorDiv, i, int, floorQuotient(a, b))
FLOAT_BINARY(minimum, smaller(a, b))
BINARY(minimum, i, int, min(a, b))
FLOAT_BINARY(maximum, larger(a, b))
BINARY(maximum, i, int, max(a, b))
FLOAT_BINARY(equal, (int)(a == b))
BINARY(equal, i, int, (int)(a == b))
FLOAT_BINARY(less, (int)(a < b))
BINARY(less, i, int, (int)(a < b))
FLOAT_BINARY(lessEqual, (int)(a <= b))
BINARY(lessEqual, i, int, (int)(a <= b))
BINARY(and, i, int, (int)(a && b))
BINARY(or, i, int, (int)(a || b))

UNARY(not, i, int, (int)(!x))
FLOAT_UNARY(neg, -x)
UNARY(neg, i, int, wrapped(0u - (uint32)x))
FLOAT_UNARY(abs, absolute(x))
UNARY(abs, i, int, absolute(x))
FLOAT_UNARY(exp, exp(x))
FLOAT_UNARY(log, log(x))
FLOAT_UNARY(log1p, log1p(x))
FLOAT_UNARY(sqrt, sqrt(x))
FLOAT_UNARY(sin, sin(x))
FLOAT_UNARY(cos, cos(x))
FLOAT_UNARY(tanh, tanh(x))
FLOAT_UNARY(floor, floor(x))
FLOAT_UNARY(sigmoid, logistic(x))
FLOAT_UNARY(silu, x* logistic(x))
FLOAT_UNARY(softplus, softened(x))
FLOAT_UNARY(finite, (int)isfinite(x))
FLOAT_UNARY(cast, x)
UNARY(cast, i, int, x)

// Where a result is twice as wide, four elements a thread: neighbours write neighbouring 16 bytes.
extern "C" __global__ void castWide(const __nv_bfloat16* x, float* out, int64 fours) {
  GRID_STRIDE(four, fours) {
    uint2 pairs = ((const uint2*)x)[four];
    float2 low = __bfloat1622float2(*(__nv_bfloat162*)&pairs.x), high = __bfloat1622float2(*(__nv_bfloat162*)&pairs.y);
    ((float4*)out)[four] = make_float4(low.x, low.y, high.x, high.y);
  }
}

#define WHERE(suffix, C)                                                                                       \
  extern "C" __global__ void where_##suffix(const unsigned char* condition, const void* a, const void* b,      \
                                            void* out, const __grid_constant__ Axes axes) {                    \
    GRID_STRIDE(index, axes.count) {                                                                           \
      Places p = placesOf<4>(axes, index);                                                                     \
      C value = condition[p.at[1]] ? load<C>(a, axes.type[2], p.at[2]) : load<C>(b, axes.type[3], p.at[3]);    \
      store(out, axes.type[0], p.at[0], value);                                                                \
    }                                                                                                          \
  }
WHERE(f, float)
WHERE(d, double)
WHERE(i, int)
