// The attention of attention.cu for Hopper: tiles come by the copy engine, products run on warpgroups of four warps, and
// one warp that only fetches runs ahead of those that compute. Blocks stay and take one piece of work after another.
//
//   score_ij = scale q_i.k_j + lambda_h exp(g_i - g_j) c_i.b_j                    for j <= i
//
// Positions are cut into spans, and exponents are of 2. G is g log2(e) summed from the start of the sequence on; `firsts`
// and `lasts` of a span are G at its start and end, rounded to integers. For i in span I and j in span J,
//   exp(g_i - g_j) = 2^decay_i * 2^(firsts_I - lasts_J) * 2^(lasts_J - G_j),   decay_i = G_i - firsts_I.
// bHat is b times the last factor, cHat is c times the first (and lambda / scale). The factor between them is a power of 2,
// so that scaling by it loses nothing, and forward and backward, by queries and by keys, all see the same scores. For
// J < I no factor is above 2. In a span's product with itself the one between is the inverse of the span's own decay;
// where that could leave the range of numbers (`steep`), the product is taken without decay, and each element gets its own.
// Farther than `reach` the term is below `skip` in every score and left out.
// Dao et al. 2024, arXiv:2407.08608 (asynchrony on Hopper); arXiv:2606.02332 (the score).
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

// See above.
struct Spans {
  const float* decay;          // [B,H,spans * positions of a span]
  const int *firsts, *lasts;   // [B,H,spans]
  const int* reach;            // [B,H,spans], the first near span of keys, or the last of queries in a pass by keys
};

// ---------------------------------------------------------------------------------------------------------------------
// Once for each span of each head: decay, firsts, lasts, bHat, and where wanted cHat; the largest norm of a row of each.
// g begins anew at every 64th position.
extern "C" __global__ void __launch_bounds__(256, 5)
    decaySpans(const bf16* c, const bf16* b, const float* g, const float* lambda, bf16* cHat, bf16* bHat, float* decay,
               int* firsts, int* lasts, float* cNorms, float* bNorms, const __grid_constant__ AttentionSizes sizes, int width,
               int span) {
  __shared__ float decays[192];
  __shared__ double sums[32];
  __shared__ float norms[2][8];
  int spans = gridDim.x / sizes.heads, own = blockIdx.x / sizes.heads, head = blockIdx.x % sizes.heads, batch = blockIdx.y;
  int line = batch * sizes.heads + head, T = sizes.length, first = own * span, count = min(span, T - first);
  // Two rows at a time, each by width / 8 lanes.
  int lanes = width / 8, step = 256 / lanes, row = threadIdx.x / lanes;
  int64 start = (((int64)batch * T + first) * sizes.heads + head) * width + threadIdx.x % lanes * 8, pitch = sizes.heads * width;
  uint4 cParts[2] = {}, bParts[2] = {};
  auto fetch = [&]() {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (row + i * step >= count) continue;
      cParts[i] = *(const uint4*)(c + start + (row + i * step) * pitch);
      bParts[i] = *(const uint4*)(b + start + (row + i * step) * pitch);
    }
  };
  fetch();
  const float* sequence = g + (int64)batch * T * sizes.heads + head;
  auto gOf = [&](int position) { return sequence[(int64)position * sizes.heads]; };
  double before = 0, total = 0;
  for (int block = threadIdx.x; block < first / 64; block += 256) before += gOf(block * 64 + 63);
  before = blockSum(before, sums);
  for (int last = 63; last < count; last += 64) total += gOf(first + last);
  if (count % 64 != 0) total += gOf(first + count - 1);
  const double log2e = 1.4426950408889634;
  auto rounded = [](double x) { return (int)rint(fmax(x, -1e9)); };
  int firstExponent = rounded(before * log2e), lastExponent = rounded((before + total) * log2e);
  for (int i = threadIdx.x; i < span; i += 256) {
    int at = min(i, count - 1);
    double within = gOf(first + at);
    for (int last = 63; last < at / 64 * 64; last += 64) within += gOf(first + last);
    decays[i] = (float)((before + within) * log2e - firstExponent);
    decay[((int64)line * spans + own) * span + i] = decays[i];
  }
  __syncthreads();
  float weight = lambda[head] / sizes.scale, between = (float)(lastExponent - firstExponent), cMost = 0, bMost = 0;
  auto scaled = [](uint32& pair, float factor) {
    float2 x = __bfloat1622float2(*(__nv_bfloat162*)&pair);
    x.x *= factor, x.y *= factor;
    *(__nv_bfloat162*)&pair = __floats2bfloat162_rn(x.x, x.y);
    return x.x * x.x + x.y * x.y;
  };
  for (; row - threadIdx.x / lanes < span; row += 2 * step, fetch()) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float cSquares = 0, bSquares = 0;
      if (row + i * step < count) {
        float cFactor = exp2f(decays[row + i * step]) * weight, bFactor = exp2f(between - decays[row + i * step]);
        uint4 &x = cParts[i], &y = bParts[i];
        cSquares = scaled(x.x, cFactor) + scaled(x.y, cFactor) + scaled(x.z, cFactor) + scaled(x.w, cFactor);
        bSquares = scaled(y.x, bFactor) + scaled(y.y, bFactor) + scaled(y.z, bFactor) + scaled(y.w, bFactor);
        if (cHat) *(uint4*)(cHat + start + (row + i * step) * pitch) = x;
        *(uint4*)(bHat + start + (row + i * step) * pitch) = y;
      }
      for (int apart = 1; apart < lanes; apart *= 2) {
        cSquares += __shfl_xor_sync(0xffffffffu, cSquares, apart);
        bSquares += __shfl_xor_sync(0xffffffffu, bSquares, apart);
      }
      cMost = fmaxf(cMost, sqrtf(cSquares));
      bMost = fmaxf(bMost, sqrtf(bSquares));
    }
  }
  cMost = warpMax(cMost), bMost = warpMax(bMost);
  if (threadIdx.x % 32 == 0) norms[0][threadIdx.x / 32] = cMost, norms[1][threadIdx.x / 32] = bMost;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; i++) cMost = fmaxf(cMost, norms[0][i]), bMost = fmaxf(bMost, norms[1][i]);
    int64 place = (int64)line * spans + own;
    firsts[place] = firstExponent, lasts[place] = lastExponent;
    cNorms[place] = cMost, bNorms[place] = bMost;
  }
}

