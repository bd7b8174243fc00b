// Parts of kernels for the attention of one token of each sequence.
#pragma once
#include "overlap.cuh"
#include "pages.cuh"

const int BLOCK = PAGE;  // decayBlock in @sisa/core

__device__ inline float weightOf(float score, float most) { return score == -INFINITY ? 0.f : __expf(score - most); }

// What a lane has found so far: weights are relative to the largest score.
template <int N> struct Found {
  float most = -INFINITY, total = 0, values[N] = {};

  __device__ void raise(float score) {
    if (score <= most) return;
    float shrink = __expf(most - score);
    most = score, total *= shrink;
#pragma unroll
    for (int i = 0; i < N; i++) values[i] *= shrink;
  }
  template <class T> __device__ void add(float score, const Raw<T, N>& v) {
    float weight = weightOf(score, most);
    total += weight;
#pragma unroll
    for (int i = 0; i < N; i++) values[i] += weight * v[i];
  }
  // Both lanes of a pair have what the two found together.
  __device__ void join(int step) {
    raise(__shfl_xor_sync(0xffffffffu, most, step));
    total += __shfl_xor_sync(0xffffffffu, total, step);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] += __shfl_xor_sync(0xffffffffu, values[i], step);
  }
};
