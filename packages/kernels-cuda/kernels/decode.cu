// What decoding takes where several tokens are read, such as a chunk of a prompt: what they bring, written to the caches, and
// attention to those.
#include "overlap.cuh"
#include "pages.cuh"
#include "tiles.cuh"

struct Tokens {
  const void *q, *k, *v, *c, *b;             // [batches, length, heads * width], rows at pitches; q, k and v or none of them
  const float *decay, *bias, *phase;         // [batches, length, heads], [heads], [batches, length, lines], at pitches too
  const float *cosine, *sine;                // [positions, width / 2]; none where nothing is rotated
  const float *gBefore, *phaseBefore;        // [batches, heads], [batches, lines]; none where they are in the caches
  const int* start;                          // [batches]
  Pages pages;
  void *keys, *values, *importances;         // caches; without them, where gBefore is given, [batches, length, ...]
  float *decays, *phases;
  void *queries, *reads;                     // [batches, length, heads * width]
  float* g;                                  // [batches, length, heads]; none where decays are that
  Fault* fault;
  int node;
  int pitchQ, pitchK, pitchV, pitchC, pitchB, pitchDecay, pitchPhase;
  int batches, length, positions, heads, width, lines;
};

const int BLOCK = PAGE;  // decayBlock in @sisa/core
const int WARPS = 16;    // of a block that prepares; preparing / 32 in src/lowerings/decode.ts
const int STEPS = 8;     // neighbouring positions of a thread, whose loads are all in flight

// Sums over time of 32 lines, one for each lane, while warps have STEPS positions each: what stands before those of a warp.
// `own` is what it has in them since the last at which sums begin anew, and `before` what stands before those of all warps; it
// becomes what comes after them.
template <class Restarts> __device__ double sumBefore(double own, double& before, Restarts restartsIn) {
  __shared__ double totals[WARPS][32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  totals[warp][lane] = own;
  __syncthreads();
  double mine = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    if (w == warp) mine = before;
    before = (restartsIn(w) ? 0 : before) + totals[w][lane];
  }
  __syncthreads();
  return mine;
}

__device__ inline float2 loadPair(const float* p) { return *(const float2*)p; }
__device__ inline float2 loadPair(const bf16* p) { return __bfloat1622float2(*(const __nv_bfloat162*)p); }
__device__ inline void storePair(float* p, float x, float y) { *(float2*)p = make_float2(x, y); }
__device__ inline void storePair(bf16* p, float x, float y) { *(uint32*)p = packed(x, y); }