// 2^exponent, or 0 where that is too small to matter.
__device__ inline float powerOf2(int exponent) { return exponent < -126 ? 0.f : __int_as_float((min(exponent, 127) + 127) << 23); }

// How far each span reaches, back to keys or, where `ahead`, on to queries. One warp for each span.
extern "C" __global__ void decayReach(const int* firsts, const int* lasts, const float* cNorms, const float* bNorms, int* reach,
                                      const __grid_constant__ AttentionSizes sizes, int spans, int ahead) {
  int own = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (own >= spans) return;
  int64 base = (int64)blockIdx.y * spans;
  int end = ahead ? spans - 1 - own : own, found = end;
  for (int from = 0; from < end && found == end; from += 32) {
    int far = from + lane, other = ahead ? spans - 1 - far : far, I = ahead ? other : own, J = ahead ? own : other;
    // Near also where the bound is not a number.
    bool near = far < end && !(sizes.scale * powerOf2(firsts[base + I] - lasts[base + J]) * cNorms[base + I] * bNorms[base + J] <= sizes.skip);
    uint32 votes = __ballot_sync(0xffffffffu, near);
    if (votes) found = from + __ffs(votes) - 1;
  }
  if (lane == 0) reach[base + own] = ahead ? spans - 1 - found : found;
}

