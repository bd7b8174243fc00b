// Tiled causal attention in bfloat16 with float32 sums: plain (S = 0) and with SISA's importance term, forward and
// backward. Nothing of size T x T is stored, and every sum has one fixed order, so results never depend on scheduling.
//
//   score_ij = scale q_i.k_j + lambda_h exp(g_i - g_j) c_i.b_j                    for j <= i
//
// g begins anew at every 64th position, and tiles are 64 positions: with the total of tile K its last g,
//   exp(g_i - g_j) = exp(g_i) * exp(totals between J and I) * exp(total_J - g_j)  for tiles J < I,
// three factors that are at most 1. The first goes into cHat, the last into bHat, both made once; the middle one is a
// scalar of the pair of tiles, `span`, summed as tiles are visited from near to far. Where it bounds the whole term
// below `skip`, the term is left out of that pair. The diagonal tile comes last.
// Both backward passes round the same number for a pair of positions, with lambda and decay in it: what the pair gives to
// c and to b then cancels in the gradient of the phase, which is a small difference of the two.
// Dao 2023, arXiv:2307.08691 (tiling); arXiv:2606.02332 (the score).
#include "tiles.cuh"

struct AttentionSizes {
  int batches, length, heads;
  float scale, skip;
};

// Rows from `row` and columns from `column` of the diagonal tile, times weight exp(g of the query - g of the key).
template <bool KEYS, int N> __device__ inline void scaleByDecay(float (&x)[N][4], const float* decays, int row, int column, float weight) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float apart = decays[row + rowOf(i)] - decays[column + columnOf(n, i)];
      x[n][i] *= weight * expf(fminf(KEYS ? -apart : apart, 0.f));
    }
}

__device__ inline void storePair(bf16* p, float x, float y) { *(uint32*)p = packed(x, y); }
__device__ inline void storePair(float* p, float x, float y) { *(float2*)p = make_float2(x, y); }

// Writes a result of 16 rows, 8 N wide, as rows of [T, stride].
template <class T, int N> __device__ inline void writeRows(T* out, int64 stride, int first, int rows, const float (&x)[N][4], float low, float high) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int row = first + rowOf(half * 2);
    if (row >= rows) continue;
    float factor = half ? high : low;
#pragma unroll
    for (int n = 0; n < N; n++)
      storePair(out + row * stride + columnOf(n, 0), x[n][half * 2] * factor, x[n][half * 2 + 1] * factor);
  }
}

// What attention reads, and, where there are states, what the prologue made of them.
struct Operands {
  const bf16 *q, *k, *v, *c, *b, *cHat, *bHat;
  const float *g, *lambda;
  const float *totals, *cNorms, *bNorms;  // [B,H,tiles]
};

// The tile of a block, and where its head of its sequence lies.
template <int D, int S> struct Place {
  int tiles, tile, head, batch, T, row, first, left;  // left: tiles from the own one on
  int64 stride, narrow, base, narrowBase, spanBase;
  __device__ Place(const AttentionSizes& sizes, bool lastFirst)
      : tiles(gridDim.x), tile(lastFirst ? tiles - 1 - blockIdx.x : blockIdx.x), head(blockIdx.y % sizes.heads),
        batch(blockIdx.y / sizes.heads), T(sizes.length), row(threadIdx.x / 32 * 16), first(tile * TILE), left(tiles - tile),
        stride((int64)sizes.heads * D), narrow((int64)sizes.heads * S), base((int64)batch * T * stride + head * D),
        narrowBase((int64)batch * T * narrow + head * S), spanBase((int64)blockIdx.y * tiles) {}
  // Of [B,T,H].
  __device__ int64 of(const AttentionSizes& sizes, int position) const { return ((int64)batch * T + position) * sizes.heads + head; }
};

// Rows in memory as the left operand, where they are used once or a tile of them has no room; beyond `rows` they are zero.
struct MemoryRows {
  const bf16* data;
  int64 stride;
  int first, rows;
  __device__ void left(uint32 (&a)[4], int row, int k) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int position = first + row + rowOf(i % 2 * 2);
      const bf16* source = data + position * stride + k + columnOf(i / 2, 0);
      a[i] = 0;
      // Volatile, so that they come one after another and not all are held at once, which fills the registers.
      if (position < rows) asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(a[i]) : "l"(source));
    }
  }
};

