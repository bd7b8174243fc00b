// The optimizer over tables of tensors: each block of threads finds the tensor that its elements belong to.
#include "common.cuh"
#include "tables.cuh"

const int ELEMENTS = 4096;  // of a block; blockElements in src/lowerings/optimizer.ts

struct AdamwEntry {
  float* parameter;
  const float* gradient;
  float* firstMoment;
  float* secondMoment;
  const float* learningRate;
  __nv_bfloat16* narrow;
  uint32 count;
  float weightDecay;
  int firstBlock;
  int unused;
};
struct AdamwTable {
  int64 count;
  AdamwEntry entries[56];
};

// One step of AdamW in the order of operations of torch.optim.AdamW, in place, with a narrow copy of each parameter.
extern "C" __global__ void adamw(const __grid_constant__ AdamwTable table, const float* firstCorrection,
                                 const float* secondCorrection, const float* gradientScale,
                                 const unsigned char* proceed, float beta1, float beta2, float epsilon) {
  const AdamwEntry& entry = table.entries[entryOf(table, blockIdx.x)];
  int64 first = (int64)(blockIdx.x - entry.firstBlock) * ELEMENTS;
  uint32 end = (uint32)min(first + ELEMENTS, (int64)entry.count);
  bool goes = *proceed;
  float rate = *entry.learningRate, scale = *gradientScale;
  float decay = 1.f - rate * entry.weightDecay, step = rate / *firstCorrection, root = sqrtf(*secondCorrection);
  auto update = [&](float& p, float g, float& m, float& v) {
    g *= scale;
    m = m * beta1 + g * (1.f - beta1);
    v = v * beta2 + g * g * (1.f - beta2);
    p = p * decay - m / (sqrtf(v) / root + epsilon) * step;
  };
  if (!goes) {
    // The copy is an output of its own: it must hold what the parameter holds.
    if (entry.narrow)
      for (uint32 i = (uint32)first + threadIdx.x; i < end; i += blockDim.x) entry.narrow[i] = __float2bfloat16_rn(entry.parameter[i]);
    return;
  }
  uint32 i = (uint32)first + threadIdx.x * 4;
  for (; i + 4 <= end; i += blockDim.x * 4) {
    float4 p = *(const float4*)(entry.parameter + i), g = *(const float4*)(entry.gradient + i);
    float4 m = *(const float4*)(entry.firstMoment + i), v = *(const float4*)(entry.secondMoment + i);
    update(p.x, g.x, m.x, v.x), update(p.y, g.y, m.y, v.y), update(p.z, g.z, m.z, v.z), update(p.w, g.w, m.w, v.w);
    *(float4*)(entry.parameter + i) = p;
    *(float4*)(entry.firstMoment + i) = m;
    *(float4*)(entry.secondMoment + i) = v;
    if (entry.narrow) {
      __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(p.x, p.y), __floats2bfloat162_rn(p.z, p.w)};
      *(uint2*)(entry.narrow + i) = *(const uint2*)pairs;
    }
  }
  for (; i < end; i++) {
    float p = entry.parameter[i], m = entry.firstMoment[i], v = entry.secondMoment[i];
    update(p, entry.gradient[i], m, v);
    entry.parameter[i] = p, entry.firstMoment[i] = m, entry.secondMoment[i] = v;
    if (entry.narrow) entry.narrow[i] = __float2bfloat16_rn(p);
  }
}

struct NormEntry {
  const void* x;
  uint32 count;
  int type;
  int firstBlock;
  int unused;
};
struct NormTable {
  int64 count;
  NormEntry entries[128];
};

// Sums of squares, one for each block of elements; then the root of the sum of all of them.
extern "C" __global__ void squareSums(const __grid_constant__ NormTable table, float* parts) {
  __shared__ float shared[32];
  const NormEntry& entry = table.entries[entryOf(table, blockIdx.x)];
  int64 first = (int64)(blockIdx.x - entry.firstBlock) * ELEMENTS;
  uint32 end = (uint32)min(first + ELEMENTS, (int64)entry.count);
  float sum = 0;
  if (entry.type == Float32 && end == (uint32)first + ELEMENTS) {
    const float4* from = (const float4*)((const float*)entry.x + first);
#pragma unroll
    for (int j = 0; j < ELEMENTS / 1024; j++) {
      float4 x = from[threadIdx.x + 256 * j];
      sum += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
    }
  } else {
    for (uint32 i = (uint32)first + threadIdx.x; i < end; i += blockDim.x) {
      float value = load<float>(entry.x, entry.type, i);
      sum += value * value;
    }
  }
  sum = blockSum(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
extern "C" __global__ void rootOfSum(const float* parts, int count, float* out) {
  __shared__ double shared[32];
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
  sum = blockSum(sum, shared);
  // Rounded to float first, so that a sum beyond float32 is infinite as it is there.
  if (threadIdx.x == 0) *out = sqrtf((float)sum);
}
