// Parts of kernels whose launch overlaps the end of the one before, and copies to shared memory that go on meanwhile. What
// the host launches so must read nothing before waitForOthers() that another kernel of the run may write.
#pragma once
#include "eight.cuh"

// Lets the next kernel begin: its blocks take what room there is.
__device__ inline void letNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the kernel before has ended, and all it wrote is seen.
__device__ inline void waitForOthers() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// A barrier of the first warps of a block.
template <int WARPS> __device__ inline void syncWarps() { asm volatile("bar.sync 0, %0;" ::"n"(32 * WARPS) : "memory"); }

// 16 bytes to shared memory, past the first cache.
__device__ inline void copyAsync(void* shared, const void* global) {
  uint32 to = (uint32)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
__device__ inline void endOfCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `groups` groups of the thread's copies are under way.
__device__ inline void waitForCopies(int groups) {
  switch (groups) {
    case 0: asm volatile("cp.async.wait_group 0;" ::: "memory"); break;
    case 1: asm volatile("cp.async.wait_group 1;" ::: "memory"); break;
    case 2: asm volatile("cp.async.wait_group 2;" ::: "memory"); break;
    case 3: asm volatile("cp.async.wait_group 3;" ::: "memory"); break;
    case 4: asm volatile("cp.async.wait_group 4;" ::: "memory"); break;
    case 5: asm volatile("cp.async.wait_group 5;" ::: "memory"); break;
    case 6: asm volatile("cp.async.wait_group 6;" ::: "memory"); break;
    default: asm volatile("cp.async.wait_group 7;" ::: "memory");
  }
}

// N neighbouring elements as they lie in memory. All bytes are read at once, as wide as can be.
template <class T, int N> struct Raw {
  static const int bytes = N * sizeof(T);
  static const int words = bytes / 4;
  uint32 word[words == 0 ? 1 : words];

  __device__ void load(const T* p) {
    if constexpr (bytes % 16 == 0) {
#pragma unroll
      for (int i = 0; i < bytes / 16; i++) ((uint4*)word)[i] = __ldcg((const uint4*)p + i);
    } else if constexpr (bytes % 8 == 0) {
#pragma unroll
      for (int i = 0; i < bytes / 8; i++) ((uint2*)word)[i] = __ldcg((const uint2*)p + i);
    } else {
#pragma unroll
      for (int i = 0; i < words; i++) word[i] = __ldcg((const uint32*)p + i);
    }
  }
  __device__ void store(T* p) const {
#pragma unroll
    for (int i = 0; i < words; i++) ((uint32*)p)[i] = word[i];
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < words; i++) word[i] = 0;
  }
  __device__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(word[i]);
    else return __uint_as_float(i % 2 == 0 ? word[i / 2] << 16 : word[i / 2] & 0xffff0000u);
  }
  __device__ void set(const float (&x)[N]) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < N; i++) word[i] = __float_as_uint(x[i]);
    } else {
#pragma unroll
      for (int i = 0; i < words; i++) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
        word[i] = *(uint32*)&pair;
      }
    }
  }
};

// As T holds it.
template <class T> __device__ inline float rounded(float x) {
  if constexpr (sizeof(T) == 4) return x;
  else return __bfloat162float(__float2bfloat16_rn(x));
}