// Shared memory: WIDE tiles of the own side, its states with their factors, and a stage of tiles of the other side, or two
// where there is room: k, v and bHat of keys, or q, the gradient of out and cHat of queries. On the diagonal, where states
// have no factors, the other side's are in place of its hats, and the own side's are read from memory.
template <int D, int S, int WIDE> struct Layout {
  static const int SW = S ? S : 16;
  static const int NARROW = S ? Tile<SW>::ELEMENTS : 0;
  static const int STAGE = 2 * Tile<D>::ELEMENTS + NARROW;
  // Where the own tiles and one stage fill all that the smallest GPUs have; near tiles alone need the hats.
  static const bool HATS_IN_MEMORY = WIDE == 2 && D == 128 && S == 128;
  Tile<D> own, second;  // the second only where WIDE is 2
  Tile<SW> hatTile;
  bf16* stages;
  float* decays;
  __device__ Layout(bf16* memory, int stageCount) {
    own = {memory}, second = {memory + Tile<D>::ELEMENTS};
    memory += WIDE * Tile<D>::ELEMENTS;
    hatTile = {memory};
    if (!HATS_IN_MEMORY) memory += NARROW;
    stages = memory;
    decays = (float*)(memory + stageCount * STAGE);
  }
  __device__ Tile<D> other(int stage) const { return {stages + stage * STAGE}; }
  __device__ Tile<D> otherSecond(int stage) const { return {stages + stage * STAGE + Tile<D>::ELEMENTS}; }
  __device__ Tile<SW> otherStates(int stage) const { return {stages + stage * STAGE + 2 * Tile<D>::ELEMENTS}; }

  __device__ MemoryRows rowsOf(const Place<D, S>& place, const bf16* states) const {
    return {states + place.narrowBase, place.narrow, place.first, place.T};
  }
  __device__ auto hats(const Place<D, S>& place, const bf16* hat) const {
    if constexpr (HATS_IN_MEMORY) return rowsOf(place, hat);
    else return hatTile;
  }
  __device__ void loadStates(const Place<D, S>& place, const AttentionSizes& sizes, const Operands& in, const bf16* hat) const {
    if (S == 0) return;
    if (!HATS_IN_MEMORY) hatTile.load(hat + place.narrowBase, place.narrow, place.first, place.T);
    if (threadIdx.x < TILE)
      decays[threadIdx.x] = place.first + threadIdx.x < place.T ? in.g[((int64)place.batch * place.T + place.first + threadIdx.x) * sizes.heads + place.head] : 0.f;
  }
  __device__ void loadOthers(const Place<D, S>& place, int stage, int from, const bf16* x, const bf16* y) const {
    other(stage).load(x + place.base, place.stride, from, place.T);
    otherSecond(stage).load(y + place.base, place.stride, from, place.T);
  }
  __device__ void loadOtherStates(const Place<D, S>& place, int stage, int from, const bf16* states) const {
    if (S) otherStates(stage).load(states + place.narrowBase, place.narrow, from, place.T);
  }
};

// Begins the copies for the steps up to `ahead` after this one, and waits for those for this one.
template <class Fetch> __device__ inline void receive(int step, int ahead, Fetch fetch) {
#pragma unroll 1
  for (int next = step > 0 ? step + ahead : 0; next <= step + ahead; next++) {
    fetch(next);
    commitCopies();
  }
  if (ahead) waitCopies<1>();
  else waitCopies<0>();
  __syncthreads();
}

// Whether any score of a pair of tiles can change by more than `skip`; also where that is not a number.
__device__ inline bool isNear(const AttentionSizes& sizes, float between, float cNorm, float bNorm) {
  return !(sizes.scale * between * cNorm * bNorm <= sizes.skip);
}

