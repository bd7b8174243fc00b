// One token of each sequence, a launch for each layer: decode-step.cuh.
#include "decode-step.cuh"

template <class T, int DE, int SE> __device__ void step(const DecodeStep& p) {
  letNextBegin();
  // Positions are written by no other kernel of a run.
  int position = p.start[blockIdx.z];
  if (position < 0 || position >= p.pages.capacity) {
    if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0) report(p.fault, p.faultNode, position);
    return;
  }
  if (blockIdx.x > position / p.span) return;
  decodeStep<T, DE, SE, 8>(p, position, p.span, blockIdx.x, blockIdx.y, blockIdx.z, true, waitForOthers);
}

#define DECODE_STEP(suffix, T, width, states)                                                                    \
  extern "C" __global__ void __launch_bounds__(256) decodeStep_##suffix##_##width##_##states(                    \
      const __grid_constant__ DecodeStep p) {                                                                    \
    step<T, width / lanes, states / lanes>(p);                                                             \
  }
#define DECODE_STEPS(suffix, T, width) \
  DECODE_STEP(suffix, T, width, 0)     \
  DECODE_STEP(suffix, T, width, 16)    \
  DECODE_STEP(suffix, T, width, 32)    \
  DECODE_STEP(suffix, T, width, 64)    \
  DECODE_STEP(suffix, T, width, 128)
DECODE_STEPS(float32, float, 64)
DECODE_STEPS(float32, float, 128)
DECODE_STEPS(bfloat16, __nv_bfloat16, 64)
DECODE_STEPS(bfloat16, __nv_bfloat16, 128)
