// The backward pass of attention-hopper.cu.
#pragma once
#include "attention-hopper-parts.cuh"

// Which gradients a pass gives: by q and c, by k, v and b, or all of them.
enum Pass { ByQueries, ByKeys, Together };

// Two warpgroups, each with 64 rows that stay, of queries or of keys; N of the other side at a time, from far to near.
// Together, keys stay, and a third warpgroup takes gradients of scores from the two and adds up those of queries in memory.
template <int D, int S, int PASS, int N, int STAGES> struct Backward {
  static const bool KEYS = PASS != ByQueries, TOGETHER = PASS == Together;
  static const int SW = S ? S : 16, ROWS = 128;
  typedef SharedTile<D, ROWS> Wide;
  typedef SharedTile<SW, ROWS> Narrow;
  typedef SharedTile<D, N> OtherWide;
  typedef SharedTile<SW, N> OtherNarrow;
  typedef SharedTile<N, ROWS> Scores;
  static_assert(!TOGETHER || N == 64, "gradients of queries come from one product of a warpgroup");
  static const int NARROW = S ? OtherNarrow::BYTES : 0, LINES = KEYS ? 8 * N : 0;
  static const int FIXED = 2 * Wide::BYTES + (S ? Narrow::BYTES : 0), STAGE = 2 * OtherWide::BYTES + NARROW;
  // Together: warps that make hats of states in shared memory, and places for gradients of scores.
  // For each of its warps, the third warpgroup has a place from which sums by q and c are added to those in memory.
  static const int SCALERS = 2, SLOTS = 2, ALL_SLOTS = TOGETHER ? SLOTS * Scores::BYTES : 0;
  static const int Q_SUMS = 16 * D * 4, C_SUMS = 16 * S * 4, SUMS = Q_SUMS + C_SUMS, ALL_SUMS = TOGETHER ? 4 * SUMS : 0;
  // Hats of rows of both places lie side by side in rows as wide as those of k, so that k and a hat are one operand.
  static const int ALL_HATS = TOGETHER && S ? Wide::BYTES : 0;
  static const int ROW_STAGES = rowStages(FIXED, STAGES * (STAGE + LINES) + ALL_HATS + ALL_SLOTS + ALL_SUMS);
  static const int ALL_ROWS = ROW_STAGES * FIXED + ALL_HATS;

  uint32 memory, lineMemory, sumMemory, barriers;
  // Of each place for rows, the piece of work; how far its span reaches, doubled, and 1 more where it is steep.
  volatile int *items, *reaches;
  __device__ Backward() {
    extern __shared__ __align__(1024) unsigned char shared[];
    memory = addressOf(shared);
    lineMemory = memory + ALL_ROWS + ALL_SLOTS + STAGES * STAGE;
    sumMemory = lineMemory + STAGES * LINES;
    barriers = sumMemory + ALL_SUMS;
    items = (volatile int*)(shared + barriers + 256 - addressOf(shared));
    reaches = items + ROW_STAGES;
  }
  // Of queries: q, the gradient of out, c. Of keys: k, v, b, bHat in the first S columns.
  __device__ Wide first(int place) const { return {memory + place * FIXED}; }
  __device__ Wide second(int place) const { return {memory + place * FIXED + Wide::BYTES}; }
  __device__ Narrow narrow(int place) const { return {memory + place * FIXED + 2 * Wide::BYTES}; }
  __device__ Wide hat(int place) const { return {memory + ROW_STAGES * FIXED + place * 2 * S}; }
  // Gradients of scores, by keys and queries.
  __device__ Scores scores(int slot) const { return {memory + ALL_ROWS + slot * Scores::BYTES}; }
  __device__ OtherWide otherFirst(int stage) const { return {memory + ALL_ROWS + ALL_SLOTS + stage * STAGE}; }
  __device__ OtherWide otherSecond(int stage) const { return {otherFirst(stage).base + OtherWide::BYTES}; }
  __device__ OtherNarrow otherNarrow(int stage) const { return {otherFirst(stage).base + 2 * OtherWide::BYTES}; }
  // What attentionRows made, of the queries that pass by keys.
  __device__ uint32 lines(int stage) const { return lineMemory + stage * LINES; }
  __device__ uint32 sums(int warp) const { return sumMemory + warp * SUMS; }
  __device__ uint32 rowsFull(int place) const { return barriers + 16 * place; }
  __device__ uint32 rowsEmpty(int place) const { return barriers + 8 + 16 * place; }
  __device__ uint32 full(int stage) const { return barriers + 32 + 16 * stage; }
  __device__ uint32 empty(int stage) const { return barriers + 40 + 16 * stage; }
  __device__ uint32 scaled(int stage) const { return barriers + 192 + 8 * stage; }
  __device__ uint32 hatFull(int place) const { return barriers + 240 + 8 * place; }
  __device__ uint32 scoresFull(int slot) const { return barriers + 128 + 16 * slot; }
  __device__ uint32 scoresEmpty(int slot) const { return barriers + 136 + 16 * slot; }
  __device__ void start() const {
    if (threadIdx.x == 0) {
      const int readers = 8 + (TOGETHER ? 4 : 0) + (TOGETHER && S > 0 ? SCALERS : 0);
      for (int place = 0; place < ROW_STAGES; place++) {
        startBarrier(rowsFull(place), 1), startBarrier(rowsEmpty(place), readers);
        startBarrier(hatFull(place), SCALERS);
      }
      for (int stage = 0; stage < STAGES; stage++) {
        startBarrier(full(stage), 1);
        startBarrier(empty(stage), 8);
        startBarrier(scaled(stage), SCALERS);
      }
      for (int slot = 0; slot < SLOTS; slot++) startBarrier(scoresFull(slot), 8), startBarrier(scoresEmpty(slot), 4);
      fenceBarriers();
    }
    __syncthreads();
  }
};