// ---------------------------------------------------------------------------------------------------------------------
// Once for each tile of 64 positions and each head: cHat = c exp(g) lambda / scale, bHat = b exp(total - g), the total,
// and the largest norm of a row of each.
extern "C" __global__ void decayPrologue(const bf16* c, const bf16* b, const float* g, const float* lambda, bf16* cHat,
                                         bf16* bHat, float* totals, float* cNorms, float* bNorms,
                                         const __grid_constant__ AttentionSizes sizes, int width) {
  __shared__ float norms[2][4];
  int tiles = gridDim.x, tile = blockIdx.x, head = blockIdx.y % sizes.heads, batch = blockIdx.y / sizes.heads;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int first = tile * TILE, last = min(first + TILE, sizes.length) - 1;
  int64 position = (int64)batch * sizes.length;
  float total = g[(position + last) * sizes.heads + head];
  float weight = lambda[head] / sizes.scale;
  float cMost = 0, bMost = 0;
  for (int row = first + warp; row <= last; row += 4) {
    float own = g[(position + row) * sizes.heads + head];
    float cFactor = expf(own) * weight, bFactor = expf(fminf(total - own, 0.f));
    int64 place = ((position + row) * sizes.heads + head) * width;
    float cSquares = 0, bSquares = 0;
    for (int s = lane; s < width; s += 32) {
      float x = __bfloat162float(c[place + s]) * cFactor, y = __bfloat162float(b[place + s]) * bFactor;
      cHat[place + s] = __float2bfloat16_rn(x);
      bHat[place + s] = __float2bfloat16_rn(y);
      cSquares += x * x;
      bSquares += y * y;
    }
    cMost = fmaxf(cMost, sqrtf(warpSum(cSquares)));
    bMost = fmaxf(bMost, sqrtf(warpSum(bSquares)));
  }
  if (lane == 0) norms[0][warp] = cMost, norms[1][warp] = bMost;
  __syncthreads();
  if (threadIdx.x == 0) {
    int64 place = (int64)blockIdx.y * tiles + tile;
    totals[place] = total;
    cNorms[place] = fmaxf(fmaxf(norms[0][0], norms[0][1]), fmaxf(norms[0][2], norms[0][3]));
    bNorms[place] = fmaxf(fmaxf(norms[1][0], norms[1][1]), fmaxf(norms[1][2], norms[1][3]));
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// One block for each tile of queries of each head, the longest rows first; one warp for each 16 queries.
template <int D, int S>
__device__ void attentionForward(const Operands& in, bf16* out, float* logSumExp, const AttentionSizes& sizes, int stages) {
  extern __shared__ __align__(16) unsigned char shared[];
  const Layout<D, S, 1> layout((bf16*)shared, stages);
  const int SW = layout.SW, ahead = stages - 1;
  const Tile<D> queries = layout.own;
  const float* decays = layout.decays;
  const Place<D, S> place(sizes, true);
  const auto hats = layout.hats(place, in.cHat);
  const int tile = place.tile, T = place.T, row = place.row, first = place.first;
  auto other = [&](int step) { return step < tile ? tile - 1 - step : tile; };
  auto fetch = [&](int step) {
    if (step > tile) return;
    int from = other(step) * TILE, stage = step & ahead;
    layout.loadOthers(place, stage, from, in.k, in.v);
    layout.loadOtherStates(place, stage, from, step < tile ? in.bHat : in.b);
  };

  queries.load(in.q + place.base, place.stride, first, T);
  layout.loadStates(place, sizes, in, in.cHat);

  float sums[D / 8][4], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, span = 0;
  clear(sums);
  float factor = sizes.scale * LOG2E;
  for (int step = 0; step <= tile; step++) {
    receive(step, ahead, fetch);
    int stage = step & ahead;
    Tile<D> keys = layout.other(stage), values = layout.otherSecond(stage);
    int key = other(step) * TILE;
    float s[8][4];
    clear(s);
    if (S && step == tile) {
      productByRow<SW>(s, layout.rowsOf(place, in.c), row, layout.otherStates(stage), 0);
      scaleByDecay<false>(s, decays, row, 0, in.lambda[place.head] / sizes.scale);
    } else if (S) {
      float between = expf(span);
      bool near = isNear(sizes, between, in.cNorms[place.spanBase + tile], in.bNorms[place.spanBase + other(step)]);
      if (near) {
        productByRow<SW>(s, hats, row, layout.otherStates(stage), 0);
        scale(s, between);
      }
      span += in.totals[place.spanBase + other(step)];
    }
    productByRow<D>(s, queries, row, keys, 0);
    if (step == tile) {
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (key + columnOf(n, i) > first + row + rowOf(i)) s[n][i] = -INFINITY;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float largest = most[half];
#pragma unroll
      for (int n = 0; n < 8; n++) largest = fmaxf(largest, fmaxf(s[n][half * 2], s[n][half * 2 + 1]) * factor);
      largest = quadMax(largest);
      float fix = exp2f(most[half] - largest), sum = 0;
      most[half] = largest;
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = half * 2; i < half * 2 + 2; i++) sum += s[n][i] = exp2f(s[n][i] * factor - largest);
      total[half] = total[half] * fix + quadSum(sum);
#pragma unroll
      for (int n = 0; n < D / 8; n++) sums[n][half * 2] *= fix, sums[n][half * 2 + 1] *= fix;
    }
    productByColumn<D>(sums, s, values, 0);
    __syncthreads();
  }
  writeRows(out + place.base, place.stride, first + row, T, sums, 1.f / total[0], 1.f / total[1]);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int position = first + row + rowOf(half * 2);
    if (threadIdx.x % 4 == 0 && position < T)
      logSumExp[(int64)blockIdx.y * T + position] = (most[half] + log2f(total[half])) / LOG2E;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// delta_i = sum over the width of out and its gradient, [B,H,T]. One warp for each row.
extern "C" __global__ void attentionDelta(const bf16* out, const bf16* gradient, float* delta,
                                          const __grid_constant__ AttentionSizes sizes, int width) {
  int64 rows = (int64)sizes.batches * sizes.length * sizes.heads;
  for (int64 row = (int64)blockIdx.x * 4 + threadIdx.x / 32; row < rows; row += (int64)gridDim.x * 4) {
    float sum = 0;
    for (int i = threadIdx.x % 32; i < width; i += 32)
      sum += __bfloat162float(out[row * width + i]) * __bfloat162float(gradient[row * width + i]);
    sum = warpSum(sum);
    int64 head = row % sizes.heads, position = row / sizes.heads % sizes.length, batch = row / sizes.heads / sizes.length;
    if (threadIdx.x % 32 == 0) delta[(batch * sizes.heads + head) * sizes.length + position] = sum;
  }
}

// Columns of the other side that are worked on at a time: fewer where the sums alone fill the registers.
template <int D, int S> __device__ constexpr int columnsAtATime() { return D + S > 128 ? 32 : 64; }

// Before the own tile comes: sums so far lack the factors of their own rows; `dot` gets hat . sum.
template <int N, class Hats, class Factor>
__device__ inline void closeHats(float (&sums)[N][4], float (&dot)[2], const Hats& hats, int row, Factor factorOf) {
  float factors[2] = {factorOf(row + rowOf(0)), factorOf(row + rowOf(2))};
  uint32 pairs[4];  // of a left operand, which are those of two fragments of a result
#pragma unroll
  for (int n = 0; n < N; n++) {
    if (n % 2 == 0) hats.left(pairs, row, n * 8);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      uint32 pair = pairs[n % 2 * 2 + i / 2];
      dot[i / 2] += sums[n][i] * __uint_as_float(i % 2 ? pair & 0xffff0000u : pair << 16);
      sums[n][i] *= factors[i / 2];
    }
  }
}

// Sums of each row over the four threads that share it, [B,T,H].
template <int D, int S> __device__ inline void writeDots(float* out, const float (&dot)[2], const Place<D, S>& place, const AttentionSizes& sizes) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float sum = quadSum(dot[half]);
    int position = place.first + place.row + rowOf(half * 2);
    if (threadIdx.x % 4 == 0 && position < place.T) out[place.of(sizes, position)] = sum;
  }
}

