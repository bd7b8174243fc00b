// The backward pass of attention-hopper.cu.
#pragma once
#include "attention-hopper-parts.cuh"

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
// Rows of results are of that side. `dot` is narrow . its gradient, which g gets, [B,T,H]. Where there are tables [T,D/2],
// pairs of the gradient by `first` are turned by them.
template <int D, int S, bool KEYS, int N, int STAGES>
__device__ void attentionBackward(const TensorMap& firstMap, const TensorMap& secondMap, const TensorMap& narrowMap,
                                  const TensorMap& otherFirstMap, const TensorMap& otherSecondMap, const TensorMap& otherNarrowMap,
                                  const TensorMap& otherHatMap, const float* lambda, const Spans& spans, int* counter, const float* lineData,
                                  bf16* dFirst, bf16* dSecond, float* dNarrow, float* dot, const float* cosines, const float* sines,
                                  const AttentionSizes& sizes, int firstPitch, int secondPitch) {
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
  // All lanes have read the piece of work, and the rows, before one says so.
  auto leaveRows = [&]() {
    __syncwarp();
    if (speaks) arrive(layout.rowsEmpty());
  };
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
      leaveRows();
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
          pack<N / 2>(decayed, dp);
        } else {
          // A power of 2: what was rounded needs no rounding again.
          __nv_bfloat162 f = __float2bfloat162_rn(between(n));
#pragma unroll
          for (int i = 0; i < N / 4; i++)
            *(__nv_bfloat162*)&decayed[i / 4][i % 4] = __hmul2(*(__nv_bfloat162*)&ds[i / 4][i % 4], f);
        }
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
          if (position < T) *(float2*)(dNarrow + place * S + columnOf(i)) = make_float2(low, high);
        }
        sum = quadSum(sum);
        if (threadIdx.x % 4 == 0 && position < T) dot[place] = sum;
      }
    }
    leaveRows();
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int position = row + rowOf(half * 2);
      if (position >= T) continue;
      bf16* firstRow = dFirst + ((int64)batch * T + position) * firstPitch + head * D;
      bf16* secondRow = dSecond + ((int64)batch * T + position) * secondPitch + head * D;
#pragma unroll
      for (int i = half * 2; i < D / 2; i += 4) {
        float x = d1[i] * sizes.scale, y = d1[i + 1] * sizes.scale;
        if (cosines) {
          float cosine = cosines[position * (D / 2) + columnOf(i) / 2], sine = sines[position * (D / 2) + columnOf(i) / 2];
          float turned = x * cosine - y * sine;
          y = x * sine + y * cosine, x = turned;
        }
        *(uint32*)(firstRow + columnOf(i)) = packed(x, y);
        if constexpr (KEYS) *(uint32*)(secondRow + columnOf(i)) = packed(d2[i], d2[i + 1]);
      }
    }
  }
}