// ---------------------------------------------------------------------------------------------------------------------
// What the backward pass needs of each query: LOG2E logSumExp, and delta, the sum over the width of out and its gradient.
// [B,H,blocks of 64,2,64]; rows beyond the sequence get infinity and 0. One group of width / 8 lanes for each row.
extern "C" __global__ void attentionRows(const bf16* out, const bf16* gradient, const float* logSumExp, float* rows,
                                         const __grid_constant__ AttentionSizes sizes, int width) {
  int lanes = width / 8, lane = threadIdx.x % lanes, T = sizes.length, padded = (T + 63) / 64 * 64;
  int64 count = (int64)sizes.batches * padded * sizes.heads;
  for (int64 row = ((int64)blockIdx.x * blockDim.x + threadIdx.x) / lanes; row < count; row += (int64)gridDim.x * blockDim.x / lanes) {
    int head = row % sizes.heads, position = row / sizes.heads % padded, batch = row / sizes.heads / padded;
    float sum = 0;
    if (position < T) {
      int64 place = (((int64)batch * T + position) * sizes.heads + head) * width + lane * 8;
      uint4 x = *(const uint4*)(out + place), y = *(const uint4*)(gradient + place);
      auto product = [](uint32 a, uint32 b) {
        float2 left = __bfloat1622float2(*(__nv_bfloat162*)&a), right = __bfloat1622float2(*(__nv_bfloat162*)&b);
        return left.x * right.x + left.y * right.y;
      };
      sum = product(x.x, y.x) + product(x.y, y.y) + product(x.z, y.z) + product(x.w, y.w);
    }
    for (int step = 1; step < lanes; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane != 0) continue;
    int64 line = batch * sizes.heads + head;
    float* target = rows + (line * (padded / 64) + position / 64) * 128 + position % 64;
    target[0] = position < T ? logSumExp[line * T + position] * LOG2E : INFINITY;
    target[64] = sum;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
__device__ inline float exp2Of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline uint32 packed(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *(uint32*)&pair;
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

// ---------------------------------------------------------------------------------------------------------------------
// WARPGROUPS of 64 queries each, which are one span; N keys at a time.
template <int D, int S, int WARPGROUPS, int N, int STAGES> struct Forward {
  static const int SW = S ? S : 16, ROWS = 64 * WARPGROUPS;
  typedef SharedTile<D, ROWS> Queries;
  typedef SharedTile<SW, ROWS> Reads;
  typedef SharedTile<D, N> Keys;
  typedef SharedTile<SW, N> Writes;
  static_assert(S == 0 || ROWS % N == 0, "a tile of keys lies in one span");
  static const int WRITES = S ? Writes::BYTES : 0;
  static const int FIXED = Queries::BYTES + (S ? Reads::BYTES : 0), STAGE = 2 * Keys::BYTES + WRITES;

  
  uint32 memory, barriers;
  volatile int* item;  // the piece of work that the queries are of
  __device__ Forward() {
    extern __shared__ unsigned char shared[];
    memory = (addressOf(shared) + 1023) / 1024 * 1024;
    barriers = memory + FIXED + STAGES * STAGE;
    item = (volatile int*)(shared + barriers + 256 - addressOf(shared));
  }
  __device__ Queries queries() const { return {memory}; }
  __device__ Reads reads() const { return {memory + Queries::BYTES}; }
  __device__ Keys keys(int stage) const { return {memory + FIXED + stage * STAGE}; }
  __device__ Keys values(int stage) const { return {memory + FIXED + stage * STAGE + Keys::BYTES}; }
  __device__ Writes writes(int stage) const { return {memory + FIXED + stage * STAGE + 2 * Keys::BYTES}; }
  __device__ uint32 rowsFull() const { return barriers; }
  __device__ uint32 rowsEmpty() const { return barriers + 8; }
  __device__ uint32 keysFull(int stage) const { return barriers + 32 + 32 * stage; }
  __device__ uint32 keysEmpty(int stage) const { return barriers + 40 + 32 * stage; }
  __device__ uint32 valuesFull(int stage) const { return barriers + 48 + 32 * stage; }
  __device__ uint32 valuesEmpty(int stage) const { return barriers + 56 + 32 * stage; }
  __device__ void start() const {
    if (threadIdx.x == 0) {
      startBarrier(rowsFull(), 1);
      startBarrier(rowsEmpty(), 4 * WARPGROUPS);
      for (int stage = 0; stage < STAGES; stage++) {
        startBarrier(keysFull(stage), 1);
        startBarrier(keysEmpty(stage), 4 * WARPGROUPS);
        startBarrier(valuesFull(stage), 1);
        startBarrier(valuesEmpty(stage), 4 * WARPGROUPS);
      }
      fenceBarriers();
    }
    __syncthreads();
  }
};

template <int D, int S, int WARPGROUPS, int N, int STAGES>
__device__ void attentionForward(const TensorMap& qMap, const TensorMap& kMap, const TensorMap& vMap, const TensorMap& cMap,
                                 const TensorMap& bMap, const TensorMap& bHatMap, const float* lambda, const Spans& spans,
                                 int* counter, bf16* out, float* logSumExp, const AttentionSizes& sizes) {
  typedef Forward<D, S, WARPGROUPS, N, STAGES> Layout;
  const int SPAN = Layout::ROWS;
  Layout layout;
  layout.start();
  int T = sizes.length, keyTiles = (T + N - 1) / N, warpgroup = threadIdx.x / 128;
  Work work(sizes, SPAN);
  Ring<1> rows;
  Ring<STAGES> ring;
  // The longest first.
  auto ownSpan = [&]() { return work.tiles - 1 - work.tile; };
  auto lastTile = [&](int first) { return min((first + SPAN - 1) / N, keyTiles - 1); };
  auto isSteep = [&](int span) {
    int place = work.line * work.tiles + span;
    return spans.firsts[place] - spans.lasts[place] > steepest<S>() * (SPAN / 64);
  };

  if (warpgroup == 0) {
    giveRegisters<WARPGROUPS == 3 ? 32 : 24>();
    if (threadIdx.x != 0) return;
    int upcoming = blockIdx.x;
    while (true) {
      wait(layout.rowsEmpty(), rows.parity ^ 1);
      *layout.item = upcoming;
      if (!work.take(upcoming)) {
        arrive(layout.rowsFull());
        return;
      }
      upcoming = gridDim.x + atomicAdd(counter, 1);
      int own = ownSpan(), first = own * SPAN, head = work.line % sizes.heads, batch = work.line / sizes.heads;
      arriveExpecting(layout.rowsFull(), Layout::FIXED);
      layout.queries().copy(qMap, head, first, batch, layout.rowsFull());
      if (S) layout.reads().copy(cMap, head, first, batch, layout.rowsFull());
      rows.next();
      int near = S ? spans.reach[work.line * work.tiles + own] : 0;
      bool steep = S && isSteep(own);
      for (int n = lastTile(first); n >= 0; n--) {
        bool withWrites = S && n * N >= near * SPAN;
        wait(layout.keysEmpty(ring.stage), ring.parity ^ 1);
        arriveExpecting(layout.keysFull(ring.stage), Layout::Keys::BYTES + (withWrites ? Layout::WRITES : 0));
        layout.keys(ring.stage).copy(kMap, head, n * N, batch, layout.keysFull(ring.stage));
        if (withWrites) layout.writes(ring.stage).copy(steep && n * N >= first ? bMap : bHatMap, head, n * N, batch, layout.keysFull(ring.stage));
        wait(layout.valuesEmpty(ring.stage), ring.parity ^ 1);
        arriveExpecting(layout.valuesFull(ring.stage), Layout::Keys::BYTES);
        layout.values(ring.stage).copy(vMap, head, n * N, batch, layout.valuesFull(ring.stage));
        ring.next();
      }
    }
    return;
  }

  takeRegisters<WARPGROUPS == 3 ? 160 : 240>();
  int local = (warpgroup - 1) * 64, warpRow = local + threadIdx.x % 128 / 32 * 16;
  bool speaks = threadIdx.x % 32 == 0;
  float factor = sizes.scale * LOG2E;
  while (true) {
    wait(layout.rowsFull(), rows.parity);
    rows.next();
    if (!work.take(*layout.item)) return;
    int own = ownSpan(), first = own * SPAN, head = work.line % sizes.heads, batch = work.line / sizes.heads;
    int row = first + warpRow, near = 0;
    const float* decay = spans.decay + (int64)(work.line * work.tiles + own) * SPAN;
    float rowFactor[2] = {};
    bool steep = false;
    if (S) {
      near = spans.reach[work.line * work.tiles + own];
      steep = isSteep(own);
      float weight = lambda[head] / sizes.scale;
#pragma unroll
      for (int half = 0; half < 2; half++) rowFactor[half] = exp2f(decay[warpRow + rowOf(half * 2)]) * weight;
    }
    // Keys that only later warpgroups see.
    int n = lastTile(first);
    for (int least = first + local < T ? min((first + local + 63) / N, keyTiles - 1) : -1; n > least; n--) {
      wait(layout.keysFull(ring.stage), ring.parity);
      if (speaks) arrive(layout.keysEmpty(ring.stage));
      wait(layout.valuesFull(ring.stage), ring.parity);
      if (speaks) arrive(layout.valuesEmpty(ring.stage));
      ring.next();
    }
    if (n < 0) {
      if (speaks) arrive(layout.rowsEmpty());
      continue;
    }

    float s[N / 2], o[D / 2], most[2], total[2];
    uint32 p[N / 16][4];
    // Starts the scores of a tile.
    auto startScores = [&](int n, int stage, auto kind) {
      if constexpr (kind.value == Steep) {
        pin(s);
        beginProducts();
#pragma unroll
        for (int k = 0; k < S; k += 16) multiply<0>(s, layout.reads().byRow(local, k), layout.writes(stage).byRow(0, k), k > 0);
        commitProducts();
        waitProducts<0>();
        pin(s);
        const float* rowDecay = decay + warpRow + threadIdx.x % 32 / 4;
        const float* keyDecay = decay + n * N - first + threadIdx.x % 4 * 2;
        float weight = lambda[head] / sizes.scale;
#pragma unroll
        for (int i = 0; i < N / 2; i++)
          s[i] *= weight * exp2Of(fminf(rowDecay[i % 4 / 2 * 8] - keyDecay[i / 4 * 8 + i % 2], 0.f));
      }
      uint32 a[Layout::SW / 16][4];
      if constexpr (kind.value == Near) {
        float f = powerOf2(spans.firsts[work.line * work.tiles + own] - spans.lasts[work.line * work.tiles + n * N / SPAN]);
        RowFactors scale(rowFactor[0] * f, rowFactor[1] * f);
#pragma unroll
        for (int k = 0; k < S; k += 16) {
          layout.reads().left(a[k / 16], warpRow, k);
          scale.apply(a[k / 16]);
        }
      }
      pin(s);
      beginProducts();
      if constexpr (kind.value == Near)
#pragma unroll
        for (int k = 0; k < S; k += 16) multiply<0>(s, a[k / 16], layout.writes(stage).byRow(0, k), k > 0);
#pragma unroll
      for (int k = 0; k < D; k += 16)
        multiply<0>(s, layout.queries().byRow(local, k), layout.keys(stage).byRow(0, k), k > 0 || kind.value != Far);
      commitProducts();
    };
    auto hideLater = [&](int n) {
#pragma unroll
      for (int i = 0; i < N / 2; i++)
        if (n * N + columnOf(i) > row + rowOf(i)) s[i] = -INFINITY;
    };
    auto startSums = [&](int stage, int add) {
      pin(o);
      beginProducts();
#pragma unroll
      for (int k = 0; k < N; k += 16) multiply<1>(o, p[k / 16], layout.values(stage).byColumn(k), k > 0 || add);
      commitProducts();
    };

    wait(layout.keysFull(ring.stage), ring.parity);
    auto finishScores = [&](auto kind) {
      startScores(n, ring.stage, kind);
      waitProducts<0>();
      pin(s);
    };
    if (steep) finishScores(Kind<S ? Steep : Far>());
    else finishScores(Kind<S ? Near : Far>());
    if (speaks) arrive(layout.keysEmpty(ring.stage));
    hideLater(n);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float largest = -INFINITY;
#pragma unroll
      for (int i = half * 2; i < N / 2; i += 4) largest = fmaxf(largest, fmaxf(s[i], s[i + 1]));
      most[half] = quadMax(largest);
      // A row that begins in the tile before sees nothing of this one.
      float offset = most[half] == -INFINITY ? 0.f : most[half] * factor, sum = 0;
#pragma unroll
      for (int i = half * 2; i < N / 2; i += 4) {
        sum += s[i] = exp2Of(s[i] * factor - offset);
        sum += s[i + 1] = exp2Of(s[i + 1] * factor - offset);
      }
      total[half] = sum;
    }
    pack<N / 2>(p, s);
    int add = 0;
    // Scores of tile n while values of the tile before are summed.
    auto addTile = [&](int n, auto kind) {
      int stage = ring.stage;
      uint32 parity = ring.parity;
      ring.next();
      wait(layout.keysFull(ring.stage), ring.parity);
      startScores(n, ring.stage, kind);
      wait(layout.valuesFull(stage), parity);
      startSums(stage, add);
      add = 1;
      waitProducts<1>();
      pin(s);
      if (speaks) arrive(layout.keysEmpty(ring.stage));
      // A tile of keys that is not as wide as a power of 2 may end within the queries of a warpgroup, so that two are cut.
      if (64 % N != 0 && N % 64 != 0 && n * N + N > first + local) hideLater(n);
      float fix[2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float largest = most[half];
#pragma unroll
        for (int i = half * 2; i < N / 2; i += 4) largest = fmaxf(largest, fmaxf(s[i], s[i + 1]));
        largest = quadMax(largest);
        fix[half] = exp2Of((most[half] - largest) * factor);
        most[half] = largest;
        float offset = largest * factor, sum = 0;
#pragma unroll
        for (int i = half * 2; i < N / 2; i += 4) {
          sum += s[i] = exp2Of(s[i] * factor - offset);
          sum += s[i + 1] = exp2Of(s[i + 1] * factor - offset);
        }
        total[half] = total[half] * fix[half] + sum;
      }
      waitProducts<0>();
      pin(o);
      if (speaks) arrive(layout.valuesEmpty(stage));
#pragma unroll
      for (int i = 0; i < D / 2; i++) o[i] *= fix[i % 4 / 2];
      pack<N / 2>(p, s);
    };
    n--;
    if constexpr (S > 0 && SPAN > N)
      for (; steep && n * N >= first; n--) addTile(n, Kind<Steep>());
    if constexpr (S > 0)
      for (; n * N >= near * SPAN; n--) addTile(n, Kind<Near>());
    for (; n >= 0; n--) addTile(n, Kind<Far>());
    if (speaks) arrive(layout.rowsEmpty());
    wait(layout.valuesFull(ring.stage), ring.parity);
    startSums(ring.stage, add);
    waitProducts<0>();
    pin(o);
    if (speaks) arrive(layout.valuesEmpty(ring.stage));
    ring.next();

#pragma unroll
    for (int half = 0; half < 2; half++) {
      int position = row + rowOf(half * 2);
      float sum = quadSum(total[half]), inverse = 1.f / sum;
      if (position >= T) continue;
      bf16* target = out + (((int64)batch * T + position) * sizes.heads + head) * D;
#pragma unroll
      for (int i = half * 2; i < D / 2; i += 4) *(uint32*)(target + columnOf(i)) = packed(o[i] * inverse, o[i + 1] * inverse);
      if (threadIdx.x % 4 == 0) logSumExp[(int64)work.line * T + position] = (most[half] * factor + log2f(sum)) / LOG2E;
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Two warpgroups, each with 64 rows that stay, of queries or of keys; N of the other side at a time, from far to near.
template <int D, int S, bool KEYS, int N, int STAGES> struct Backward {
  static const int SW = S ? S : 16, ROWS = 128;
  typedef SharedTile<D, ROWS> Wide;
  typedef SharedTile<SW, ROWS> Narrow;
  typedef SharedTile<D, N> OtherWide;
  typedef SharedTile<SW, N> OtherNarrow;
  static const int NARROW = S ? OtherNarrow::BYTES : 0, LINES = KEYS ? 8 * N : 0;
  static const int FIXED = 2 * Wide::BYTES + (S ? Narrow::BYTES : 0), STAGE = 2 * OtherWide::BYTES + NARROW;
  static const int BYTES = FIXED + STAGES * (STAGE + LINES) + 1024 + 512;

  uint32 memory, lineMemory, barriers;
  volatile int* item;  // the piece of work that the rows are for
  __device__ Backward() {
    extern __shared__ unsigned char shared[];
    memory = (addressOf(shared) + 1023) / 1024 * 1024;
    lineMemory = memory + FIXED + STAGES * STAGE;
    barriers = lineMemory + STAGES * LINES;
    item = (volatile int*)(shared + barriers + 256 - addressOf(shared));
  }
  // Of queries: q, the gradient of out, c. Of keys: k, v, b.
  __device__ Wide first() const { return {memory}; }
  __device__ Wide second() const { return {memory + Wide::BYTES}; }
  __device__ Narrow narrow() const { return {memory + 2 * Wide::BYTES}; }
  __device__ OtherWide otherFirst(int stage) const { return {memory + FIXED + stage * STAGE}; }
  __device__ OtherWide otherSecond(int stage) const { return {memory + FIXED + stage * STAGE + OtherWide::BYTES}; }
  __device__ OtherNarrow otherNarrow(int stage) const { return {memory + FIXED + stage * STAGE + 2 * OtherWide::BYTES}; }
  // What attentionRows made, of the queries that pass by keys.
  __device__ uint32 lines(int stage) const { return lineMemory + stage * LINES; }
  __device__ uint32 rowsFull() const { return barriers; }
  __device__ uint32 rowsEmpty() const { return barriers + 8; }
  __device__ uint32 full(int stage) const { return barriers + 16 + 16 * stage; }
  __device__ uint32 empty(int stage) const { return barriers + 24 + 16 * stage; }
  __device__ void start() const {
    if (threadIdx.x == 0) {
      startBarrier(rowsFull(), 1);
      startBarrier(rowsEmpty(), 8);
      for (int stage = 0; stage < STAGES; stage++) startBarrier(full(stage), 1), startBarrier(empty(stage), 8);
      fenceBarriers();
    }
    __syncthreads();
  }
};

__device__ inline float2 loadPair(uint32 address) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(address));
  return x;
}

// Gradients of one side: of queries by `first` = q and narrow = c, or of keys by `first` = k, `second` = v and narrow = b.
// Rows of results are of that side. `dot` is narrow . its gradient, which g gets, [B,T,H].
template <int D, int S, bool KEYS, int N, int STAGES>
__device__ void attentionBackward(const TensorMap& firstMap, const TensorMap& secondMap, const TensorMap& narrowMap,
                                  const TensorMap& otherFirstMap, const TensorMap& otherSecondMap, const TensorMap& otherNarrowMap,
                                  const TensorMap& otherHatMap, const float* lambda, const Spans& spans, int* counter, const float* lineData,
                                  bf16* dFirst, bf16* dSecond, bf16* dNarrow, float* dot, const AttentionSizes& sizes,
                                  int firstPitch, int secondPitch) {
  typedef Backward<D, S, KEYS, N, STAGES> Layout;
  Layout layout;
  layout.start();
  const int SW = Layout::SW, SPAN = Layout::ROWS;
  int T = sizes.length, tiles = (T + N - 1) / N, blocks = (T + 63) / 64, warpgroup = threadIdx.x / 128;
  Work work(sizes, SPAN);
  Ring<1> rows;
  Ring<STAGES> ring;
  // Long ones first: the last queries, or the first keys.
  auto ownSpan = [&]() { return KEYS ? work.tile : work.tiles - 1 - work.tile; };
  // Tiles that a row from `first` on meets, the farthest first.
  auto stepsOf = [&](int first) { return KEYS ? tiles - first / N : min(first / N + 1, tiles); };
  auto tileOf = [&](int step) { return KEYS ? tiles - 1 - step : step; };
  auto isNear = [&](int n, int reach) { return S > 0 && (KEYS ? n * N / SPAN <= reach : n * N / SPAN >= reach); };
  auto isSteep = [&](int span) {
    int place = work.line * work.tiles + span;
    return spans.firsts[place] - spans.lasts[place] > steepest<S>() * (SPAN / 64);
  };

  if (warpgroup == 0) {
    giveRegisters<24>();
    if (threadIdx.x != 0) return;
    int upcoming = blockIdx.x;
    while (true) {
      wait(layout.rowsEmpty(), rows.parity ^ 1);
      *layout.item = upcoming;
      if (!work.take(upcoming)) {
        arrive(layout.rowsFull());
        return;
      }
      upcoming = gridDim.x + atomicAdd(counter, 1);
      int span = ownSpan(), first = span * SPAN, head = work.line % sizes.heads, batch = work.line / sizes.heads;
      arriveExpecting(layout.rowsFull(), Layout::FIXED);
      layout.first().copy(firstMap, head, first, batch, layout.rowsFull());
      layout.second().copy(secondMap, head, first, batch, layout.rowsFull());
      int reach = 0;
      bool steep = false;
      if (S) {
        layout.narrow().copy(narrowMap, head, first, batch, layout.rowsFull());
        reach = spans.reach[work.line * work.tiles + span];
        steep = isSteep(span);
      }
      rows.next();
      int steps = stepsOf(KEYS ? first : min(first + SPAN, T) - 1);
      for (int step = 0; step < steps; step++) {
        int n = tileOf(step);
        bool withNarrow = isNear(n, reach);
        uint32 full = layout.full(ring.stage);
        wait(layout.empty(ring.stage), ring.parity ^ 1);
        arriveExpecting(full, 2 * Layout::OtherWide::BYTES + Layout::LINES + (withNarrow ? Layout::NARROW : 0));
        layout.otherFirst(ring.stage).copy(otherFirstMap, head, n * N, batch, full);
        layout.otherSecond(ring.stage).copy(otherSecondMap, head, n * N, batch, full);
        if (withNarrow) layout.otherNarrow(ring.stage).copy(steep && n * N / SPAN == span ? otherNarrowMap : otherHatMap, head, n * N, batch, full);
        if (KEYS) {
          const float* lines = lineData + ((int64)work.line * blocks + n * N / 64) * 128 + n * N % 64;
          copyBytes(layout.lines(ring.stage), lines, Layout::LINES / 2, full);
          copyBytes(layout.lines(ring.stage) + Layout::LINES / 2, lines + 64, Layout::LINES / 2, full);
        }
        ring.next();
      }
    }
    return;
  }

  takeRegisters<240>();
  int local = (warpgroup - 1) * 64, warpRow = local + threadIdx.x % 128 / 32 * 16;
  bool speaks = threadIdx.x % 32 == 0;
  float factor = sizes.scale * LOG2E;
  while (true) {
    wait(layout.rowsFull(), rows.parity);
    rows.next();
    if (!work.take(*layout.item)) return;
    int span = ownSpan(), first = span * SPAN, head = work.line % sizes.heads, batch = work.line / sizes.heads;
    int row = first + warpRow, reach = 0;
    bool steep = false;
    const int *firsts = spans.firsts + work.line * work.tiles, *lasts = spans.lasts + work.line * work.tiles;
    const float* decay = spans.decay + (int64)(work.line * work.tiles + span) * SPAN;
    float rowFactor[2] = {}, weight = 0;
    if (S) {
      reach = spans.reach[work.line * work.tiles + span];
      steep = isSteep(span);
      weight = lambda[head] / sizes.scale;
      float between = (float)(lasts[span] - firsts[span]);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float own = decay[warpRow + rowOf(half * 2)];
        rowFactor[half] = KEYS ? exp2f(between - own) : exp2f(own) * weight;
      }
    }
    // The factor between the spans of tile n and of rows.
    auto between = [&](int n) { return powerOf2(KEYS ? firsts[n * N / SPAN] - lasts[span] : firsts[span] - lasts[n * N / SPAN]); };
    float lse[2] = {}, delta[2] = {};
    if (!KEYS && first + local < T) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int position = row + rowOf(half * 2);
        const float* own = lineData + ((int64)work.line * blocks + position / 64) * 128 + position % 64;
        lse[half] = own[0], delta[half] = own[64];
      }
    }
    int allSteps = stepsOf(KEYS ? first : min(first + SPAN, T) - 1);
    // Tiles that only the other warpgroup meets.
    auto passOthers = [&](int steps) {
      for (int step = steps; step < allSteps; step++) {
        wait(layout.full(ring.stage), ring.parity);
        if (speaks) arrive(layout.empty(ring.stage));
        ring.next();
      }
    };
    if (first + local >= T) {
      passOthers(0);
      if (speaks) arrive(layout.rowsEmpty());
      continue;
    }
    int steps = stepsOf(first + local);

    float s[N / 2], dp[N / 2], d1[D / 2], d2[KEYS ? D / 2 : 1], d3[SW / 2];
    uint32 p[KEYS ? N / 16 : 1][4], ds[N / 16][4], decayed[N / 16][4];
#pragma unroll
    for (int i = 0; i < D / 2; i++) d1[i] = 0;
    if (KEYS)
#pragma unroll
      for (int i = 0; i < D / 2; i++) d2[i] = 0;
    if (S)
#pragma unroll
      for (int i = 0; i < SW / 2; i++) d3[i] = 0;

    // For a tile n of the rows' own span, each element's decay.
    auto scaleByDecay = [&](float(&x)[N / 2], int n, float weight) {
      const float* rowDecay = decay + warpRow + threadIdx.x % 32 / 4;
      const float* otherDecay = decay + n * N - first + threadIdx.x % 4 * 2;
#pragma unroll
      for (int i = 0; i < N / 2; i++) {
        float apart = rowDecay[i % 4 / 2 * 8] - otherDecay[i / 4 * 8 + i % 2];
        x[i] *= weight * exp2Of(fminf(KEYS ? -apart : apart, 0.f));
      }
    };
    // Starts the scores of tile n, then the products of gradients and values.
    auto start = [&](int n, int stage, auto kind) {
      if constexpr (kind.value == Steep) {
        pin(s);
        beginProducts();
#pragma unroll
        for (int k = 0; k < S; k += 16) multiply<0>(s, layout.narrow().byRow(local, k), layout.otherNarrow(stage).byRow(0, k), k > 0);
        commitProducts();
        waitProducts<0>();
        pin(s);
        scaleByDecay(s, n, weight);
      }
      uint32 a[SW / 16][4];
      if constexpr (kind.value == Near) {
        float f = between(n);
        RowFactors scale(rowFactor[0] * f, rowFactor[1] * f);
#pragma unroll
        for (int k = 0; k < S; k += 16) {
          layout.narrow().left(a[k / 16], warpRow, k);
          scale.apply(a[k / 16]);
        }
      }
      pin(s);
      beginProducts();
      if constexpr (kind.value == Near)
#pragma unroll
        for (int k = 0; k < S; k += 16) multiply<0>(s, a[k / 16], layout.otherNarrow(stage).byRow(0, k), k > 0);
#pragma unroll
      for (int k = 0; k < D; k += 16)
        multiply<0>(s, layout.first().byRow(local, k), layout.otherFirst(stage).byRow(0, k), k > 0 || kind.value != Far);
      commitProducts();
      pin(dp);
      beginProducts();
#pragma unroll
      for (int k = 0; k < D; k += 16) multiply<0>(dp, layout.second().byRow(local, k), layout.otherSecond(stage).byRow(0, k), k > 0);
      commitProducts();
    };

    // From the scores of tile n to products with them. They go on until waited for.
    auto addTile = [&](int n, int stage, auto kind) {
      waitProducts<1>();
      pin(s);
      uint32 lines = layout.lines(stage) + threadIdx.x % 4 * 8;
#pragma unroll
      for (int i = 0; i < N / 2; i += 4) {
        float2 own = KEYS ? loadPair(lines + i / 4 * 32) : make_float2(0, 0);
        s[i] = exp2Of(s[i] * factor - (KEYS ? own.x : lse[0]));
        s[i + 1] = exp2Of(s[i + 1] * factor - (KEYS ? own.y : lse[0]));
        s[i + 2] = exp2Of(s[i + 2] * factor - (KEYS ? own.x : lse[1]));
        s[i + 3] = exp2Of(s[i + 3] * factor - (KEYS ? own.y : lse[1]));
      }
      if (KEYS ? n * N < first + local + 64 : n * N + N > first + local) {
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
          int apart = n * N + columnOf(i) - row - rowOf(i);
          if (KEYS ? apart < 0 : apart > 0) s[i] = 0;
        }
      }
      waitProducts<0>();
      pin(dp);
      if constexpr (S > 0) pin(d3);
#pragma unroll
      for (int i = 0; i < N / 2; i += 4) {
        float2 own = KEYS ? loadPair(lines + Layout::LINES / 2 + i / 4 * 32) : make_float2(0, 0);
        dp[i] = s[i] * (dp[i] - (KEYS ? own.x : delta[0]));
        dp[i + 1] = s[i + 1] * (dp[i + 1] - (KEYS ? own.y : delta[0]));
        dp[i + 2] = s[i + 2] * (dp[i + 2] - (KEYS ? own.x : delta[1]));
        dp[i + 3] = s[i + 3] * (dp[i + 3] - (KEYS ? own.y : delta[1]));
      }
      if constexpr (KEYS) pack<N / 2>(p, s);
      pack<N / 2>(ds, dp);
      pin(d1);
      if constexpr (KEYS) pin(d2);
      beginProducts();
#pragma unroll
      for (int k = 0; k < N; k += 16) multiply<1>(d1, ds[k / 16], layout.otherFirst(stage).byColumn(k), 1);
      if constexpr (KEYS)
#pragma unroll
        for (int k = 0; k < N; k += 16) multiply<1>(d2, p[k / 16], layout.otherSecond(stage).byColumn(k), 1);
      commitProducts();
      if constexpr (kind.value != Far) {
        if constexpr (kind.value == Steep) {
          scaleByDecay(dp, n, weight);
        } else {
          float f = between(n);
#pragma unroll
          for (int i = 0; i < N / 2; i++) dp[i] *= f;
        }
        pack<N / 2>(decayed, dp);
        pin(d3);
        beginProducts();
#pragma unroll
        for (int k = 0; k < N; k += 16) multiply<1>(d3, decayed[k / 16], layout.otherNarrow(stage).byColumn(k), 1);
        commitProducts();
      }
    };
    auto pinAll = [&]() {
      pin(d1);
      if constexpr (KEYS) pin(d2);
      if constexpr (S > 0) pin(d3);
    };
    // Steps of one kind. Products of one tile go on while those of the next begin.
    auto run = [&](int from, int to, auto kind) {
      if (from >= to) return;
      wait(layout.full(ring.stage), ring.parity);
      start(tileOf(from), ring.stage, kind);
      for (int step = from;; step++) {
        int stage = ring.stage;
        addTile(tileOf(step), stage, kind);
        ring.next();
        if (step + 1 == to) {
          waitProducts<0>();
          pinAll();
          if (speaks) arrive(layout.empty(stage));
          break;
        }
        wait(layout.full(ring.stage), ring.parity);
        start(tileOf(step + 1), ring.stage, kind);
        waitProducts<2>();
        pinAll();
        if (speaks) arrive(layout.empty(stage));
      }
    };
    if constexpr (S > 0) {
      int far = 0;
      while (!isNear(tileOf(far), reach)) far++;
      int others = steep ? max(KEYS ? tiles - (first + SPAN) / N : first / N, 0) : steps;
      run(0, far, Kind<Far>());
      run(far, others, Kind<Near>());
      // Sums so far lack the factors of their own rows.
#pragma unroll
      for (int i = 0; i < SW / 2; i++) d3[i] *= rowFactor[i % 4 / 2];
      run(others, steps, Kind<Steep>());
    } else {
      run(0, steps, Kind<Far>());
    }
    passOthers(steps);
    if constexpr (S > 0) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int position = row + rowOf(half * 2);
        int64 place = ((int64)batch * T + position) * sizes.heads + head;
        float sum = 0;
#pragma unroll
        for (int i = half * 2; i < SW / 2; i += 4) {
          float low = d3[i] * sizes.scale, high = d3[i + 1] * sizes.scale;
          __nv_bfloat162 own = layout.narrow().pair(warpRow + rowOf(i), columnOf(i));
          sum += low * __low2float(own) + high * __high2float(own);
          if (position < T) *(uint32*)(dNarrow + place * S + columnOf(i)) = packed(low, high);
        }
        sum = quadSum(sum);
        if (threadIdx.x % 4 == 0 && position < T) dot[place] = sum;
      }
    }
    if (speaks) arrive(layout.rowsEmpty());
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int position = row + rowOf(half * 2);
      if (position >= T) continue;
      bf16* firstRow = dFirst + ((int64)batch * T + position) * firstPitch + head * D;
      bf16* secondRow = dSecond + ((int64)batch * T + position) * secondPitch + head * D;