// Gradients by q and c. One block for each tile of queries. `read` is c . dc, which is what g_i gets, [B,T,H].
template <int D, int S>
__device__ void attentionBackwardQueries(const Operands& in, const float* logSumExp, const float* delta, const bf16* gradient,
                                         bf16* dq, float* dc, float* read, const AttentionSizes& sizes, int stages) {
  extern __shared__ __align__(16) unsigned char shared[];
  const Layout<D, S, 2> layout((bf16*)shared, stages);
  const int SW = layout.SW, N = columnsAtATime<D, S>() / 8, ahead = stages - 1;
  const Tile<D> queries = layout.own, outs = layout.second;
  const float* decays = layout.decays;
  const Place<D, S> place(sizes, true);
  const auto hats = layout.hats(place, in.cHat);
  const int tile = place.tile, T = place.T, row = place.row, first = place.first;
  auto other = [&](int step) { return step < tile ? tile - 1 - step : tile; };
  auto fetch = [&](int step) {
    if (step > tile) return;
    int from = other(step) * TILE, stage = step & ahead;
    layout.loadOthers(place, stage, from, in.k, in.v);
    layout.loadOtherStates(place, stage, from, step < tile ? in.bHat : in.b);
  };

  queries.load(in.q + place.base, place.stride, first, T);
  outs.load(gradient + place.base, place.stride, first, T);
  layout.loadStates(place, sizes, in, in.cHat);

  float lse[2], offset[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int position = first + row + rowOf(half * 2);
    lse[half] = position < T ? logSumExp[(int64)blockIdx.y * T + position] * LOG2E : INFINITY;
    offset[half] = position < T ? delta[(int64)blockIdx.y * T + position] : 0.f;
  }
  float dQ[D / 8][4], dC[SW / 8][4], dot[2] = {0, 0}, span = 0;
  clear(dQ);
  clear(dC);
  bool near = false;
  float factor = sizes.scale * LOG2E, weight = S ? in.lambda[place.head] / sizes.scale : 0.f;
  for (int step = 0; step <= tile; step++) {
    receive(step, ahead, fetch);
    int stage = step & ahead;
    Tile<D> keys = layout.other(stage), values = layout.otherSecond(stage);
    bool diagonal = step == tile;
    float between = 1.f;
    if (S && !diagonal) {
      between = expf(span);
      near = isNear(sizes, between, in.cNorms[place.spanBase + tile], in.bNorms[place.spanBase + other(step)]);
      span += in.totals[place.spanBase + other(step)];
    }
    if (S && diagonal) closeHats(dC, dot, hats, row, [&](int local) { return weight * expf(decays[local]); });
#pragma unroll
    for (int from = 0; from < TILE; from += N * 8) {
      float s[N][4], ds[N][4], term[N][4];
      clear(s);
      if (S && diagonal) {
        productByRow<SW>(s, layout.rowsOf(place, in.c), row, layout.otherStates(stage), from);
        scaleByDecay<false>(s, decays, row, from, weight);
        copy(term, s);
      } else if (near) {
        productByRow<SW>(s, hats, row, layout.otherStates(stage), from);
        scale(s, between);
      }
      productByRow<D>(s, queries, row, keys, from);
      clear(ds);
      productByRow<D>(ds, outs, row, values, from);
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          bool seen = !diagonal || from + columnOf(n, i) <= row + rowOf(i);
          float p = seen ? exp2f(s[n][i] * factor - lse[i / 2]) : 0.f;
          ds[n][i] = p * (ds[n][i] - offset[i / 2]) * sizes.scale;
        }
      productByColumn<D>(dQ, ds, keys, from);
      if (S && diagonal) {
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) dot[i / 2] += ds[n][i] * term[n][i];
        scaleByDecay<false>(ds, decays, row, from, weight);
      } else if (near) {
        scale(ds, between);
      }
      if (S && (diagonal || near)) productByColumn<SW>(dC, ds, layout.otherStates(stage), from);
    }
    __syncthreads();
  }
  writeRows(dq + place.base, place.stride, first + row, T, dQ, 1.f, 1.f);
  if (S) {
    writeRows(dc + place.narrowBase, place.narrow, first + row, T, dC, 1.f, 1.f);
    writeDots(read, dot, place, sizes);
  }
}