// What tokens bring before attention: SISA's states continued, queries and keys rotated, and the caches written. Blocks take
// 32 pairs of states, or the decays of 32 heads, through time; those after them take elements of q, k and v, eight each.
template <class T> __device__ void prepareTokens(const Tokens& p) {
  letNextBegin();
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, batch = blockIdx.y, start = p.start[batch];
  int pairBlocks = (p.lines + 31) / 32, decayBlocks = p.lines > 0 ? (p.heads + 31) / 32 : 0;
  int64 firstRow = (int64)batch * p.length;
  // Where the caches have a row; -1 where they have none.
  auto kept = [&](int t) -> int64 {
    if (p.gBefore) return firstRow + t;
    if (start >= 0 && start + t < p.pages.capacity) return rowAt(p.pages, batch, start + t, PAGE);
    report(p.fault, p.node, start);
    return -1;
  };
  // The same for the positions of a thread, which lie in two pages at most: both are looked up before they are needed.
  struct Kept {
    int64 first, last;
    int inFirst, count;
    __device__ int64 operator[](int j) const {
      int64 row = j < inFirst ? first : last;
      return row < 0 ? -1 : j < inFirst ? first + j : last - (count - 1 - j);
    }
  };
  auto keptFrom = [&](int first) {
    int count = min(STEPS, p.length - first);
    if (count <= 0) return Kept{-1, -1, 0, 0};
    return Kept{kept(first), kept(first + count - 1), PAGE - (start + first) % PAGE, count};
  };
  int64 before = !p.gBefore && start > 0 && start <= p.pages.capacity ? keyRowAt(p.pages, batch, start - 1) : 0;

  int block = blockIdx.x;
  if (block < pairBlocks) {
    const double perTurn = 0.15915494309189533577, turn = 6.283185307179586476925;
    int line = block * 32 + lane;
    bool works = line < p.lines;
    if (!works) line = 0;
    double sum = p.gBefore ? p.phaseBefore[(int64)batch * p.lines + line] : start > 0 ? p.phases[before * p.lines + line] : 0.f;
    for (int base = 0; base < p.length; base += WARPS * STEPS) {
      int first = base + warp * STEPS;
      float steps[STEPS];
      float2 c[STEPS], b[STEPS];
      double own = 0;
#pragma unroll
      for (int j = 0; j < STEPS; j++) {
        int64 row = firstRow + min(first + j, p.length - 1);
        steps[j] = first + j < p.length ? p.phase[row * p.pitchPhase + line] : 0.f;
        c[j] = loadPair((const T*)p.c + row * p.pitchC + 2 * line), b[j] = loadPair((const T*)p.b + row * p.pitchB + 2 * line);
      }
#pragma unroll
      for (int j = 0; j < STEPS; j++) own += steps[j];
      Kept rows = keptFrom(first);
      double angle = sumBefore(own, sum, [](int) { return false; });
#pragma unroll
      for (int j = 0; j < STEPS; j++) {
        if (!works || first + j >= p.length) break;
        angle += steps[j];
        double turns = angle * perTurn;
        turns -= floor(turns);
        float sine, cosine;
        sincospif((float)(2 * turns), &sine, &cosine);
        storePair((T*)p.reads + (firstRow + first + j) * 2 * p.lines + 2 * line, c[j].x * cosine - c[j].y * sine,
                  c[j].x * sine + c[j].y * cosine);
        int64 row = rows[j];
        if (row < 0) continue;
        p.phases[row * p.lines + line] = (float)(turn * turns);
        storePair((T*)p.importances + row * 2 * p.lines + 2 * line, b[j].x * cosine - b[j].y * sine,
                  b[j].x * sine + b[j].y * cosine);
      }
    }
    return;
  }
  block -= pairBlocks;
  if (block < decayBlocks) {
    int head = block * 32 + lane;
    bool works = head < p.heads;
    if (!works) head = 0;
    auto restartsAt = [&](int t) { return (start + t) % BLOCK == 0; };
    double sum = p.gBefore ? p.gBefore[(int64)batch * p.heads + head] : start > 0 ? p.decays[before * p.heads + head] : 0.f;
    for (int base = 0; base < p.length; base += WARPS * STEPS) {
      int first = base + warp * STEPS;
      float steps[STEPS];
      double own = 0;
#pragma unroll
      for (int j = 0; j < STEPS; j++)
        steps[j] = first + j < p.length ? p.decay[(firstRow + first + j) * p.pitchDecay + head] : 0.f;
#pragma unroll
      for (int j = 0; j < STEPS; j++) {
        float strength = p.bias ? steps[j] + p.bias[head] : 0.f;
        if (p.bias) steps[j] = -(fmaxf(strength, 0.f) + log1pf(expf(-fabsf(strength))));
        own = (restartsAt(first + j) ? 0 : own) + steps[j];
      }
      Kept rows = keptFrom(first);
      double g = sumBefore(own, sum, [&](int w) {
        int at = start + base + w * STEPS;
        return (at + STEPS - 1) / BLOCK * BLOCK >= at;
      });
#pragma unroll
      for (int j = 0; j < STEPS; j++) {
        if (!works || first + j >= p.length) break;
        g = (restartsAt(first + j) ? 0 : g) + steps[j];
        if (p.g) p.g[(firstRow + first + j) * p.heads + head] = (float)g;
        int64 row = rows[j];
        if (row >= 0) p.decays[row * p.heads + head] = (float)g;
      }
    }
    return;
  }
  block -= decayBlocks;
  int eights = p.heads * p.width / 8, item = block * blockDim.x + threadIdx.x;
  if (item >= 3 * p.length * eights) return;
  int t = item / (3 * eights), which = item / eights % 3, element = item % eights * 8;
  const T* from = (const T*)(which == 0 ? p.q : which == 1 ? p.k : p.v);
  float x[8];
  Eight<T>::load(x, from + (firstRow + t) * (which == 0 ? p.pitchQ : which == 1 ? p.pitchK : p.pitchV) + element);
  if (which < 2 && p.cosine) {
    int place = max(min(start + t, p.positions - 1), 0) * (p.width / 2) + element % p.width / 2;
    float4 cosine = *(const float4*)(p.cosine + place), sine = *(const float4*)(p.sine + place);
    const float *cosines = &cosine.x, *sines = &sine.x;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cosines[i] - b * sines[i], x[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
  }
  int64 row = which == 0 ? firstRow + t : kept(t);
  void* to = which == 0 ? p.queries : which == 1 ? p.keys : p.values;
  if (row >= 0) Eight<T>::store((T*)to + row * p.heads * p.width + element, x);
}
#define PREPARE(suffix, T)                                                                                              \
  extern "C" __global__ void __launch_bounds__(32 * WARPS) prepareTokens_##suffix(const __grid_constant__ Tokens p) {   \
    prepareTokens<T>(p);                                                                                                \
  }
