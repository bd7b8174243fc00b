// Operations that move elements and compute nothing: strided copies, rows by index, and filling.
#include "pages.cuh"
#include "tables.cuh"

// Tensor 0 is the destination, tensor 1 the source; words of 1, 2, 4, 8 or 16 bytes.
#define COPY(bytes, T)                                                                                       \
  extern "C" __global__ void copy_##bytes(const T* source, T* destination, const __grid_constant__ Axes axes) { \
    GRID_STRIDE(index, axes.count) {                                                                         \
      Places p = placesOf<2>(axes, index);                                                                   \
      destination[p.at[0]] = source[p.at[1]];                                                                \
    }                                                                                                        \
  }
COPY(1, unsigned char)
COPY(2, unsigned short)
COPY(4, uint32)
COPY(8, unsigned long long)
COPY(16, uint4)

const int MOVED = 32768;  // bytes of a block; blockBytes in src/moves.ts

struct Move {
  const unsigned char* source;  // null for zeros
  unsigned char* target;
  int64 bytes;
  int firstBlock;
  int unused;
};
struct MoveTable {
  int64 count;
  Move entries[120];
};

template <class Word> __device__ inline void moveWords(const Move& move, int64 first, int64 end) {
  const int AT_ONCE = 4;
  const Word* source = (const Word*)move.source;
  Word* target = (Word*)move.target;
  first /= sizeof(Word), end /= sizeof(Word);
  for (int64 i = first + threadIdx.x; i < end; i += AT_ONCE * blockDim.x) {
    Word words[AT_ONCE] = {};
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++)
      if (source && i + j * blockDim.x < end) words[j] = source[i + j * blockDim.x];
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++)
      if (i + j * blockDim.x < end) target[i + j * blockDim.x] = words[j];
  }
}

// Copies of bytes, and zeros, all of which may be done at once.
extern "C" __global__ void moveMany(const __grid_constant__ MoveTable table) {
  const Move& move = table.entries[entryOf(table, blockIdx.x)];
  int64 first = (int64)(blockIdx.x - move.firstBlock) * MOVED, end = min(first + MOVED, move.bytes);
  unsigned long long places = (unsigned long long)move.source | (unsigned long long)move.target | move.bytes;
  if (places % 16 == 0) moveWords<uint4>(move, first, end);
  else if (places % 4 == 0) moveWords<uint32>(move, first, end);
  else moveWords<unsigned char>(move, first, end);
}

// Words of two places, one behind the other.
extern "C" __global__ void readWords(const uint32* first, int64 firstCount, const uint32* second, int64 secondCount, uint32* target) {
  GRID_STRIDE(index, firstCount + secondCount) target[index] = index < firstCount ? first[index] : second[index - firstCount];
}

extern "C" __global__ void iota(int* out, int64 count) {
  GRID_STRIDE(index, count) out[index] = (int)index;
}

// destination row r = source row ids[r] of `rows`; rows have `words` words. A block takes one row at a time.
template <class T>
__device__ void gatherRows(const T* source, const int* ids, T* destination, int64 count, int rows, int64 words,
                           Fault* fault, int node) {
  for (int64 row = blockIdx.x; row < count; row += gridDim.x) {
    int id = ids[row];
    bool bad = id < 0 || id >= rows;
    if (bad && threadIdx.x == 0) report(fault, node, id);
    const T* from = source + (bad ? 0 : id) * words;
    for (int64 i = threadIdx.x; i < words; i += blockDim.x) destination[row * words + i] = bad ? T{} : from[i];
  }
}
#define GATHER(bytes, T)                                                                                  \
  extern "C" __global__ void gather_##bytes(const T* source, const int* ids, T* destination, int64 count, \
                                            int rows, int64 words, Fault* fault, int node) {              \
    gatherRows<T>(source, ids, destination, count, rows, words, fault, node);                             \
  }
GATHER(1, unsigned char)
GATHER(2, unsigned short)
GATHER(4, uint32)
GATHER(8, unsigned long long)
GATHER(16, uint4)

// One row of `words` of each sequence.
template <class T>
__device__ void takeRows(const T* source, const int* positions, T* destination, int batches, int size, int64 words,
                         Fault* fault, int node, const Pages& pages) {
  for (int batch = blockIdx.x; batch < batches; batch += gridDim.x) {
    int position = positions[batch];
    bool bad = position < 0 || position >= pages.capacity;
    if (bad && threadIdx.x == 0) report(fault, node, position);
    int64 row = bad ? -1 : rowAt(pages, batch, position, size);
    for (int64 i = threadIdx.x; i < words; i += blockDim.x) {
      destination[batch * words + i] = row < 0 ? T{} : source[row * words + i];
    }
  }
}

