// What the two passes of attention-hopper.cu share: sizes, how a tile's importance term is taken, the order of work.
#pragma once
#include "hopper.cuh"

const float LOG2E = 1.4426950408889634f;
// The largest decay of 64 positions, as an exponent of 2, whose inverse is still used as a factor. Rounded states give
// scores that are farther off the wider states are: the widest always take each element's own decay where it is strongest.
template <int S> __device__ constexpr int steepest() { return S > 64 ? -1 : 19; }

struct AttentionSizes {
  int batches, length, heads;
  float scale, skip;
  int group;  // heads that are worked on at a time, so that their tiles stay in the L2 cache
};

// What attention-hopper.cu says of spans.
struct Spans {
  const float* decay;            // [B,H,spans * positions of a span]
  const int *firsts, *lasts;     // [B,H,spans]
  const float *cNorms, *bNorms;  // [B,H,spans], the largest norms of rows of cHat and bHat
  const int* reach;              // [B,H,spans], of queries by keys, as reachOf says; the forward pass finds its own
};

// 2^exponent, or 0 where that is too small to matter.
__device__ inline float powerOf2(int exponent) { return exponent < -126 ? 0.f : __int_as_float((min(exponent, 127) + 127) << 23); }
__device__ inline float exp2Of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline uint32 packed(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *(uint32*)&pair;
}
// A number that is the same in all lanes of a warp, so that the compiler knows it: what follows from it, such as loops and
// places in shared memory, then needs no registers of lanes.
__device__ inline int uniform(int x) { return __reduce_or_sync(0xffffffffu, x); }

// How far span `own` of a head's `count` reaches: back to the first near span of keys or, where `ahead`, on to the last of
// queries. By a warp.
__device__ inline int reachOf(const Spans& spans, const AttentionSizes& sizes, int line, int count, int own, bool ahead) {
  int start = line * count, end = ahead ? count - 1 - own : own, found = end;
  for (int from = 0; from < end && found == end; from += 32) {
    int far = from + threadIdx.x % 32, other = start + (ahead ? count - 1 - far : far);
    int I = ahead ? other : start + own, J = ahead ? start + own : other;
    // Near also where the bound is not a number.
    bool near = far < end && !(sizes.scale * powerOf2(spans.firsts[I] - spans.lasts[J]) * spans.cNorms[I] * spans.bNorms[J] <= sizes.skip);
    uint32 votes = __ballot_sync(0xffffffffu, near);
    if (votes) found = from + __ffs(votes) - 1;
  }
  return ahead ? count - 1 - found : found;
}

// Scales rows of a left operand, rounding once: what bfloat16 loses of a factor is added back.
struct RowFactors {
  __nv_bfloat162 factor[2], rest[2];
  __device__ RowFactors(float low, float high) {
    float both[2] = {low, high};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      factor[half] = __float2bfloat162_rn(both[half]);
      rest[half] = __float2bfloat162_rn(both[half] - __low2float(factor[half]));
    }
  }
  __device__ void apply(uint32 (&a)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      __nv_bfloat162& x = *(__nv_bfloat162*)&a[i];
      x = __hfma2(x, factor[i % 2], __hmul2(x, rest[i % 2]));
    }
  }
};
__device__ inline float quadSum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float quadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
// Of element i of a thread's part of a result: its row in the warp's 16 (of elements 0 and 1, or 2 and 3), its column.
__device__ inline int rowOf(int i) { return threadIdx.x % 32 / 4 + i % 4 / 2 * 8; }
__device__ inline int columnOf(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

// Where part `part` of a row of sums lies, in fours of `width` columns: of each 16 columns a thread has two pairs, eight apart,
// which are a part, and the halves of every other row are exchanged, so that two rows in shared memory have no bank in common.
__device__ inline int sumPart(int width, int row, int part) { return width > 16 ? part ^ row % 2 * 4 : part; }

// Of a row that four lanes share, each has pairs of columns in steps of eight, and gets eight columns in a row instead.
__device__ inline uint4 eightColumns(uint32 a, uint32 b, uint32 c, uint32 d) {
  auto exchange = [](uint32& low, uint32& high, int apart) {
    bool upper = threadIdx.x & apart;
    uint32 other = __shfl_xor_sync(0xffffffffu, upper ? low : high, apart);
    (upper ? low : high) = other;
  };
  exchange(a, b, 1), exchange(c, d, 1), exchange(a, c, 2), exchange(b, d, 2);
  return make_uint4(a, b, c, d);
}

// A result as left operands of the next product.
template <int N> __device__ inline void pack(uint32 (&parts)[N / 8][4], const float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) parts[i / 4][i % 4] = packed(x[2 * i], x[2 * i + 1]);
}

// How a tile's importance term is taken: left out, by factors of rows, or by each element's own decay.
enum { Far, Near, Steep };
template <int KIND> struct Kind {
  static const int value = KIND;
};

// Shared memory that a block may have, and what barriers take of it.
const int SHARED_BYTES = 227 * 1024, BARRIER_BYTES = 512;
// Places for rows that stay: those of the next piece of work come while the last is worked on, where there is room.
constexpr int rowStages(int rows, int others) { return 2 * rows + others + BARRIER_BYTES <= SHARED_BYTES ? 2 : 1; }

// A ring of places in shared memory: which one is next, and how often the ring has been passed.
template <int STAGES> struct Ring {
  int stage = 0;
  uint32 parity = 0;
  __device__ void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// A piece of work: a tile of rows of one head, longest first within a group of heads. Blocks take the next one from a
// counter, so that all end at about the same time; which block does what changes no result.
struct Work {
  int tiles, lines, group, tile, line;
  __device__ Work(const AttentionSizes& sizes, int rows)
      : tiles((sizes.length + rows - 1) / rows), lines(sizes.batches * sizes.heads), group(sizes.group) {}
  __device__ bool take(int item) {
    if (item >= tiles * lines) return false;
    int first = item / (group * tiles) * group, within = item % (group * tiles), heads = min(group, lines - first);
    tile = within / heads;
    line = first + within % heads;
    return true;
  }
};