#pragma unroll
      for (int i = half * 2; i < D / 2; i += 4) {
        *(uint32*)(firstRow + columnOf(i)) = packed(d1[i] * sizes.scale, d1[i + 1] * sizes.scale);
        if constexpr (KEYS) *(uint32*)(secondRow + columnOf(i)) = packed(d2[i], d2[i + 1]);
      }
    }
  }
}

#define FORWARD(D, S, WARPGROUPS, N, STAGES)                                                                           \
  extern "C" __global__ void __launch_bounds__(128 * (WARPGROUPS + 1), 1)                                              \
      attentionForwardHopper_##D##_##S##_##WARPGROUPS##_##N##_##STAGES(                                                \
          const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v, \
          const __grid_constant__ TensorMap c, const __grid_constant__ TensorMap b,                                    \
          const __grid_constant__ TensorMap bHat, const float* lambda, const float* decay, const int* firsts,          \
          const int* lasts, const int* reach, int* counter, bf16* out, float* logSumExp,                               \
          const __grid_constant__ AttentionSizes sizes) {                                                              \
    attentionForward<D, S, WARPGROUPS, N, STAGES>(q, k, v, c, b, bHat, lambda, Spans{decay, firsts, lasts, reach},     \
                                                  counter, out, logSumExp, sizes);                                     \
  }