// Gradients by k, v and b. One block for each tile of keys; rows of results are keys, columns queries.
// `write` is b . db, of which g_j gets the negative, [B,T,H].
template <int D, int S>
__device__ void attentionBackwardKeys(const Operands& in, const float* logSumExp, const float* delta, const bf16* gradient,
                                      bf16* dk, bf16* dv, float* db, float* write, const AttentionSizes& sizes, int stages) {
  extern __shared__ __align__(16) unsigned char shared[];
  const Layout<D, S, 2> layout((bf16*)shared, stages);
  const int SW = layout.SW, N = columnsAtATime<D, S>() / 8, ahead = stages - 1;
  const Tile<D> keys = layout.own, values = layout.second;
  const float* decays = layout.decays;
  float* rows = layout.decays + TILE;  // of each stage, logSumExp and delta
  const Place<D, S> place(sizes, false);
  const auto hats = layout.hats(place, in.bHat);
  const int tile = place.tile, T = place.T, row = place.row, first = place.first, steps = place.left;
  auto other = [&](int step) { return step + 1 < steps ? tile + 1 + step : tile; };
  auto fetch = [&](int step) {
    if (step >= steps) return;
    int from = other(step) * TILE, stage = step & ahead;
    layout.loadOthers(place, stage, from, in.q, gradient);
    layout.loadOtherStates(place, stage, from, step + 1 < steps ? in.cHat : in.c);
    if (threadIdx.x < TILE) {
      int position = from + threadIdx.x;
      bool inside = position < T;
      rows[stage * 2 * TILE + threadIdx.x] = inside ? logSumExp[(int64)blockIdx.y * T + position] * LOG2E : INFINITY;
      rows[stage * 2 * TILE + TILE + threadIdx.x] = inside ? delta[(int64)blockIdx.y * T + position] : 0.f;
    }
  };

  keys.load(in.k + place.base, place.stride, first, T);
  values.load(in.v + place.base, place.stride, first, T);
  layout.loadStates(place, sizes, in, in.bHat);

  float dK[D / 8][4], dV[D / 8][4], dB[SW / 8][4], dot[2] = {0, 0}, span = 0;
  clear(dK);
  clear(dV);
  clear(dB);
  bool near = false;
  float factor = sizes.scale * LOG2E, weight = S ? in.lambda[place.head] / sizes.scale : 0.f;
  for (int step = 0; step < steps; step++) {
    receive(step, ahead, fetch);
    int stage = step & ahead;
    Tile<D> queries = layout.other(stage), outs = layout.otherSecond(stage);
    const float* lse = rows + stage * 2 * TILE;
    const float* offset = lse + TILE;
    bool diagonal = step + 1 == steps;
    float between = 1.f;
    if (S && !diagonal) {
      between = expf(span);
      near = isNear(sizes, between, in.cNorms[place.spanBase + other(step)], in.bNorms[place.spanBase + tile]);
      span += in.totals[place.spanBase + other(step)];
    }
    if (S && diagonal)
      closeHats(dB, dot, hats, row, [&](int local) { return expf(fminf(decays[TILE - 1] - decays[local], 0.f)); });
#pragma unroll
    for (int from = 0; from < TILE; from += N * 8) {
      float s[N][4], ds[N][4], term[N][4];
      clear(s);
      if (S && diagonal) {
        productByRow<SW>(s, layout.rowsOf(place, in.b), row, layout.otherStates(stage), from);
        scaleByDecay<true>(s, decays, row, from, weight);
        copy(term, s);
      } else if (near) {
        productByRow<SW>(s, hats, row, layout.otherStates(stage), from);
        scale(s, between);
      }
      productByRow<D>(s, keys, row, queries, from);
      clear(ds);
      productByRow<D>(ds, values, row, outs, from);
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int query = from + columnOf(n, i);
          bool seen = !diagonal || row + rowOf(i) <= query;
          s[n][i] = seen ? exp2f(s[n][i] * factor - lse[query]) : 0.f;
          ds[n][i] = s[n][i] * (ds[n][i] - offset[query]) * sizes.scale;
        }
      productByColumn<D>(dV, s, outs, from);
      productByColumn<D>(dK, ds, queries, from);
      if (S && diagonal) {
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) dot[i / 2] += ds[n][i] * term[n][i];
        scaleByDecay<true>(ds, decays, row, from, weight);
      } else if (near) {
        scale(ds, between);
      }
      if (S && (diagonal || near)) productByColumn<SW>(dB, ds, layout.otherStates(stage), from);
    }
    __syncthreads();
  }
  writeRows(dk + place.base, place.stride, first + row, T, dK, 1.f, 1.f);
  writeRows(dv + place.base, place.stride, first + row, T, dV, 1.f, 1.f);
  if (S) {
    writeRows(db + place.narrowBase, place.narrow, first + row, T, dB, 1.f, 1.f);
    writeDots(write, dot, place, sizes);
  }
}

