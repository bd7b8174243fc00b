// What decoding takes where several tokens are read: SISA's states continued from a cache, and attention over a cache.
#include "eight.cuh"
#include "pages.cuh"

// SISA's states from any position: a thread goes through time with one pair of one head, or with one head's decay.
template <class T>
__device__ void continueStates(const T* c, const T* b, const float* logDecay, const float* phase, const float* gBefore,
                               const float* phaseBefore, const int* start, T* cRotated, T* bRotated, float* g, float* phi,
                               int batches, int length, int heads, int lines) {
  const double turn = 6.283185307179586476925;
  const int type = sizeof(T) == 4 ? Float32 : Bfloat16;
  GRID_STRIDE(index, (int64)batches * (lines + heads)) {
    int batch = index / (lines + heads), line = index % (lines + heads);
    if (line >= lines) {
      int head = line - lines;
      double total = gBefore[batch * heads + head];
      for (int t = 0; t < length; t++) {
        int64 at = ((int64)batch * length + t) * heads + head;
        if ((start[batch] + t) % 64 == 0) total = 0;
        total += logDecay[at];
        g[at] = (float)total;
      }
      continue;
    }
    double angle = phaseBefore[(int64)batch * lines + line];
    for (int t = 0; t < length; t++) {
      int64 at = ((int64)batch * length + t) * lines + line;
      angle += phase[at];
      angle -= turn * floor(angle / turn);
      float narrow = (float)angle, sine, cosine;
      sincosf(narrow, &sine, &cosine);
      phi[at] = narrow;
      float cx = load<float>(c, type, 2 * at), cy = load<float>(c, type, 2 * at + 1);
      float bx = load<float>(b, type, 2 * at), by = load<float>(b, type, 2 * at + 1);
      store(cRotated, type, 2 * at, cx * cosine - cy * sine), store(cRotated, type, 2 * at + 1, cx * sine + cy * cosine);
      store(bRotated, type, 2 * at, bx * cosine - by * sine), store(bRotated, type, 2 * at + 1, bx * sine + by * cosine);
    }
  }
}
#define CONTINUE(suffix, T)                                                                                              \
  extern "C" __global__ void continueStates_##suffix(                                                                    \
      const T* c, const T* b, const float* logDecay, const float* phase, const float* gBefore, const float* phaseBefore, \
      const int* start, T* cRotated, T* bRotated, float* g, float* phi, int batches, int length, int heads, int lines) { \
    continueStates<T>(c, b, logDecay, phase, gBefore, phaseBefore, start, cRotated, bRotated, g, phi, batches, length,   \
                      heads, lines);                                                                                     \
  }
CONTINUE(float32, float)
CONTINUE(bfloat16, __nv_bfloat16)

struct CacheSizes {
  Pages pages;
  int batches, length, heads, width, valueWidth, stateWidth, span, splits;
  float scale;
};

const int BLOCK = PAGE;      // decayBlock in @sisa/core
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

// Joins the spans of each query and head: the values, and log-sum-exp [batches, heads, length].
template <class T> __device__ void joinSpans(const float* partial, T* value, float* logSumExp, const CacheSizes& n) {
  const int type = sizeof(T) == 4 ? Float32 : Bfloat16;
  int head = blockIdx.x;
  int64 row = (int64)blockIdx.y * n.heads + head;
  const float* own = partial + row * n.splits * (2 + n.valueWidth);
  float most = -INFINITY, total = 0;
  for (int s = 0; s < n.splits; s++) most = fmaxf(most, own[s * (2 + n.valueWidth)]);
  for (int s = 0; s < n.splits; s++) {
    const float* part = own + s * (2 + n.valueWidth);
    total += part[0] == -INFINITY ? 0.f : part[1] * expf(part[0] - most);
  }
  for (int e = threadIdx.x; e < n.valueWidth; e += blockDim.x) {
    float sum = 0;
    for (int s = 0; s < n.splits; s++) {
      const float* part = own + s * (2 + n.valueWidth);
      if (part[0] != -INFINITY) sum += part[2 + e] * expf(part[0] - most);
    }
    store(value, type, row * n.valueWidth + e, sum / total);
  }
  int batch = blockIdx.y / n.length, t = blockIdx.y % n.length;
  if (threadIdx.x == 0) logSumExp[((int64)batch * n.heads + head) * n.length + t] = most + logf(total);
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