#define BACKWARD(NAME, KEYS, D, S, N, STAGES)                                                                          \
  extern "C" __global__ void __launch_bounds__(384, 1) attentionBackward##NAME##Hopper_##D##_##S##_##N##_##STAGES(     \
      const __grid_constant__ TensorMap first, const __grid_constant__ TensorMap second,                               \
      const __grid_constant__ TensorMap narrow, const __grid_constant__ TensorMap otherFirst,                          \
      const __grid_constant__ TensorMap otherSecond, const __grid_constant__ TensorMap otherNarrow,                    \
      const __grid_constant__ TensorMap otherHat, const float* lambda, const float* decay, const int* firsts,          \
      const int* lasts, const int* reach, int* counter, const float* lines, bf16* dFirst, bf16* dSecond,               \
      bf16* dNarrow, float* dot, const __grid_constant__ AttentionSizes sizes, int firstPitch, int secondPitch) {      \
    attentionBackward<D, S, KEYS, N, STAGES>(first, second, narrow, otherFirst, otherSecond, otherNarrow, otherHat,    \
                                             lambda, Spans{decay, firsts, lasts, reach}, counter, lines, dFirst,       \
                                             dSecond, dNarrow, dot, sizes, firstPitch, secondPitch);                   \
  }
#define QUERIES(D, S, N, STAGES) BACKWARD(Queries, false, D, S, N, STAGES)
#define KEYS(D, S, N, STAGES) BACKWARD(Keys, true, D, S, N, STAGES)

