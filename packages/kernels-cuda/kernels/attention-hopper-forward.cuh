// The forward pass of attention-hopper.cu.
#pragma once
#include "attention-hopper-parts.cuh"
#include "overlap.cuh"

// What those that compute need to know of a piece of work.
struct Piece {
  int item, near, steep;  // near: the first near tile of keys
  int firsts[3];          // of the spans that the queries of each warpgroup lie in
  float weight;           // lambda / scale
};

// WARPGROUPS of 64 queries each; N keys at a time, which are one span.
template <int D, int S, int WARPGROUPS, int N, int STAGES> struct Forward {
  static const int SW = S ? S : 16, ROWS = 64 * WARPGROUPS;
  typedef SharedTile<D, ROWS> Queries;
  typedef SharedTile<SW, ROWS> Reads;
  typedef SharedTile<D, N> Keys;
  typedef SharedTile<SW, N> Writes;
  static_assert(N % 64 == 0, "queries of a warpgroup lie in one span");
  // Positions in front of the first query that may lie in a tile with it.
  static const int EARLY = ROWS % N;
  static const int WRITES = S ? Writes::BYTES : 0, DECAYS = S ? 4 * (EARLY + ROWS) : 0;
  static const int FIXED = Queries::BYTES + (S ? Reads::BYTES : 0), STAGE = 2 * Keys::BYTES + WRITES;
  static const int ROW_STAGES = rowStages(FIXED + DECAYS, STAGES * STAGE), ALL_ROWS = ROW_STAGES * FIXED;

  uint32 memory, barriers;
  volatile Piece* pieces;   // of each place for queries
  volatile int* exponents;  // of each stage, where its span ends or, of a steep tile, begins
  __device__ Forward() {
    extern __shared__ __align__(1024) unsigned char shared[];
    memory = addressOf(shared);
    barriers = memory + ALL_ROWS + STAGES * STAGE;
    pieces = (volatile Piece*)(shared + barriers + 256 - memory);
    exponents = (volatile int*)(pieces + ROW_STAGES);
  }
  __device__ Queries queries(int place) const { return {memory + place * FIXED}; }
  __device__ Reads reads(int place) const { return {memory + place * FIXED + Queries::BYTES}; }
  // Exponents of rows, from EARLY before the first one on.
  __device__ uint32 decays(int place) const { return barriers + BARRIER_BYTES + place * DECAYS; }
  __device__ float decay(int place, int row) const {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(decays(place) + 4 * (EARLY + row)));
    return x;
  }
  __device__ Keys keys(int stage) const { return {memory + ALL_ROWS + stage * STAGE}; }
  __device__ Keys values(int stage) const { return {memory + ALL_ROWS + stage * STAGE + Keys::BYTES}; }
  __device__ Writes writes(int stage) const { return {memory + ALL_ROWS + stage * STAGE + 2 * Keys::BYTES}; }
  __device__ uint32 rowsFull(int place) const { return barriers + 16 * place; }
  __device__ uint32 rowsEmpty(int place) const { return barriers + 8 + 16 * place; }
  __device__ uint32 keysFull(int stage) const { return barriers + 32 + 32 * stage; }
  __device__ uint32 keysEmpty(int stage) const { return barriers + 40 + 32 * stage; }
  __device__ uint32 valuesFull(int stage) const { return barriers + 48 + 32 * stage; }
  __device__ uint32 valuesEmpty(int stage) const { return barriers + 56 + 32 * stage; }
  __device__ void start() const {
    if (threadIdx.x == 0) {
      for (int place = 0; place < ROW_STAGES; place++) startBarrier(rowsFull(place), 1), startBarrier(rowsEmpty(place), 4 * WARPGROUPS);
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

// The first span of keys that is near queries of this norm, where exponents begin with those of span `own`. By a warp.
__device__ inline int firstNear(const Spans& spans, const AttentionSizes& sizes, int line, int own, float norm) {
  for (int from = 0; from < own; from += 32) {
    int n = from + threadIdx.x % 32, end = line + own, other = line + n;
    // Near also where the bound is not a number.
    bool near = n < own && !(sizes.scale * powerOf2(spans.firsts[end] - spans.lasts[other]) * norm * spans.bNorms[other] <= sizes.skip);
    uint32 votes = __ballot_sync(0xffffffffu, near);
    if (votes) return from + __ffs(votes) - 1;
  }
  return own;
}

template <int D, int S, int WARPGROUPS, int N, int STAGES>
__device__ void attentionForward(const TensorMap& qMap, const TensorMap& kMap, const TensorMap& vMap, const TensorMap& cMap,
                                 const TensorMap& bMap, const TensorMap& bHatMap, const float* lambda, const Spans& spans,
                                 uint32* counter, bf16* out, float* logSumExp, const AttentionSizes& sizes) {
  typedef Forward<D, S, WARPGROUPS, N, STAGES> Layout;
  const int ROWS = Layout::ROWS;
  Layout layout;
  layout.start();
  int T = sizes.length, keyTiles = (T + N - 1) / N, warpgroup = uniform(threadIdx.x / 128);
  Work work(sizes, ROWS);
  Ring<Layout::ROW_STAGES> rows;
  Ring<STAGES> ring;
  // The longest first.
  auto firstRow = [&]() { return (work.tiles - 1 - work.tile) * ROWS; };
  auto lastTile = [&](int first) { return min((first + ROWS - 1) / N, keyTiles - 1); };

  if (warpgroup == 0) {
    giveRegisters<WARPGROUPS == 3 ? 32 : 24>();
    if (threadIdx.x >= 32) return;
    bool leads = threadIdx.x == 0;
    int item = blockIdx.x;
    waitForOthers();
    while (true) {
      uint32 rowsFull = layout.rowsFull(rows.stage);
      volatile Piece& piece = layout.pieces[rows.stage];
      wait(layout.rowsEmpty(rows.stage), rows.parity ^ 1);
      if (leads) piece.item = item;
      if (!work.take(item)) {
        if (leads) arrive(rowsFull);
        return;
      }
      int first = firstRow(), head = work.line % sizes.heads, batch = work.line / sizes.heads;
      int line = work.line * keyTiles, own = first / N, last = lastTile(first), near = 0, upcoming = 0, exponent = 0;
      bool steep = false;
      auto exponentOf = [&](int n) { return steep && n >= own ? spans.firsts[line + n] : spans.lasts[line + n]; };
      if (S) {
        float norm = 0;
#pragma unroll
        for (int i = 0; i < (ROWS + N - 1) / N; i++) {
          int span = line + min(own + i, last);
          norm = fmaxf(norm, spans.cNorms[span] * powerOf2(spans.firsts[span] - spans.firsts[line + own]));
        }
        near = firstNear(spans, sizes, line, own, norm);
        steep = spans.firsts[line + own] - spans.lasts[line + last] > steepest<S>() * ((Layout::EARLY + ROWS) / 64);
        exponent = exponentOf(last);
      }
      if (leads) {
        int from = first - min(Layout::EARLY, first), decays = S ? min(first + ROWS, keyTiles * N) - from : 0;
        arriveExpecting(rowsFull, Layout::FIXED + 4 * decays);
        layout.queries(rows.stage).copy(qMap, head, first, batch, rowsFull);
        if (S) {
          piece.near = near, piece.steep = steep, piece.weight = lambda[head] / sizes.scale;
#pragma unroll
          for (int i = 0; i < WARPGROUPS; i++) piece.firsts[i] = spans.firsts[line + min((first + i * 64) / N, last)];
          layout.reads(rows.stage).copy(cMap, head, first, batch, rowsFull);
          uint32 to = layout.decays(rows.stage) + 4 * (Layout::EARLY + from - first);
          copyBytes(to, spans.decay + (int64)line * N + from, 4 * decays, rowsFull);
        }
      }
      rows.next();
      for (int n = last; n >= 0; n--) {
        bool withWrites = S && n >= near;
        // Not before it is needed, so that the block that is done first takes the longest piece.
        if (leads && n == 0) upcoming = gridDim.x + atomicInc(counter, work.tiles * work.lines - 1);
        wait(layout.keysEmpty(ring.stage), ring.parity ^ 1);
        if (leads) {
          if (withWrites) {
            layout.exponents[ring.stage] = exponent;
            // Loaded before it is needed.
            exponent = exponentOf(max(n - 1, 0));
          }
          arriveExpecting(layout.keysFull(ring.stage), Layout::Keys::BYTES + (withWrites ? Layout::WRITES : 0));
          layout.keys(ring.stage).copy(kMap, head, n * N, batch, layout.keysFull(ring.stage));
          if (withWrites) layout.writes(ring.stage).copy(steep && n >= own ? bMap : bHatMap, head, n * N, batch, layout.keysFull(ring.stage));
        }
        wait(layout.valuesEmpty(ring.stage), ring.parity ^ 1);
        if (leads) {
          arriveExpecting(layout.valuesFull(ring.stage), Layout::Keys::BYTES);
          layout.values(ring.stage).copy(vMap, head, n * N, batch, layout.valuesFull(ring.stage));
        }
        ring.next();
      }
      item = __shfl_sync(0xffffffffu, upcoming, 0);
    }
  }

  takeRegisters<WARPGROUPS == 3 ? 160 : 240>();
  int local = (warpgroup - 1) * 64, warpRow = local + threadIdx.x % 128 / 32 * 16;
  // While sums of weights stay within 2^8 of what they would be, the largest score so far need not be exact.
  float factor = sizes.scale * LOG2E, slack = 8 / factor;
  // Warpgroups start products in turns, so that those of one run while others take exponentials.
  auto takeTurn = [&]() { asm volatile("bar.sync %0, 256;" ::"r"(warpgroup) : "memory"); };
  auto passTurn = [&]() { asm volatile("bar.arrive %0, 256;" ::"r"(warpgroup % WARPGROUPS + 1) : "memory"); };
  // Waits for the other warps of the warpgroup.
  auto together = [&]() { asm volatile("bar.sync %0, 128;" ::"r"(warpgroup + WARPGROUPS) : "memory"); };
  if (warpgroup == WARPGROUPS) passTurn();
  while (true) {
    int place = rows.stage;
    wait(layout.rowsFull(place), rows.parity);
    rows.next();
    volatile Piece& piece = layout.pieces[place];
    if (!work.take(uniform(piece.item))) return;
    int first = firstRow(), head = work.line % sizes.heads, batch = work.line / sizes.heads;
    int row = first + warpRow, own = first / N, near = 0, start = 0, exponent = 0;
    float weight = 0;
    bool steep = false;
    if (S) near = uniform(piece.near), steep = uniform(piece.steep), start = uniform(piece.firsts[warpgroup - 1]), weight = piece.weight;
    // Of the factor between the queries' span and a tile's.
    auto between = [&](int stage) { return start - uniform(layout.exponents[stage]); };
    // Scales queries' states where they lie.
    auto scaleReads = [&](float low, float high) {
      RowFactors scale(low, high);
      together();
#pragma unroll
      for (int k = 0; k < S; k += 16) {
        uint32 a[4];
        layout.reads(place).left(a, warpRow, k);
        scale.apply(a);
        storeLeft(layout.reads(place).eight(warpRow + threadIdx.x % 16, k + threadIdx.x % 32 / 16 * 8), a);
      }
      fenceShared();
      together();
    };
    // Makes them cHat times 2^exponent.
    auto makeHats = [&]() {
      float f = weight * powerOf2(exponent);
      scaleReads(exp2Of(layout.decay(place, warpRow + rowOf(0))) * f, exp2Of(layout.decay(place, warpRow + rowOf(2))) * f);
    };
    // Keys that only later warpgroups see.
    int n = lastTile(first);
    for (int least = first + local < T ? min((first + local + 63) / N, keyTiles - 1) : -1; n > least; n--) {
      takeTurn();
      passTurn();
      wait(layout.keysFull(ring.stage), ring.parity);
      leave(layout.keysEmpty(ring.stage));
      wait(layout.valuesFull(ring.stage), ring.parity);
      leave(layout.valuesEmpty(ring.stage));
      ring.next();
    }
    if (n < 0) {
      leave(layout.rowsEmpty(place));
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
        for (int k = 0; k < S; k += 16) multiply<0>(s, layout.reads(place).byRow(local, k), layout.writes(stage).byRow(0, k), k > 0);
        commitProducts();
        waitProducts<0>();
        pin(s);
        float steps = between(stage);
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
          // Of keys behind the queries no score is kept.
          int key = min(n * N - first + columnOf(i), ROWS - 1);
          float apart = layout.decay(place, warpRow + rowOf(i)) - layout.decay(place, key) + steps;
          s[i] *= weight * exp2Of(fminf(apart, 0.f));
        }
      }
      pin(s);
      beginProducts();
      if constexpr (kind.value == Near)
#pragma unroll
        for (int k = 0; k < S; k += 16) multiply<0>(s, layout.reads(place).byRow(local, k), layout.writes(stage).byRow(0, k), k > 0);
#pragma unroll
      for (int k = 0; k < D; k += 16)
        multiply<0>(s, layout.queries(place).byRow(local, k), layout.keys(stage).byRow(0, k), k > 0 || kind.value != Far);
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
    if (S > 0 && !steep) {
      exponent = between(ring.stage);
      makeHats();
    }
    auto finishScores = [&](auto kind) {
      takeTurn();
      startScores(n, ring.stage, kind);
      passTurn();
      waitProducts<0>();
      pin(s);
    };
    if (steep) finishScores(Kind<S ? Steep : Far>());
    else finishScores(Kind<S ? Near : Far>());
    leave(layout.keysEmpty(ring.stage));
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
    wait(layout.valuesFull(ring.stage), ring.parity);
    pack<N / 2>(p, s);
    int add = 0;
    // Scores of tile n while values of the tile before are summed.
    auto addTile = [&](int n, auto kind) {
      int stage = ring.stage;
      ring.next();
      wait(layout.keysFull(ring.stage), ring.parity);
      if constexpr (kind.value == Near) {
        int next = between(ring.stage);
        if (next != exponent) {
          float f = powerOf2(next - exponent);
          scaleReads(f, f);
          exponent = next;
        }
      }
      takeTurn();
      startScores(n, ring.stage, kind);
      startSums(stage, add);
      passTurn();
      add = 1;
      waitProducts<1>();
      pin(s);
      leave(layout.keysEmpty(ring.stage));
      float largest[2], fix[2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        largest[half] = s[half * 2];
#pragma unroll
        for (int i = half * 2; i < N / 2; i += 4) largest[half] = fmaxf(largest[half], fmaxf(s[i], s[i + 1]));
      }
      bool grown = __any_sync(0xffffffffu, largest[0] > most[0] + slack || largest[1] > most[1] + slack);
      if (grown)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float found = quadMax(fmaxf(largest[half], most[half]));
          fix[half] = exp2Of((most[half] - found) * factor);
          most[half] = found;
          total[half] *= fix[half];
        }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float offset = most[half] * factor, sum = 0;
#pragma unroll
        for (int i = half * 2; i < N / 2; i += 4) {
          sum += s[i] = exp2Of(s[i] * factor - offset);
          sum += s[i + 1] = exp2Of(s[i + 1] * factor - offset);
        }
        total[half] += sum;
      }
      // Here, since the compiler would wait for products before the exponentials if nothing stood between.
      wait(layout.valuesFull(ring.stage), ring.parity);
      waitProducts<0>();
      pin(o);
      leave(layout.valuesEmpty(stage));
      if (grown)
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[i] *= fix[i % 4 / 2];
      pack<N / 2>(p, s);
    };
    n--;
    if constexpr (S > 0 && ROWS > N)
      for (; steep && n >= own; n--) addTile(n, Kind<Steep>());
    if (S > 0 && steep) makeHats();
    if constexpr (S > 0)
      for (; n >= near; n--) addTile(n, Kind<Near>());
    for (; n >= 0; n--) addTile(n, Kind<Far>());
    leave(layout.rowsEmpty(place));
    startSums(ring.stage, add);
    waitProducts<0>();
    pin(o);
    leave(layout.valuesEmpty(ring.stage));
    ring.next();

#pragma unroll
    for (int half = 0; half < 2; half++) {
      int position = row + rowOf(half * 2);
      float sum = quadSum(total[half]), inverse = 1.f / sum;
      bf16* target = out + (((int64)batch * T + position) * sizes.heads + head) * D + threadIdx.x % 4 * 8;
      auto pair = [&](int i) { return packed(o[i + half * 2] * inverse, o[i + half * 2 + 1] * inverse); };
#pragma unroll
      for (int i = 0; i < D / 2; i += 16) {
        uint4 parts = eightColumns(pair(i), pair(i + 4), pair(i + 8), pair(i + 12));
        if (position < T) *(uint4*)(target + i * 2) = parts;
      }
      if (position >= T) continue;
      if (threadIdx.x % 4 == 0) logSumExp[(int64)work.line * T + position] = (most[half] * factor + log2f(sum)) / LOG2E;
    }
  }
}