const int TILES_AT_ONCE = 32;

// gKey gets -write, and the last position of each tile also what the tile's total gets: the sum of read - write over all
// later tiles; and read, where queries have the same g. readSums gets the sum of read. One block for each head of each
// sequence, of which each warp takes a tile, from the end.
extern "C" __global__ void __launch_bounds__(32 * TILES_AT_ONCE)
    decayKeyGradient(const float* read, const float* write, float* gKey, double* readSums,
                     const __grid_constant__ AttentionSizes sizes, int withQueries) {
  __shared__ double totals[TILES_AT_ONCE], parts[32];
  int head = blockIdx.x % sizes.heads, batch = blockIdx.x / sizes.heads, T = sizes.length;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  double later = 0, all = 0;
  for (int last = (T - 1) / TILE; last >= 0; last -= TILES_AT_ONCE) {
    int first = (last - warp) * TILE + lane;
    auto placeOf = [&](int position) { return ((int64)batch * T + position) * sizes.heads + head; };
    auto isInside = [&](int position) { return position >= 0 && position < T; };
    double total = 0;
    float own[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int position = first + 32 * i;
      float reads = isInside(position) ? read[placeOf(position)] : 0.f;
      float writes = isInside(position) ? write[placeOf(position)] : 0.f;
      all += reads;
      total += reads - writes;
      own[i] = withQueries ? reads - writes : -writes;
    }
    total = warpSum(total);
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    double after = later;
    for (int i = 0; i < warp; i++) after += totals[i];
    for (int i = 0; i < TILES_AT_ONCE; i++) later += totals[i];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int position = first + 32 * i;
      if (isInside(position)) gKey[placeOf(position)] = (position % TILE == TILE - 1 ? (float)after : 0.f) + own[i];
    }
    __syncthreads();
  }
  all = blockSum(all, parts);
  if (threadIdx.x == 0) readSums[blockIdx.x] = all;
}