// A row of W elements in shared memory times a factor, rounded once. Lanes begin at different parts of their rows, so that
// they meet in no bank.
template <int W, class Target, class Source>
__device__ inline void scaleRow(const Target& target, const Source& source, int row, float factor) {
  const int PARTS = W / 8;
  auto column = [&](int i) { return (i + row / (8 / PARTS)) % PARTS * 8; };
#pragma unroll
  for (int from = 0; from < PARTS; from += 2) {
    // Both loads before the first store, which the second would wait for.
    uint32 x[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++)
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(x[i][0]), "=r"(x[i][1]), "=r"(x[i][2]), "=r"(x[i][3]) : "r"(source.eight(row, column(from + i))));
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float2 pair = __bfloat1622float2(*(__nv_bfloat162*)&x[i][k]);
        x[i][k] = packed(pair.x * factor, pair.y * factor);
      }
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
                   ::"r"(target.eight(row, column(from + i))), "r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]) : "memory");
    }
  }
}

// Has the copy engine add sums in shared memory to those in memory: instructions that add from registers keep the path to
// shared memory busy, which products need.
__device__ inline void addBytes(float* target, uint32 source, uint32 bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(target), "r"(source), "r"(bytes) : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Until it has read what this thread gave it, or has also added it.
__device__ inline void waitRead() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ inline void waitAdded() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
__device__ inline void storeSums(uint32 address, float x, float y, float z, float w) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
}

// WIDTH columns of a warp's 16 rows, by rows, as sumPart says; a thread's two rows times a factor each.
template <int WIDTH> __device__ inline void storeRows(uint32 place, const float* x, float low, float high) {
  place += rowOf(0) * WIDTH * 4;
#pragma unroll
  for (int i = 0; i < WIDTH / 2; i += 8) {
    uint32 part = place + sumPart(WIDTH, rowOf(0), i / 2 + threadIdx.x % 4) * 16;
    storeSums(part, x[i] * low, x[i + 1] * low, x[i + 4] * low, x[i + 5] * low);
    storeSums(part + 8 * WIDTH * 4, x[i + 2] * high, x[i + 3] * high, x[i + 6] * high, x[i + 7] * high);
  }
}

__device__ inline float2 loadPair(uint32 address) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(address));
  return x;
}

