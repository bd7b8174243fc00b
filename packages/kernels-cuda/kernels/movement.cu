// Operations that move elements and compute nothing: strided copies, rows by index, and filling.
#include "common.cuh"
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

extern "C" __global__ void iota(int* out, int64 count) {
  GRID_STRIDE(index, count) out[index] = (int)index;
}

// destination row r = source row ids[r] of `rows`; rows have `words` words. A block takes one row at a time.
// `batch` rows apart: source row ids[r] lies in the r-th batch of `rows` (takeRow), or in the only one (gather).
template <class T>
__device__ void gatherRows(const T* source, const int* ids, T* destination, int64 count, int rows, int64 words,
                           int batched, Fault* fault, int node) {
  for (int64 row = blockIdx.x; row < count; row += gridDim.x) {
    int id = ids[row];
    bool bad = id < 0 || id >= rows;
    if (bad && threadIdx.x == 0) report(fault, node, id);
    const T* from = source + ((batched ? row * rows : 0) + (bad ? 0 : id)) * words;
    for (int64 i = threadIdx.x; i < words; i += blockDim.x) destination[row * words + i] = bad ? T{} : from[i];
  }
}
#define GATHER(bytes, T)                                                                                       \
  extern "C" __global__ void gather_##bytes(const T* source, const int* ids, T* destination, int64 count,      \
                                            int rows, int64 words, int batched, Fault* fault, int node) {      \
    gatherRows<T>(source, ids, destination, count, rows, words, batched, fault, node);                         \
  }
GATHER(1, unsigned char)
GATHER(2, unsigned short)
GATHER(4, uint32)
GATHER(8, unsigned long long)
GATHER(16, uint4)

// cache[b, start[b] + t] = update[b, t]; rows have `bytes` bytes.
extern "C" __global__ void cacheWrite(const unsigned char* update, const int* start, unsigned char* cache,
                                      int capacity, int rows, int64 bytes, Fault* fault, int node) {
  int batch = blockIdx.y;
  int from = start[batch];
  if (from < 0 || from + (int64)rows > capacity) {
    if (blockIdx.x == 0 && threadIdx.x == 0) report(fault, node, from);
    return;
  }
  const unsigned char* source = update + (int64)batch * rows * bytes;
  unsigned char* target = cache + ((int64)batch * capacity + from) * bytes;
  GRID_STRIDE(index, rows * bytes) target[index] = source[index];
}

// The place of each id among equal ones, in order of index: counts how often it occurs before.
extern "C" __global__ void scatterRank(const int* ids, int count, int rows, int* ranks, int* totals, Fault* fault,
                                       int node) {
  __shared__ int tile[256];
  int index = blockIdx.x * 256 + threadIdx.x;
  int id = index < count ? ids[index] : -1;
  if (index < count && (id < 0 || id >= rows)) {
    report(fault, node, id);
    id = -1;
  }
  int before = 0;
  for (int first = 0; first <= blockIdx.x * 256; first += 256) {
    __syncthreads();
    int other = first + threadIdx.x;
    tile[threadIdx.x] = other < count ? ids[other] : -2;
    __syncthreads();
    int end = min(256, index - first);
    for (int i = 0; i < end; i++) before += tile[i] == id;
  }
  if (index < count) ranks[index] = id < 0 ? -1 : before;
  if (id >= 0) atomicAdd(&totals[id], 1);
}

// starts[r] = totals[0] + ... + totals[r - 1], by one block of 1024 threads.
extern "C" __global__ void scatterStarts(const int* totals, int rows, int* starts) {
  __shared__ int sums[1024];
  int share = (rows + 1023) / 1024;
  int first = threadIdx.x * share;
  int sum = 0;
  for (int i = 0; i < share && first + i < rows; i++) sum += totals[first + i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int step = 1; step < 1024; step <<= 1) {
    int other = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
    __syncthreads();
    sums[threadIdx.x] += other;
    __syncthreads();
  }
  int total = sums[threadIdx.x] - sum;
  for (int i = 0; i < share && first + i < rows; i++) {
    starts[first + i] = total;
    total += totals[first + i];
  }
}

extern "C" __global__ void scatterOrder(const int* ids, const int* ranks, const int* starts, int count, int* order) {
  GRID_STRIDE(index, count) if (ranks[index] >= 0) order[starts[ids[index]] + ranks[index]] = (int)index;
}

// Sums the updates of each row in order of index, so that the result never depends on scheduling.
#define SCATTER(suffix, C)                                                                                      \
  extern "C" __global__ void scatterSum_##suffix(const void* updates, int updateType, const int* order,         \
                                                 const int* starts, const int* totals, void* out, int outType,  \
                                                 int64 columns) {                                               \
    int row = blockIdx.x;                                                                                       \
    int first = starts[row], count = totals[row];                                                               \
    for (int64 column = threadIdx.x + (int64)blockIdx.y * blockDim.x; column < columns;                         \
         column += (int64)blockDim.x * gridDim.y) {                                                             \
      C sum = 0;                                                                                                \
      _Pragma("unroll 4") for (int i = 0; i < count; i++)                                                       \
          sum += load<C>(updates, updateType, order[first + i] * columns + column);                             \
      store(out, outType, (int64)row * columns + column, sum);                                                  \
    }                                                                                                           \
  }
SCATTER(f, float)
SCATTER(d, double)