// lambda gets the sum of read over all positions, over lambda. One thread for each head.
extern "C" __global__ void decayLambdaGradient(const double* readSums, const float* lambda, float* gradient,
                                               const __grid_constant__ AttentionSizes sizes) {
  int head = blockIdx.x * blockDim.x + threadIdx.x;
  if (head >= sizes.heads) return;
  double sum = 0;
  for (int batch = 0; batch < sizes.batches; batch++) sum += readSums[batch * sizes.heads + head];
  gradient[head] = (float)(sum / lambda[head]);
}

#define OPERANDS                                                                                                     \
  const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *c, const bf16 *b, const bf16 *cHat, const bf16 *bHat,     \
      const float *g, const float *lambda, const float *totals, const float *cNorms, const float *bNorms
#define IN Operands{q, k, v, c, b, cHat, bHat, g, lambda, totals, cNorms, bNorms}
#define KERNELS(D, S)                                                                                                \
  extern "C" __global__ void __launch_bounds__(THREADS) attentionForward_##D##_##S(                                  \
      OPERANDS, bf16* out, float* logSumExp, const __grid_constant__ AttentionSizes sizes, int stages) {             \
    attentionForward<D, S>(IN, out, logSumExp, sizes, stages);                                                       \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS) attentionBackwardQueries_##D##_##S(                          \
      OPERANDS, const float* logSumExp, const float* delta, const bf16* gradient, bf16* dq, float* dc, float* read,  \
      const __grid_constant__ AttentionSizes sizes, int stages) {                                                    \
    attentionBackwardQueries<D, S>(IN, logSumExp, delta, gradient, dq, dc, read, sizes, stages);                     \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS) attentionBackwardKeys_##D##_##S(                             \
      OPERANDS, const float* logSumExp, const float* delta, const bf16* gradient, bf16* dk, bf16* dv, float* db,     \
      float* write, const __grid_constant__ AttentionSizes sizes, int stages) {                                      \
    attentionBackwardKeys<D, S>(IN, logSumExp, delta, gradient, dk, dv, db, write, sizes, stages);                   \
  }
KERNELS(64, 0)
KERNELS(64, 16)
KERNELS(64, 32)
KERNELS(64, 64)
KERNELS(64, 128)
KERNELS(128, 0)
KERNELS(128, 16)
KERNELS(128, 32)
KERNELS(128, 64)
KERNELS(128, 128)