// As in src/lowerings/attention-hopper.ts.
FORWARD(64, 0, 3, 128, 3)
FORWARD(64, 16, 3, 96, 4)
FORWARD(64, 32, 3, 96, 4)
FORWARD(64, 64, 2, 128, 3)
FORWARD(64, 128, 2, 128, 2)
FORWARD(128, 0, 2, 128, 2)
FORWARD(128, 16, 2, 128, 2)
FORWARD(128, 32, 2, 128, 2)
FORWARD(128, 64, 2, 128, 2)
FORWARD(128, 128, 2, 64, 2)
QUERIES(64, 0, 128, 3)
QUERIES(64, 16, 64, 4)
QUERIES(64, 32, 64, 4)
QUERIES(64, 64, 64, 4)
QUERIES(64, 128, 64, 3)
QUERIES(128, 0, 64, 3)
QUERIES(128, 16, 64, 3)
QUERIES(128, 32, 64, 2)
QUERIES(128, 64, 64, 2)
QUERIES(128, 128, 64, 2)
KEYS(64, 0, 64, 4)
KEYS(64, 16, 64, 4)
KEYS(64, 32, 64, 4)
KEYS(64, 64, 32, 4)
KEYS(64, 128, 32, 4)
KEYS(128, 0, 32, 4)
KEYS(128, 16, 32, 4)
KEYS(128, 32, 32, 4)
KEYS(128, 64, 32, 4)
KEYS(128, 128, 16, 4)