PREPARE(float32, float)
PREPARE(bfloat16, bf16)

struct CacheSizes {
  Pages pages;
  int batches, length, heads, width, valueWidth, stateWidth, span, splits;
  float scale;
};

const int mostBlocks = 8;    // blocks of a span; mostSpan / BLOCK in src/lowerings/decode.ts
const int perLane = 8;       // widths up to 256
const int atOnce = 4;        // keys whose loads a warp has in flight

// Attention of one query of one head to a span of the cache. A warp takes keys in turn, its lanes the elements of one.
// partial: [batches, length, heads, splits, 2 + valueWidth]: largest score, sum of weights, weighted values.
template <class T>
__device__ void cachedAttention(const T* q, const T* k, const T* v, const T* c, const T* b, const float* gQuery,
                                const float* gKey, const float* lambda, const int* start, float* partial,
                                const CacheSizes& n) {
  __shared__ float rest[mostBlocks];
  __shared__ float maxima[4], totals[4], values[4][perLane * 32];
  waitForOthers();
  letNextBegin();
  const int type = sizeof(T) == 4 ? Float32 : Bfloat16;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y;
  int batch = blockIdx.z / n.length, t = blockIdx.z % n.length;
  int position = (start ? start[batch] : 0) + t;
  int first = blockIdx.x * n.span, end = min(min(first + n.span, n.pages.capacity), position + 1);
  int64 row = ((int64)batch * n.length + t) * n.heads + head;
  auto keyAt = [&](int j) { return keyRowAt(n.pages, batch, j) * n.heads + head; };
  bool decays = c != nullptr;
  if (decays && first < end) {
    // What decays from the end of each block of the span up to the query: totals of the blocks between, and its own sum.
    int queryBlock = position / BLOCK;
    for (int i = warp; i < n.span / BLOCK; i += 4) {
      double sum = 0;
      for (int m = first / BLOCK + i + lane; m < queryBlock; m += 32) sum += gKey[keyAt(m * BLOCK + BLOCK - 1)];
      sum = warpSum(sum);
      if (lane == 0) rest[i] = (float)(sum + gQuery[row]);
    }
  }
  __syncthreads();
  float qs[perLane] = {}, cs[perLane] = {}, acc[perLane] = {};
  float factor = decays ? lambda[head] : 0;
#pragma unroll
  for (int i = 0; i < perLane; i++) {
    int e = lane + 32 * i;
    if (e < n.width) qs[i] = load<float>(q, type, row * n.width + e) * n.scale;
    if (decays && e < n.stateWidth) cs[i] = load<float>(c, type, row * n.stateWidth + e) * factor;
  }
  float most = -INFINITY, total = 0;
  for (int j0 = first + warp * atOnce; j0 < end; j0 += 4 * atOnce) {
    float scores[atOnce];
    int64 firstKey = keyAt(j0);
#pragma unroll
    for (int u = 0; u < atOnce; u++) {
      int j = min(j0 + u, end - 1);
      int64 key = firstKey + (int64)(j - j0) * n.heads;
      float content = 0, state = 0;
#pragma unroll
      for (int i = 0; i < perLane; i++) {
        int e = lane + 32 * i;
        if (e < n.width) content += qs[i] * load<float>(k, type, key * n.width + e);
        if (decays && e < n.stateWidth) state += cs[i] * load<float>(b, type, key * n.stateWidth + e);
      }
      if (decays) content += state * expf(fminf(rest[(j - first) / BLOCK] - gKey[key], 0.f));
      scores[u] = content;
    }
    float largest = most;
#pragma unroll
    for (int u = 0; u < atOnce; u++) {
      scores[u] = j0 + u < end ? warpSum(scores[u]) : (warpSum(scores[u]), -INFINITY);
      largest = fmaxf(largest, scores[u]);
    }
    float shrink = expf(most - largest);
    most = largest;
    total *= shrink;
#pragma unroll
    for (int i = 0; i < perLane; i++) acc[i] *= shrink;
#pragma unroll
    for (int u = 0; u < atOnce; u++) {
      float weight = expf(scores[u] - most);
      total += weight;
      int64 key = firstKey + (int64)(min(j0 + u, end - 1) - j0) * n.heads;
#pragma unroll
      for (int i = 0; i < perLane; i++) {
        int e = lane + 32 * i;
        if (e < n.valueWidth) acc[i] += weight * load<float>(v, type, key * n.valueWidth + e);
      }
    }
  }
  if (lane == 0) maxima[warp] = most, totals[warp] = total;
#pragma unroll
  for (int i = 0; i < perLane; i++) values[warp][lane + 32 * i] = acc[i];
  __syncthreads();
  float all = fmaxf(fmaxf(maxima[0], maxima[1]), fmaxf(maxima[2], maxima[3]));
  float* own = partial + (row * n.splits + blockIdx.x) * (2 + n.valueWidth);
  float weights[4];
  for (int w = 0; w < 4; w++) weights[w] = maxima[w] == -INFINITY ? 0.f : expf(maxima[w] - all);
  for (int e = threadIdx.x; e < n.valueWidth; e += blockDim.x) {
    float sum = 0;
    for (int w = 0; w < 4; w++) sum += weights[w] * values[w][e];
    own[2 + e] = sum;
  }
  if (threadIdx.x == 0) {
    own[0] = all;
    own[1] = weights[0] * totals[0] + weights[1] * totals[1] + weights[2] * totals[2] + weights[3] * totals[3];
  }
}