// Gradients of one side: of queries by `first` = q and narrow = c, or of keys by `first` = k, `second` = v and narrow = b.
// Rows of results are of that side. `dot` is narrow . its gradient, which g gets, [B,T,H]. Where there are tables [T,D/2],
// pairs of the gradient by `first` are turned by them. `sums` are what queries get together: of each 16 rows of a head those
// of q, [16,D], and those of c, [16,S], with columns as sumPart says.
template <int D, int S, int PASS, int N, int STAGES>
__device__ void attentionBackward(const TensorMap& firstMap, const TensorMap& secondMap, const TensorMap& narrowMap,
                                  const TensorMap& otherFirstMap, const TensorMap& otherSecondMap, const TensorMap& otherNarrowMap,
                                  const TensorMap& otherHatMap, const float* lambda, const Spans& spans, int* counter, const float* lineData,
                                  bf16* dFirst, bf16* dSecond, float* dNarrow, float* dot, float* sums, const float* cosines, const float* sines,
                                  const AttentionSizes& sizes, int firstPitch, int secondPitch) {
  typedef Backward<D, S, PASS, N, STAGES> Layout;
  const bool KEYS = Layout::KEYS, TOGETHER = Layout::TOGETHER, SCALES = TOGETHER && S > 0;
  Layout layout;
  layout.start();
  const int SW = Layout::SW, SPAN = Layout::ROWS;
  // Where that was measured to be faster.
  auto known = [](int x) { return TOGETHER ? uniform(x) : x; };
  int T = sizes.length, tiles = (T + N - 1) / N, blocks = (T + 63) / 64, warpgroup = known(threadIdx.x / 128);
  Work work(sizes, SPAN);
  Ring<Layout::ROW_STAGES> rows;
  Ring<STAGES> ring;
  Ring<Layout::SLOTS> slots;
  // Long ones first: the last queries, or the first keys.
  auto ownSpan = [&]() { return KEYS ? work.tile : work.tiles - 1 - work.tile; };
  // Tiles that a row from `first` on meets, the farthest first.
  auto stepsOf = [&](int first) { return KEYS ? tiles - first / N : min(first / N + 1, tiles); };
  auto tileOf = [&](int step) { return KEYS ? tiles - 1 - step : step; };
  auto isNear = [&](int n, int reach) { return S > 0 && (KEYS ? n * N / SPAN <= reach : n * N / SPAN >= reach); };
  // Steps to tiles that are not near.
  auto farSteps = [&](int reach) { return KEYS ? max(tiles - (reach + 1) * (SPAN / N), 0) : reach * (SPAN / N); };
  auto isSteep = [&](int span) {
    int place = work.line * work.tiles + span;
    return spans.firsts[place] - spans.lasts[place] > steepest<S>() * (SPAN / 64);
  };

  // The factor between the spans of tile n and of rows.
  auto between = [&](int n, int span) {
    const int *firsts = spans.firsts + work.line * work.tiles, *lasts = spans.lasts + work.line * work.tiles;
    return powerOf2(KEYS ? firsts[n * N / SPAN] - lasts[span] : firsts[span] - lasts[n * N / SPAN]);
  };

  if (warpgroup == 0) {
    giveRegisters<TOGETHER ? 40 : 24>();
    // The warps after the one that fetches.
    if constexpr (SCALES) {
      if (threadIdx.x / 32 >= 1 && threadIdx.x / 32 <= Layout::SCALERS) {
        int lane = threadIdx.x - 32;
        while (true) {
          int place = rows.stage;
          wait(layout.rowsFull(place), rows.parity);
          rows.next();
          if (!work.take(known(layout.items[place]))) return;
          int span = ownSpan(), steps = stepsOf(span * SPAN), far = farSteps(layout.reaches[place] / 2), own = work.line * work.tiles;
          // Tiles of a steep span itself keep their states.
          int others = layout.reaches[place] % 2 ? max(tiles - (span + 1) * (SPAN / N), 0) : steps;
          const float* decay = spans.decay + (int64)own * SPAN;
          int first = spans.firsts[own + span], last = spans.lasts[own + span];
#pragma unroll
          for (int row = lane; row < SPAN; row += Layout::SCALERS * 32)
            scaleRow<SW>(layout.hat(place), layout.narrow(place), row, exp2Of((float)(last - first) - decay[span * SPAN + row]));
          fenceShared();
          leave(layout.hatFull(place));
          leave(layout.rowsEmpty(place));
          float weight = lambda[work.line % sizes.heads] / sizes.scale, exponent = 0;
          int start = 0;
          // Of the next near tile, before it is needed.
          auto fetch = [&](int step) {
            exponent = decay[tileOf(step) * N + lane], start = spans.firsts[own + tileOf(step) * N / SPAN];
          };
          if (far < others) fetch(far);
          for (int step = 0; step < steps; step++) {
            wait(layout.full(ring.stage), ring.parity);
            if (step >= far && step < others) {
              float factor = exp2Of(exponent) * weight * powerOf2(start - last);
              if (step + 1 < others) fetch(step + 1);
              auto tile = layout.otherNarrow(ring.stage);
              scaleRow<SW>(tile, tile, lane, factor);
              fenceShared();
            }
            leave(layout.scaled(ring.stage));
            ring.next();
          }
        }
      }
    }
    if (threadIdx.x != 0) return;
    int upcoming = blockIdx.x;
    while (true) {
      uint32 rowsFull = layout.rowsFull(rows.stage);
      wait(layout.rowsEmpty(rows.stage), rows.parity ^ 1);
      layout.items[rows.stage] = upcoming;
      if (!work.take(upcoming)) {
        arrive(rowsFull);
        return;
      }
      upcoming = gridDim.x + atomicAdd(counter, 1);
      int span = ownSpan(), first = span * SPAN, head = work.line % sizes.heads, batch = work.line / sizes.heads;
      int reach = 0;
      bool steep = false;
      if (S) {
        reach = spans.reach[work.line * work.tiles + span];
        steep = isSteep(span);
        layout.reaches[rows.stage] = 2 * reach + steep;
      }
      arriveExpecting(rowsFull, Layout::FIXED);
      layout.first(rows.stage).copy(firstMap, head, first, batch, rowsFull);
      layout.second(rows.stage).copy(secondMap, head, first, batch, rowsFull);
      if (S) layout.narrow(rows.stage).copy(narrowMap, head, first, batch, rowsFull);
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
        if (withNarrow) layout.otherNarrow(ring.stage).copy(TOGETHER || (steep && n * N / SPAN == span) ? otherNarrowMap : otherHatMap, head, n * N, batch, full);
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

  if constexpr (TOGETHER) if (warpgroup == 3) {
    giveRegisters<88>();
    int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32;
    uint32 ownSums = layout.sums(warp);
    while (true) {
      int place = rows.stage;
      uint32 parity = rows.parity;
      wait(layout.rowsFull(place), parity);
      rows.next();
      if (!work.take(known(layout.items[place]))) {
        if (lane == 0) waitAdded();
        return;
      }
      if (SCALES) wait(layout.hatFull(place), parity);
      int span = ownSpan(), first = span * SPAN, steps = stepsOf(first), far = steps, others = steps;
      // Of the next near tile, the decays of two queries and the start of its span, loaded before they are needed.
      float decays[2] = {}, weight = 0;
      int start = 0, end = 0;
      auto fetchDecays = [&](int step) {
        int n = tileOf(step);
        const float* decay = spans.decay + (int64)work.line * work.tiles * SPAN + n * N + warp * 16 + rowOf(0);
        decays[0] = decay[0], decays[1] = decay[8];
        start = spans.firsts[work.line * work.tiles + n * N / SPAN];
      };
      if constexpr (S > 0) {
        int reaches = known(layout.reaches[place]);
        far = farSteps(reaches / 2);
        if (reaches % 2) others = max(tiles - (first + SPAN) / N, 0);
        end = spans.lasts[work.line * work.tiles + span];
        weight = lambda[work.line % sizes.heads] / sizes.scale;
        if (far < others) fetchDecays(far);
      }
      auto addTile = [&](int step, auto kind) {
        // Gradients of scores times what columns of them stand for.
        auto product = [&](auto& x, auto columns) {
          wait(layout.scoresFull(slots.stage), slots.parity);
          pin(x);
          beginProducts();
#pragma unroll
          for (int k = 0; k < SPAN; k += 16) multiply<1, 1>(x, layout.scores(slots.stage).byColumn(k), columns(k), k > 0);
          commitProducts();
          waitProducts<0>();
          pin(x);
          leave(layout.scoresEmpty(slots.stage));
          slots.next();
        };
        auto waitPlace = [&]() {
          if (lane == 0) waitRead();
          __syncwarp();
        };
        float* target = sums + (((int64)work.line * blocks + tileOf(step)) * 64 + warp * 16) * (D + S);
        auto add = [&](int from, int bytes) {
          fenceShared();
          __syncwarp();
          if (lane == 0) addBytes(target + from / 4, ownSums + from, bytes);
        };
        const int Q_SUMS = Layout::Q_SUMS, C_SUMS = Layout::C_SUMS;
        auto keys = layout.first(place);
        if constexpr (kind.value == Near) {
          float x[(D + S) / 2];
          auto hat = layout.hat(place);
          product(x, [&](int k) { return keys.byColumn(k, hat); });
          float f = powerOf2(start - end) * weight;
          float low = exp2Of(decays[0]) * f, high = exp2Of(decays[1]) * f;
          if (step + 1 < others) fetchDecays(step + 1);
          waitPlace();
          storeRows<D>(ownSums, x, 1, 1);
          storeRows<S>(ownSums + Q_SUMS, x + D / 2, low, high);
          add(0, Q_SUMS + C_SUMS);
        } else {
          float dq[D / 2], dc[Layout::SW / 2];
          product(dq, [&](int k) { return keys.byColumn(k); });
          waitPlace();
          storeRows<D>(ownSums, dq, 1, 1);
          add(0, Q_SUMS);
          if constexpr (kind.value == Steep) {
            product(dc, [&](int k) { return layout.narrow(place).byColumn(k); });
            storeRows<S>(ownSums + Q_SUMS, dc, 1, 1);
            add(Q_SUMS, C_SUMS);
          }
        }
      };
      int step = 0;
      for (; step < far; step++) addTile(step, Kind<Far>());
      if constexpr (S > 0) {
        for (; step < others; step++) addTile(step, Kind<Near>());
        for (; step < steps; step++) addTile(step, Kind<Steep>());
      }
      leave(layout.rowsEmpty(place));
    }
  }

  takeRegisters<TOGETHER ? 192 : 240>();
  int local = (warpgroup - 1) * 64, warpRow = local + threadIdx.x % 128 / 32 * 16;
  // Where this thread's parts of columns are, and of gradients of scores. Found anew for each tile, as the compiler would have
  // it, the number of the thread waits for products that are not begun yet.
  uint32 columnPlace = threadIdx.x % 4 * 8, scoresPlace = layout.scores(0).eight(warpRow + threadIdx.x % 16, threadIdx.x % 32 / 16 * 8);
  asm volatile("" : "+r"(columnPlace), "+r"(scoresPlace));
  // Gradients of scores for the warpgroup that adds up those of queries.
  auto handOver = [&](const uint32(&parts)[N / 16][4]) {
    wait(layout.scoresEmpty(slots.stage), slots.parity ^ 1);
    uint32 slot = slots.stage * Layout::Scores::BYTES;
#pragma unroll
    for (int k = 0; k < N; k += 16) storeLeft(slot + (scoresPlace ^ 2 * k), parts[k / 16]);
    fenceShared();
    leave(layout.scoresFull(slots.stage));
    slots.next();
  };
  float factor = sizes.scale * LOG2E;
  while (true) {
    int place = rows.stage;
    uint32 parity = rows.parity;
    wait(layout.rowsFull(place), parity);
    rows.next();
    if (!work.take(known(layout.items[place]))) return;
    if (SCALES) wait(layout.hatFull(place), parity);
    int span = ownSpan(), first = span * SPAN, head = work.line % sizes.heads, batch = work.line / sizes.heads;
    int row = first + warpRow, reach = 0;
    bool steep = false;
    const float* decay = spans.decay + (int64)(work.line * work.tiles + span) * SPAN;
    auto weight = [&]() { return lambda[head] / sizes.scale; };
    // At first the exponents of rows, loaded before they are needed.
    float rowFactor[2] = {};
    if constexpr (S > 0) {
      reach = known(layout.reaches[place]) / 2;
      steep = known(layout.reaches[place]) % 2;
      int own = work.line * work.tiles + span;
      float across = KEYS ? (float)(spans.lasts[own] - spans.firsts[own]) : 0;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float x = decay[warpRow + rowOf(half * 2)];
        rowFactor[half] = KEYS ? across - x : x;
      }
    }
    auto findRowFactors = [&]() {
      pin(rowFactor);
#pragma unroll
      for (int half = 0; half < 2; half++) rowFactor[half] = exp2f(rowFactor[half]) * (KEYS ? 1.f : weight());
    };
    if (S > 0 && !TOGETHER) findRowFactors();
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
    // Warps that scale have waited until it is full.
    auto waitTile = [&]() { wait(SCALES ? layout.scaled(ring.stage) : layout.full(ring.stage), ring.parity); };
    // Tiles that only the other warpgroup meets.
    auto passOthers = [&](int steps) {
      for (int step = steps; step < allSteps; step++) {
        waitTile();
        leave(layout.empty(ring.stage));
        ring.next();
        if constexpr (TOGETHER) {
          const uint32 none[N / 16][4] = {};
          handOver(none);
          if (S > 0 && steep && tileOf(step) * N / SPAN == span) handOver(none);
        }
      }
    };
    if (first + local >= T) {
      passOthers(0);
      leave(layout.rowsEmpty(place));
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
    // What attentionRows made of columns, in twos. Loads wait for products that were begun before them.
    float2 columns[KEYS ? N / 8 : 1];
    auto fetchColumns = [&](int stage, int kind) {
      uint32 lines = layout.lines(stage) + kind * (Layout::LINES / 2) + columnPlace;
      if constexpr (KEYS)
#pragma unroll
        for (int i = 0; i < N / 8; i++) columns[i] = loadPair(lines + i * 32);
    };
    // Starts the scores of tile n.
    auto startScores = [&](int n, int stage, auto kind) {
      if constexpr (kind.value == Steep) {
        pin(s);
        beginProducts();
#pragma unroll
        for (int k = 0; k < S; k += 16) multiply<0>(s, layout.narrow(place).byRow(local, k), layout.otherNarrow(stage).byRow(0, k), k > 0);
        commitProducts();
        waitProducts<0>();
        pin(s);
        scaleByDecay(s, n, weight());
      }
      uint32 a[SW / 16][4];
      if constexpr (kind.value == Near && !TOGETHER) {
        float f = between(n, span);
        RowFactors scale(rowFactor[0] * f, rowFactor[1] * f);
#pragma unroll
        for (int k = 0; k < S; k += 16) {
          layout.narrow(place).left(a[k / 16], warpRow, k);
          scale.apply(a[k / 16]);
        }
      }
      fetchColumns(stage, 0);
      pin(s);
      beginProducts();
      if constexpr (kind.value == Near) {
#pragma unroll
        for (int k = 0; k < S; k += 16) {
          uint64 others = layout.otherNarrow(stage).byRow(0, k);
          if constexpr (TOGETHER) multiply<0>(s, layout.hat(place).byRow(local, k), others, k > 0);
          else multiply<0>(s, a[k / 16], others, k > 0);
        }
      }
#pragma unroll
      for (int k = 0; k < D; k += 16)
        multiply<0>(s, layout.first(place).byRow(local, k), layout.otherFirst(stage).byRow(0, k), k > 0 || kind.value != Far);
      commitProducts();
    };
    // Starts the products of gradients and values.
    auto startGradients = [&](int stage) {
      pin(dp);
      beginProducts();
#pragma unroll
      for (int k = 0; k < D; k += 16) multiply<0>(dp, layout.second(place).byRow(local, k), layout.otherSecond(stage).byRow(0, k), k > 0);
      commitProducts();
    };

    // From the scores of tile n to products with them. They go on until waited for.
    auto addTile = [&](int n, int stage, auto kind) {
      waitProducts<1>();
      pin(s);
#pragma unroll
      for (int i = 0; i < N / 2; i += 4) {
        float2 own = columns[KEYS ? i / 4 : 0];
        s[i] = exp2Of(s[i] * factor - (KEYS ? own.x : lse[0]));
        s[i + 1] = exp2Of(s[i + 1] * factor - (KEYS ? own.y : lse[0]));
        s[i + 2] = exp2Of(s[i + 2] * factor - (KEYS ? own.x : lse[1]));
        s[i + 3] = exp2Of(s[i + 3] * factor - (KEYS ? own.y : lse[1]));
      }
      fetchColumns(stage, 1);
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
        float2 own = columns[KEYS ? i / 4 : 0];
        dp[i] = s[i] * (dp[i] - (KEYS ? own.x : delta[0]));
        dp[i + 1] = s[i + 1] * (dp[i + 1] - (KEYS ? own.y : delta[0]));
        dp[i + 2] = s[i + 2] * (dp[i + 2] - (KEYS ? own.x : delta[1]));
        dp[i + 3] = s[i + 3] * (dp[i + 3] - (KEYS ? own.y : delta[1]));
      }
      if constexpr (KEYS) pack<N / 2>(p, s);
      pack<N / 2>(ds, dp);
      if constexpr (TOGETHER) handOver(ds);
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
          scaleByDecay(dp, n, weight());
          pack<N / 2>(decayed, dp);
          if constexpr (TOGETHER) handOver(decayed);
        } else if constexpr (!TOGETHER) {
          // A power of 2: what was rounded needs no rounding again.
          __nv_bfloat162 f = __float2bfloat162_rn(between(n, span));
#pragma unroll
          for (int i = 0; i < N / 4; i++)
            *(__nv_bfloat162*)&decayed[i / 4][i % 4] = __hmul2(*(__nv_bfloat162*)&ds[i / 4][i % 4], f);
        }
        pin(d3);
        beginProducts();
#pragma unroll
        for (int k = 0; k < N; k += 16)
          multiply<1>(d3, kind.value == Near && TOGETHER ? ds[k / 16] : decayed[k / 16], layout.otherNarrow(stage).byColumn(k), 1);
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
      waitTile();
      startScores(tileOf(from), ring.stage, kind);
      startGradients(ring.stage);
      for (int step = from;; step++) {
        int stage = ring.stage;
        addTile(tileOf(step), stage, kind);
        ring.next();
        if (step + 1 == to) {
          waitProducts<0>();
          pinAll();
          leave(layout.empty(stage));
          break;
        }
        waitTile();
        startScores(tileOf(step + 1), ring.stage, kind);
        waitProducts<1>();
        pinAll();
        leave(layout.empty(stage));
        startGradients(ring.stage);
      }
    };
    if constexpr (S > 0) {
      int far = farSteps(reach);
      int others = steep ? max(KEYS ? tiles - (first + SPAN) / N : first / N, 0) : steps;
      run(0, far, Kind<Far>());
      run(far, others, Kind<Near>());
      // Sums so far lack the factors of their own rows.
      if (TOGETHER) findRowFactors();
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
        int64 target = ((int64)batch * T + position) * sizes.heads + head;
        float sum = 0;
#pragma unroll
        for (int i = half * 2; i < SW / 2; i += 4) {
          float low = d3[i] * sizes.scale, high = d3[i + 1] * sizes.scale;
          __nv_bfloat162 own = layout.narrow(place).pair(warpRow + rowOf(i), columnOf(i));
          sum += low * __low2float(own) + high * __high2float(own);
          if (position < T) *(float2*)(dNarrow + target * S + columnOf(i)) = make_float2(low, high);
        }
        sum = quadSum(sum);
        if (threadIdx.x % 4 == 0 && position < T) dot[target] = sum;
      }
    }
    leave(layout.rowsEmpty(place));
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int position = row + rowOf(half * 2), column = threadIdx.x % 4 * 8;
      // All loads before the first store, which they would wait for.
      float2 turns[D / 8];
#pragma unroll
      for (int i = 0; i < D / 8; i++) {
        int at = min(position, T - 1) * (D / 2) + columnOf(i * 4) / 2;
        turns[i] = cosines ? make_float2(cosines[at], sines[at]) : make_float2(1, 0);
      }
      bf16* firstRow = dFirst + ((int64)batch * T + position) * firstPitch + head * D + column;
      bf16* secondRow = dSecond + ((int64)batch * T + position) * secondPitch + head * D + column;
      auto turned = [&](int i) {
        float x = d1[i + half * 2] * sizes.scale, y = d1[i + half * 2 + 1] * sizes.scale;
        float2 turn = turns[i / 4];
        return packed(x * turn.x - y * turn.y, x * turn.y + y * turn.x);
      };
      auto second = [&](int i) { return packed(d2[KEYS ? i + half * 2 : 0], d2[KEYS ? i + half * 2 + 1 : 0]); };
#pragma unroll
      for (int i = 0; i < D / 2; i += 16) {
        uint4 parts = eightColumns(turned(i), turned(i + 4), turned(i + 8), turned(i + 12));
        if (position < T) *(uint4*)(firstRow + i * 2) = parts;
        if constexpr (KEYS) {
          parts = eightColumns(second(i), second(i + 4), second(i + 8), second(i + 12));
          if (position < T) *(uint4*)(secondRow + i * 2) = parts;
        }
      }
    }
  }
}