// Rows of `words` each, from a position of each sequence on.
template <class T>
__device__ void writeRows(const T* update, const int* start, T* cache, int rows, int size, int64 words, Fault* fault,
                          int node, const Pages& pages) {
  int batch = blockIdx.y;
  int from = start[batch];
  if (from < 0 || from + (int64)rows > pages.capacity) {
    if (blockIdx.x == 0 && threadIdx.x == 0) report(fault, node, from);
    return;
  }
  for (int t = blockIdx.x; t < rows; t += gridDim.x) {
    int64 row = rowAt(pages, batch, from + t, size);
    if (row < 0) continue;
    const T* source = update + ((int64)batch * rows + t) * words;
    for (int64 i = threadIdx.x; i < words; i += blockDim.x) cache[row * words + i] = source[i];
  }
}
#define CACHE_ROWS(bytes, T)                                                                                         \
  extern "C" __global__ void takeRow_##bytes(const T* source, const int* positions, T* destination, int batches,     \
                                             int size, int64 words, Fault* fault, int node,                          \
                                             const __grid_constant__ Pages pages) {                                  \
    takeRows<T>(source, positions, destination, batches, size, words, fault, node, pages);                           \
  }                                                                                                                  \
  extern "C" __global__ void cacheWrite_##bytes(const T* update, const int* start, T* cache, int rows, int size,     \
                                                int64 words, Fault* fault, int node,                                 \
                                                const __grid_constant__ Pages pages) {                               \
    writeRows<T>(update, start, cache, rows, size, words, fault, node, pages);                                       \
  }
CACHE_ROWS(1, unsigned char)
CACHE_ROWS(2, unsigned short)
CACHE_ROWS(4, uint32)
CACHE_ROWS(8, unsigned long long)
CACHE_ROWS(16, uint4)

// Rows of updates by the row that gets them, in order of index: a stable radix sort, a digit of eight bits at a time from
// the lowest. `order` holds indices as sorted so far, or is null for 0, 1, 2, ... Ids that are no row come last.
const int DIGITS = 256;
const int SORTED = 1024;  // indices of a block; sortedAtOnce in src/lowerings/movement.ts

__device__ inline int targetOf(const int* ids, int index, int rows) {
  int id = ids[index];
  return id < 0 || id >= rows ? rows : id;
}

// counts[digit, block]
extern "C" __global__ void scatterCount(const int* ids, const int* order, int count, int rows, int shift, int* counts,
                                        Fault* fault, int node) {
  __shared__ int own[DIGITS];
  if (threadIdx.x < DIGITS) own[threadIdx.x] = 0;
  __syncthreads();
  int place = blockIdx.x * SORTED + threadIdx.x;
  if (place < count) {
    int index = order ? order[place] : place;
    int target = targetOf(ids, index, rows);
    if (target == rows) report(fault, node, ids[index]);
    atomicAdd(&own[target >> shift & (DIGITS - 1)], 1);
  }
  __syncthreads();
  if (threadIdx.x < DIGITS) counts[threadIdx.x * gridDim.x + blockIdx.x] = own[threadIdx.x];
}

// Each becomes the sum of those before it, by one block of 1024 threads.
extern "C" __global__ void scatterPlaces(int* counts, int size) {
  __shared__ int sums[1024];
  int share = (size + 1023) / 1024;
  int first = threadIdx.x * share, last = min(first + share, size);
  int sum = 0;
  for (int i = first; i < last; i++) sum += counts[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int step = 1; step < 1024; step <<= 1) {
    int other = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
    __syncthreads();
    sums[threadIdx.x] += other;
    __syncthreads();
  }
  int total = sums[threadIdx.x] - sum;
  for (int i = first; i < last; i++) {
    int own = counts[i];
    counts[i] = total;
    total += own;
  }
}

