// The choice of one token from each row of logits, as sampleTokens of @sisa/core defines it, one block a row. Weights are
// summed in fixed point, so that no order of adding changes a choice.
#include "overlap.cuh"

typedef unsigned long long uint64;

const int threads = 1024;
const int warps = threads / 32;
const float leastExponent = -104;  // as in @sisa/core: what is less likely counts as equal
const float one = 17592186044416.f;  // 2^44, the weight of the likeliest token

struct Row {
  const float* logits;
  int size;
  float peak, temperature;

  __device__ float scaled(int i) const { return (logits[i] - peak) / temperature; }
  // Smaller for what is likelier.
  __device__ static uint32 keyOf(float scaled) { return __float_as_uint(-fmaxf(scaled, leastExponent) + 0.f); }
  __device__ static uint64 massOf(float scaled) { return (uint64)(expf(scaled) * one); }
};

// What is kept: keys below `key`, and of those equal to it the first `ties` by place.
struct Kept {
  uint32 key;
  int ties;
};

struct Shared {
  uint64 sums[256];
  uint64 below;
  uint32 prefix;
  uint64 warp[warps];
  int ties[warps];
};

template <bool MASS> __device__ inline uint64 worth(float scaled) { return MASS ? Row::massOf(scaled) : 1; }

// The fewest tokens, likeliest first and equal ones by place, whose worth together reaches what is wanted, of those that
// are kept already; all of those where even they do not. Digit by digit of the key.
template <bool MASS> __device__ Kept fewest(const Row& row, const Kept& from, uint64 wanted, Shared& s) {
  uint32 prefix = 0;
  uint64 below = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += threads) s.sums[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < row.size; i += threads) {
      float scaled = row.scaled(i);
      uint32 key = Row::keyOf(scaled);
      bool isIn = key <= from.key && (shift == 24 || key >> (shift + 8) == prefix);
      if (isIn) atomicAdd(&s.sums[key >> shift & 255], worth<MASS>(scaled));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 0;
      uint64 sum = below;
      while (digit < 255 && sum + s.sums[digit] < wanted) sum += s.sums[digit++];
      s.prefix = prefix << 8 | digit, s.below = sum;
    }
    __syncthreads();
    prefix = s.prefix, below = s.below;
    __syncthreads();
  }
  if (prefix >= from.key) prefix = from.key;
  uint64 each = worth<MASS>(-__uint_as_float(prefix));
  uint64 left = wanted > below ? wanted - below : 0;
  uint64 ties = each == 0 ? row.size : (left + each - 1) / each;
  int most = prefix == from.key ? from.ties : row.size;
  return {prefix, ties < most ? (int)ties : most};
}

extern "C" __global__ void __launch_bounds__(threads)
    sampleTokens(const float* logits, const float* uniform, const float* temperature, const int* topK, const float* topP,
                 int* out, int size) {
  __shared__ Shared s;
  __shared__ float best[warps];
  __shared__ int places[warps], isBad[warps];
  letNextBegin();
  waitForOthers();
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Row row = {logits + (int64)blockIdx.x * size, size, -INFINITY, temperature[blockIdx.x]};
  int place = size;
  bool bad = false;
#pragma unroll 8
  for (int i = threadIdx.x; i < size; i += threads) {
    float x = row.logits[i];
    bad |= !(x < INFINITY);
    if (x > row.peak) row.peak = x, place = i;
  }
  bad = __any_sync(0xffffffffu, bad);
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    float x = __shfl_xor_sync(0xffffffffu, row.peak, step);
    int at = __shfl_xor_sync(0xffffffffu, place, step);
    if (x > row.peak || (x == row.peak && at < place)) row.peak = x, place = at;
  }
  if (lane == 0) best[warp] = row.peak, places[warp] = place, isBad[warp] = bad;
  __syncthreads();
  for (int i = 0; i < warps; i++) {
    bad |= isBad[i];
    if (best[i] > row.peak || (best[i] == row.peak && places[i] < place)) row.peak = best[i], place = places[i];
  }
  if (bad || row.peak == -INFINITY || row.temperature <= 0) {
    if (threadIdx.x == 0) out[blockIdx.x] = bad || row.peak == -INFINITY ? -1 : place;
    return;
  }

  Kept kept = {0xffffffffu, size};
  int k = topK[blockIdx.x];
  float p = topP[blockIdx.x];
  if (k > 0 && k < size) kept = fewest<false>(row, kept, k, s);
  // A warp goes through neighbouring tokens in order.
  int each = (size + 32 * warps - 1) / (32 * warps) * 32;
  int begin = min(warp * each, size), end = min(begin + each, size);
  // Whether lane's token is kept, where `before` tokens equal to the last that is kept stand before those of the warp.
  auto isKept = [&](int i, float scaled, int& before) {
    uint32 key = i < end ? Row::keyOf(scaled) : 0xffffffffu;
    bool isTie = i < end && key == kept.key;
    uint32 all = __ballot_sync(0xffffffffu, isTie);
    int rank = before + __popc(all & ((1u << lane) - 1));
    before += __popc(all);
    return i < end && (key < kept.key || (isTie && rank < kept.ties));
  };
  auto countTies = [&]() {
    int own = 0;
    for (int i = begin + lane; i < end; i += 32) own += Row::keyOf(row.scaled(i)) == kept.key;
    own = warpSum(own);
    __syncthreads();
    if (lane == 0) s.ties[warp] = own;
    __syncthreads();
    int before = 0;
    for (int i = 0; i < warp; i++) before += s.ties[i];
    return before;
  };
  auto sumWarps = [&]() {
    int before = countTies();
    uint64 own = 0;
    for (int i = begin; i < end; i += 32) {
      float scaled = i + lane < end ? row.scaled(i + lane) : 0;
      if (isKept(i + lane, scaled, before)) own += Row::massOf(scaled);
    }
    own = warpSum(own);
    __syncthreads();
    if (lane == 0) s.warp[warp] = own;
    __syncthreads();
  };
  sumWarps();
  if (p < 1) {
    uint64 total = 0;
    for (int i = 0; i < warps; i++) total += s.warp[i];
    kept = fewest<true>(row, kept, (uint64)ceil((double)p * (double)total), s);
    sumWarps();
  }
  uint64 total = 0, running = 0;
  for (int i = 0; i < warps; i++) total += s.warp[i];
  double drawn = (double)uniform[blockIdx.x] * (double)total;
  int chosen = 0;
  while (chosen < warps - 1 && (double)(running + s.warp[chosen]) <= drawn) running += s.warp[chosen++];
  int before = countTies();
  if (warp != chosen) return;
  for (int i = begin; i < end; i += 32) {
    float scaled = i + lane < end ? row.scaled(i + lane) : 0;
    uint64 mass = isKept(i + lane, scaled, before) ? Row::massOf(scaled) : 0;
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
      uint64 other = __shfl_up_sync(0xffffffffu, mass, step);
      if (lane >= step) mass += other;
    }
    uint32 beyond = __ballot_sync(0xffffffffu, (double)(running + mass) > drawn);
    if (beyond) {
      if (lane == 0) out[blockIdx.x] = i + __ffs(beyond) - 1;
      return;
    }
    running += __shfl_sync(0xffffffffu, mass, 31);
  }
}