// Attention of 64 queries of one head to a part of the keys that they see, by tiles of 64 keys, from near to far. A tile of keys
// is a block of decay, one of queries lies in two at most. With R the block of query i, J that of key j:
//   exp(g_i - g_j) = exp(g_i + totals between J and R) * exp(total_J - g_j)  for J < R,
// factors of a row and of a column, both at most 1.
template <int D, int S>
__device__ void attentionTiles(const bf16* q, const bf16* k, const bf16* v, const bf16* c, const bf16* b,
                               const float* gQuery, const float* gKey, const float* lambda, const int* start,
                               float* partial, const CacheSizes& sizes) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float decays[TILE], fades[TILE], sums[32];
  waitForOthers();
  letNextBegin();
  const int SW = S ? S : 16, NARROW = S ? Tile<SW>::ELEMENTS : 0;
  const Tile<D> queries{(bf16*)shared}, keys{queries.data + Tile<D>::ELEMENTS}, values{keys.data + Tile<D>::ELEMENTS};
  const Tile<SW> reads{values.data + Tile<D>::ELEMENTS}, writes{reads.data + NARROW};
  int tiles = (sizes.length + TILE - 1) / TILE, head = blockIdx.y, batch = blockIdx.z / tiles;
  int first = blockIdx.z % tiles * TILE, rows = min(TILE, sizes.length - first), row = threadIdx.x / 32 * 16;
  int position = start[batch] + first, end = min(position + rows, sizes.pages.capacity);
  int all = (end + TILE - 1) / TILE, share = (all + sizes.splits - 1) / sizes.splits;
  int from = blockIdx.x * share, to = min(from + share, all);
  int64 wide = (int64)sizes.heads * D, narrow = (int64)sizes.heads * S, sequence = (int64)batch * sizes.length * sizes.heads + head;
  auto partOf = [&](int r) {
    return partial + ((sequence + (int64)(first + r) * sizes.heads) * sizes.splits + blockIdx.x) * (2 + D);
  };
  if (from >= to) {
    if (threadIdx.x < rows) partOf(threadIdx.x)[0] = -INFINITY;
    return;
  }

  auto firstKeyOf = [&](int tile) { return keyRowAt(sizes.pages, batch, tile * TILE) * sizes.heads + head; };
  auto totalOf = [&](int tile) {
    return tile * TILE + TILE <= sizes.pages.capacity ? gKey[firstKeyOf(tile) + (TILE - 1) * sizes.heads] : 0.f;
  };
  // What no query sees becomes zero, whatever is there.
  auto fetchKeys = [&](int tile) {
    int64 key = firstKeyOf(tile);
    int count = min(end - tile * TILE, TILE);
    keys.load(k + key * D, wide, 0, count);
    if (S) {
      writes.load(b + key * S, narrow, 0, count);
      if (threadIdx.x < TILE) {
        float g = threadIdx.x < count ? gKey[key + threadIdx.x * sizes.heads] : 0.f;
        float total = count == TILE ? gKey[key + (TILE - 1) * sizes.heads] : 0.f;
        decays[threadIdx.x] = g, fades[threadIdx.x] = expf(fminf(total - g, 0.f));
      }
    }
    commitCopies();
  };
  auto fetchValues = [&](int tile) {
    values.load(v + firstKeyOf(tile) * D, wide, 0, min(end - tile * TILE, TILE));
    commitCopies();
  };

  queries.load(q + sequence * D, wide, first, sizes.length);
  if (S) reads.load(c + sequence * S, narrow, first, sizes.length);
  fetchKeys(to - 1);
  fetchValues(to - 1);
  int own = position / TILE;          // block of the first query
  float span = 0, ownTotal = 0;       // totals between the tile of keys and that block, and of that block
  float g[2] = {0, 0}, weight = 0;
  bool isLater[2] = {false, false};   // whether a query lies in the block after that
  int newest[2];                      // key that it sees