extern "C" __global__ void __launch_bounds__(SORTED)
    scatterMove(const int* ids, const int* order, int count, int rows, int shift, const int* places, int* sorted) {
  __shared__ int next[SORTED / 32][DIGITS];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = threadIdx.x; i < SORTED / 32 * DIGITS; i += SORTED) next[i / DIGITS][i % DIGITS] = 0;
  __syncthreads();
  int place = blockIdx.x * SORTED + threadIdx.x;
  int index = place >= count ? -1 : order ? order[place] : place;
  int digit = index < 0 ? -1 : targetOf(ids, index, rows) >> shift & (DIGITS - 1);
  uint32 same = __match_any_sync(0xffffffffu, digit);
  int before = __popc(same & ((1u << lane) - 1));
  if (digit >= 0 && before == 0) next[warp][digit] = __popc(same);
  __syncthreads();
  if (threadIdx.x < DIGITS) {
    int total = places[threadIdx.x * gridDim.x + blockIdx.x];
    for (int i = 0; i < SORTED / 32; i++) {
      int own = next[i][threadIdx.x];
      next[i][threadIdx.x] = total;
      total += own;
    }
  }
  __syncthreads();
  if (digit >= 0) sorted[next[warp][digit] + before] = index;
}

// starts[r], for r from 0 to `rows`: how many updates go to rows before r.
extern "C" __global__ void scatterStarts(const int* ids, const int* order, int count, int rows, int* starts) {
  GRID_STRIDE(row, (int64)rows + 1) {
    int low = 0, high = count;
    while (low < high) {
      int middle = low + (high - low) / 2;
      if (targetOf(ids, order[middle], rows) < row) low = middle + 1;
      else high = middle;
    }
    starts[row] = low;
  }
}

// Sums the updates of each row in order of index, so that the result never depends on scheduling; reads several at once.
template <class C, int TYPE>
__device__ __noinline__ C sumOf(C sum, const void* updates, const int* order, int first, int last, int64 columns, int64 column) {
  const int AT_ONCE = 16;
  for (int i = first; i < last; i += AT_ONCE) {
    C x[AT_ONCE];
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) x[j] = i + j < last ? load<C>(updates, TYPE, order[i + j] * columns + column) : (C)0;
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) sum += x[j];
  }
  return sum;
}
// Where `adds` is not 0, sums are added to what is there. Most rows get few updates or none: those of several rows are read
// at once.
template <class C, int TYPE>
__device__ void scatterRows(const void* updates, const int* order, const int* starts, void* out, int outType, int rows,
                            int64 columns, int adds) {
  const int ROWS = 4, FEW = 2;
  for (int row = blockIdx.x * ROWS; row < rows; row += gridDim.x * ROWS) {
    int start[ROWS + 1];
#pragma unroll
    for (int r = 0; r <= ROWS; r++) start[r] = starts[min(row + r, rows)];
    for (int64 column = threadIdx.x + (int64)blockIdx.y * blockDim.x; column < columns; column += (int64)blockDim.x * gridDim.y) {
      C before[ROWS], x[ROWS][FEW];
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        bool reads = adds && start[r] < start[r + 1];
        before[r] = reads ? load<C>(out, outType, (row + r) * columns + column) : (C)0;
#pragma unroll
        for (int j = 0; j < FEW; j++) {
          int place = start[r] + j;
          x[r][j] = place < start[r + 1] ? load<C>(updates, TYPE, order[place] * columns + column) : (C)0;
        }
      }
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        C sum = 0;
#pragma unroll
        for (int j = 0; j < FEW; j++) sum += x[r][j];
        if (start[r] + FEW < start[r + 1]) sum = sumOf<C, TYPE>(sum, updates, order, start[r] + FEW, start[r + 1], columns, column);
        if (row + r < rows && !(adds && start[r] == start[r + 1])) store(out, outType, (row + r) * columns + column, before[r] + sum);
      }
    }
  }
}
template <class C>
__device__ void scatterSum(const void* updates, int updateType, const int* order, const int* starts, void* out, int outType,
                           int rows, int64 columns, int adds) {
  switch (updateType) {
    case Float32: scatterRows<C, Float32>(updates, order, starts, out, outType, rows, columns, adds); break;
    case Float64: scatterRows<C, Float64>(updates, order, starts, out, outType, rows, columns, adds); break;
    case Float16: scatterRows<C, Float16>(updates, order, starts, out, outType, rows, columns, adds); break;
    default: scatterRows<C, Bfloat16>(updates, order, starts, out, outType, rows, columns, adds);
  }
}
#define SCATTER(suffix, C)                                                                                      \
  extern "C" __global__ void scatterSum_##suffix(const void* updates, int updateType, const int* order,         \
                                                 const int* starts, void* out, int outType, int rows,           \
                                                 int64 columns, int adds) {                                     \
    scatterSum<C>(updates, updateType, order, starts, out, outType, rows, columns, adds);                       \
  }
SCATTER(f, float)
SCATTER(d, double)
