// Reductions and running sums, in their plain forms. Sums of float32 and narrower run in float, those over time in double.
#include "common.cuh"

// Kept axes (tensor 0: result, tensor 1: operand), then reduced axes (tensor 1 only).
struct Sum {
  static const int identity = 0;
  template <class C> static __device__ C first() { return (C)0; }
  template <class C> static __device__ C join(C a, C b) { return a + b; }
};
struct Max {
  template <class C> static __device__ C first() { return (C)-INFINITY; }
  template <class C> static __device__ C join(C a, C b) { return a != a || b != b ? a + b : (a > b ? a : b); }
};

// One block for each result; its threads go along the reduced axes, of which the last is contiguous.
template <class R, class C> __device__ void reduceRows(const void* x, void* out, const Axes& kept, const Axes& reduced) {
  __shared__ C parts[32];
  for (int64 row = blockIdx.x; row < kept.count; row += gridDim.x) {
    Places p = placesOf<2>(kept, row);
    C total = R::template first<C>();
    for (int64 i = threadIdx.x; i < reduced.count; i += blockDim.x)
      total = R::join(total, load<C>(x, kept.type[1], p.at[1] + placesOf<2>(reduced, i).at[1]));
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) total = R::join(total, __shfl_xor_sync(0xffffffffu, total, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < (int)blockDim.x / 32; i++) total = R::join(total, parts[i]);
      store(out, kept.type[0], p.at[0], total);
    }
  }
}

// 32 neighbouring results by 8 threads each; blockIdx.y takes a share of the reduced elements and writes its own part.
template <class R, class C>
__device__ void reduceColumns(const void* x, void* out, const Axes& kept, const Axes& reduced, int64 partStride) {
  __shared__ C parts[8][33];
  int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  int64 column = (int64)blockIdx.x * 32 + lane;
  int64 share = (reduced.count + gridDim.y - 1) / gridDim.y;
  int64 begin = blockIdx.y * share, end = min(begin + share, (int64)reduced.count);
  Places p = placesOf<2>(kept, min(column, kept.count - 1));
  C total = R::template first<C>();
  for (int64 i = begin + slice; i < end; i += 8)
    total = R::join(total, load<C>(x, kept.type[1], p.at[1] + placesOf<2>(reduced, i).at[1]));
  parts[slice][lane] = total;
  __syncthreads();
  if (slice == 0 && column < kept.count) {
    for (int i = 1; i < 8; i++) total = R::join(total, parts[i][lane]);
    store(out, kept.type[0], p.at[0] + blockIdx.y * partStride, total);
  }
}

#define REDUCE(name, R, suffix, C)                                                                                   \
  extern "C" __global__ void name##Rows_##suffix(const void* x, void* out, const __grid_constant__ Axes kept,        \
                                                 const __grid_constant__ Axes reduced) {                             \
    reduceRows<R, C>(x, out, kept, reduced);                                                                         \
  }                                                                                                                  \
  extern "C" __global__ void name##Columns_##suffix(const void* x, void* out, const __grid_constant__ Axes kept,     \
                                                    const __grid_constant__ Axes reduced, int64 partStride) {        \
    reduceColumns<R, C>(x, out, kept, reduced, partStride);                                                          \
  }
REDUCE(sum, Sum, f, float)
REDUCE(sum, Sum, d, double)
REDUCE(sum, Sum, i, int)
REDUCE(max, Max, f, float)
REDUCE(max, Max, d, double)

// Sums rows of parts [count, columns]: 32 neighbouring columns a block, by 32 warps that take every 32nd row each.
extern "C" __global__ void sumParts(const float* parts, void* out, int type, int count, int columns) {
  __shared__ float sums[32][33];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int column = blockIdx.x * 32 + lane;
  float sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (int row = warp; row < count; row += 32) sum += parts[(int64)row * columns + column];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  float total = warpSum(sums[lane][warp]);
  if (lane == 0 && blockIdx.x * 32 + warp < columns) store(out, type, (int64)blockIdx.x * 32 + warp, total);
}

// Place of the first largest element of each row; a row that begins with NaN gives 0, other NaN are never largest.
#define ARGMAX(suffix, C)                                                                                \
  extern "C" __global__ void argmax_##suffix(const void* x, int type, int* out, int64 rows, int columns) { \
    __shared__ C values[256];                                                                            \
    __shared__ int places[256];                                                                          \
    for (int64 row = blockIdx.x; row < rows; row += gridDim.x) {                                         \
      C first = load<C>(x, type, row * columns);                                                         \
      C best = first;                                                                                    \
      int place = 0;                                                                                     \
      for (int i = threadIdx.x; i < columns; i += 256) {                                                 \
        C value = load<C>(x, type, row * columns + i);                                                   \
        if (value > best || (value == best && i < place)) best = value, place = i;                       \
      }                                                                                                  \
      __syncthreads();                                                                                   \
      values[threadIdx.x] = best;                                                                        \
      places[threadIdx.x] = place;                                                                       \
      __syncthreads();                                                                                   \
      if (threadIdx.x == 0) {                                                                            \
        for (int i = 1; i < 256; i++)                                                                    \
          if (values[i] > best || (values[i] == best && places[i] < place)) best = values[i], place = places[i]; \
        out[row] = first != first ? 0 : place;                                                           \
      }                                                                                                  \
    }                                                                                                    \
  }
ARGMAX(f, float)
ARGMAX(d, double)