#pragma unroll
  for (int half = 0; half < 2; half++) newest[half] = min(position + row + rowOf(2 * half), end - 1);
  if (S) {
    for (int tile = to + threadIdx.x; tile < own; tile += THREADS) span += totalOf(tile);
    span = blockSum(span, sums);
    if ((position + rows - 1) / TILE > own) ownTotal = totalOf(own);
    weight = lambda[head] / sizes.scale;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int r = row + rowOf(2 * half);
      if (r < rows) g[half] = gQuery[sequence + (int64)(first + r) * sizes.heads];
      isLater[half] = (position + r) / TILE > own;
    }
  }

  float found[D / 8][4], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, factor = sizes.scale * LOG2E;
  clear(found);
  for (int tile = to - 1; tile >= from; tile--) {
    waitCopies<1>();
    __syncthreads();
    float s[8][4], tileTotal = S ? decays[TILE - 1] : 0.f;
    bool works = row < rows;
    clear(s);
    if (works && S) {
      productByRow<SW>(s, reads, row, writes, 0);
      bool isFar = tile < own;
      float rest[2], fade[2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float between = isFar ? span + (isLater[half] ? ownTotal : 0.f) : isLater[half] && tile == own ? tileTotal : 0.f;
        rest[half] = g[half] + between;
        fade[half] = isFar ? weight * expf(fminf(rest[half], 0.f)) : weight;
      }
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int column = columnOf(n, i);
          s[n][i] *= fade[i / 2] * (isFar ? fades[column] : expf(fminf(rest[i / 2] - decays[column], 0.f)));
        }
    }
    if (tile < own) span += tileTotal;
    if (works) productByRow<D>(s, queries, row, keys, 0);
    __syncthreads();
    if (tile > from) fetchKeys(tile - 1);
    else commitCopies();
    if (works) {
      int key = tile * TILE;
      if (key + TILE > min(position + row + 1, end)) {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++)
            if (key + columnOf(n, i) > newest[i / 2]) s[n][i] = -INFINITY;
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float largest = most[half];
#pragma unroll
        for (int n = 0; n < 8; n++) largest = fmaxf(largest, fmaxf(s[n][half * 2], s[n][half * 2 + 1]) * factor);
        largest = quadMax(largest);
        // A query may see no key of a tile.
        float shift = largest == -INFINITY ? 0.f : largest, fix = exp2f(most[half] - shift), sum = 0;
        most[half] = largest;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = half * 2; i < half * 2 + 2; i++) sum += s[n][i] = exp2f(s[n][i] * factor - shift);
        total[half] = total[half] * fix + quadSum(sum);