// One thread for each line of `length` elements, `inner` apart.
extern "C" __global__ void cumulativeSum(const void* x, void* out, int type, int64 lines, int64 length, int64 inner,
                                         int exclusive, int reverse) {
  GRID_STRIDE(line, lines) {
    int64 base = line / inner * length * inner + line % inner;
    double total = 0;
    for (int64 step = 0; step < length; step++) {
      int64 index = base + (reverse ? length - 1 - step : step) * inner;
      double next = total + load<double>(x, type, index);
      store(out, type, index, exclusive ? total : next);
      total = next;
    }
  }
}

// A block of 256 threads takes one line at a time in strips of 256 elements, for few lines that are long.
extern "C" __global__ void cumulativeSumStrips(const void* x, void* out, int type, int64 lines, int64 length,
                                               int64 inner, int exclusive, int reverse) {
  __shared__ double sums[8];
  __shared__ double carry;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int64 line = blockIdx.x; line < lines; line += gridDim.x) {
    int64 base = line / inner * length * inner + line % inner;
    if (threadIdx.x == 0) carry = 0;
    for (int64 first = 0; first < length; first += 256) {
      int64 step = first + threadIdx.x;
      int64 index = base + (reverse ? length - 1 - step : step) * inner;
      double own = step < length ? load<double>(x, type, index) : 0;
      double total = own;
#pragma unroll
      for (int offset = 1; offset < 32; offset <<= 1) {
        double other = __shfl_up_sync(0xffffffffu, total, offset);
        if (lane >= offset) total += other;
      }
      if (lane == 31) sums[warp] = total;
      __syncthreads();
      double before = carry;
      for (int i = 0; i < warp; i++) before += sums[i];
      total += before;
      if (step < length) store(out, type, index, exclusive ? total - own : total);
      __syncthreads();
      if (threadIdx.x == 255) carry = total;
      __syncthreads();
    }
  }
}

// y_t = x_t + (0 where position t is a multiple of `size`, else y_{t-1}). x: [batches, length, row]. Without a start,
// every block of `size` positions has a thread of its own.
extern "C" __global__ void blockCumulativeSum(const void* x, const void* before, const int* start, void* out, int type,
                                              int64 batches, int64 length, int64 row, int size, int reverse) {
  int64 segments = start ? 1 : (length + size - 1) / size;
  GRID_STRIDE(line, batches * row * segments) {
    int64 i = line % row, segment = line / row % segments, batch = line / row / segments;
    int64 first = start ? 0 : segment * size, end = start ? length : min(first + size, length);
    int64 origin = start ? start[batch] : 0;
    double total = before ? load<double>(before, type, batch * row + i) : 0;
    for (int64 step = first; step < end; step++) {
      int64 t = reverse ? first + end - 1 - step : step;
      int64 index = (batch * length + t) * row + i;
      if (start && (origin + t) % size == 0) total = 0;
      total += load<double>(x, type, index);
      store(out, type, index, total);
    }
  }
}

// Running sum of angles modulo a full turn. x: [batches, length, row]. A block takes 32 neighbouring lines; each of its
// eight warps sums an eighth of the time, and then begins where those before it ended.
extern "C" __global__ void cumulativePhase(const void* x, const void* before, void* out, int type, int64 batches,
                                           int64 length, int64 row) {
  const double turn = 6.283185307179586476925;
  __shared__ double sums[8][32];
  int lane = threadIdx.x % 32, part = threadIdx.x / 32;
  int64 share = (length + 7) / 8, first = part * share, end = min(first + share, length);
  for (int64 group = blockIdx.x; group * 32 < batches * row; group += gridDim.x) {
    int64 line = group * 32 + lane;
    bool inside = line < batches * row;
    int64 batch = inside ? line / row : 0, i = inside ? line % row : 0;
    double sum = 0;
#pragma unroll 4
    for (int64 t = first; t < end; t++) sum += load<double>(x, type, (batch * length + t) * row + i);
    sums[part][lane] = sum - turn * floor(sum / turn);
    __syncthreads();
    double phase = before && inside ? load<double>(before, type, batch * row + i) : 0;
    for (int j = 0; j < part; j++) phase += sums[j][lane];
    for (int64 start = first; start < end; start += 8) {
      double steps[8];
#pragma unroll
      for (int j = 0; j < 8; j++)
        steps[j] = start + j < end ? load<double>(x, type, (batch * length + start + j) * row + i) : 0;
#pragma unroll
      for (int j = 0; j < 8; j++) {
        phase += steps[j];
        phase -= turn * floor(phase / turn);
        if (inside && start + j < end) store(out, type, (batch * length + start + j) * row + i, phase);
      }
    }
    __syncthreads();
  }
}

// h_t = a_t h_{t-1} + b_t. a, b: [batches, length, row].
#define SCAN(suffix, C)                                                                                         \
  extern "C" __global__ void linearScan_##suffix(const void* a, const void* b, const void* h0, void* out, int type, \
                                                 int64 batches, int64 length, int64 row, int reverse) {         \
    GRID_STRIDE(line, batches * row) {                                                                          \
      int64 batch = line / row, i = line % row;                                                                 \
      C h = h0 ? load<C>(h0, type, batch * row + i) : (C)0;                                                     \
      for (int64 step = 0; step < length; step++) {                                                             \
        int64 index = (batch * length + (reverse ? length - 1 - step : step)) * row + i;                        \
        h = load<C>(a, type, index) * h + load<C>(b, type, index);                                              \
        store(out, type, index, h);                                                                             \
      }                                                                                                         \
    }                                                                                                           \
  }
SCAN(f, float)
SCAN(d, double)