#pragma unroll
        for (int n = 0; n < D / 8; n++) found[n][half * 2] *= fix, found[n][half * 2 + 1] *= fix;
      }
    }
    waitCopies<1>();
    __syncthreads();
    if (works) productByColumn<D>(found, s, values, 0);
    __syncthreads();
    if (tile > from) fetchValues(tile - 1);
    else commitCopies();
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int r = row + rowOf(2 * half);
    if (r >= rows) continue;
    float* part = partOf(r);
    if (threadIdx.x % 4 == 0) part[0] = most[half] / LOG2E, part[1] = total[half];
#pragma unroll
    for (int n = 0; n < D / 8; n++) *(float2*)(part + 2 + columnOf(n, 0)) = make_float2(found[n][half * 2], found[n][half * 2 + 1]);
  }
}
#define TILES(D, S)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(THREADS) attentionTiles_##D##_##S(                                         \
      const bf16* q, const bf16* k, const bf16* v, const bf16* c, const bf16* b, const float* gQuery, const float* gKey,  \
      const float* lambda, const int* start, float* partial, const __grid_constant__ CacheSizes n) {                      \
    attentionTiles<D, S>(q, k, v, c, b, gQuery, gKey, lambda, start, partial, n);                                         \
  }
TILES(64, 0)
TILES(64, 16)
TILES(64, 32)
TILES(64, 64)
TILES(64, 128)
TILES(128, 0)
TILES(128, 16)
TILES(128, 32)
TILES(128, 64)
TILES(128, 128)

// Joins the parts of each query and head: the values, and log-sum-exp [batches, heads, length] where it is asked for.
template <class T> __device__ void joinSpans(const float* partial, T* value, float* logSumExp, const CacheSizes& n) {
  const int type = sizeof(T) == 4 ? Float32 : Bfloat16;
  int head = blockIdx.x, lane = threadIdx.x % 32, pitch = 2 + n.valueWidth;
  int64 row = (int64)blockIdx.y * n.heads + head;
  const float* own = partial + row * n.splits * pitch;
  waitForOthers();
  float most = -INFINITY, total = 0;
  for (int s = lane; s < n.splits; s += 32) most = fmaxf(most, own[s * pitch]);
  most = warpMax(most);
  for (int s = lane; s < n.splits; s += 32) total += own[s * pitch] == -INFINITY ? 0.f : own[s * pitch + 1] * expf(own[s * pitch] - most);
  total = warpSum(total);
  for (int e = threadIdx.x; e < n.valueWidth; e += blockDim.x) {
    float sum = 0;
#pragma unroll 4
    for (int s = 0; s < n.splits; s++) {
      float score = own[s * pitch], part = own[s * pitch + 2 + e];
      sum += score == -INFINITY ? 0.f : part * expf(score - most);
    }
    store(value, type, row * n.valueWidth + e, sum / total);
  }
  int batch = blockIdx.y / n.length, t = blockIdx.y % n.length;
  if (logSumExp && threadIdx.x == 0) logSumExp[((int64)batch * n.heads + head) * n.length + t] = most + logf(total);
}
#define CACHED(suffix, T)                                                                                                 \
  extern "C" __global__ void cachedAttention_##suffix(                                                                    \
      const T* q, const T* k, const T* v, const T* c, const T* b, const float* gQuery, const float* gKey,                 \
      const float* lambda, const int* start, float* partial, const __grid_constant__ CacheSizes n) {                      \
    cachedAttention<T>(q, k, v, c, b, gQuery, gKey, lambda, start, partial, n);                                           \
  }                                                                                                                       \
  extern "C" __global__ void joinSpans_##suffix(const float* partial, T* value, float* logSumExp,                         \
                                                const __grid_constant__ CacheSizes n) {                                   \
    joinSpans<T>(partial, value, logSumExp, n);                                                                           \
  }
CACHED(float32, float)
CACHED(bfloat16, __nv_bfloat16)
