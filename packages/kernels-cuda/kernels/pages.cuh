// Where the rows of sequences lie: a run of rows for each, or pages of a pool that all share.
#pragma once
#include "common.cuh"

const int PAGE = 64;  // rows of a page, for kernels that read several keys at once; cachePage in src/lowerings/pages.ts

struct Pages {
  const int* table;        // [batches, perSequence]; none where each sequence has `capacity` rows of its own
  int perSequence, count;  // pages of a sequence, and of the pool
  int capacity;            // rows of a sequence
  int node;                // under which a page that is not there is reported
  Fault* fault;
};

// The row of a position, in pages of `size` rows; -1 where the page is not there.
__device__ inline int64 rowAt(const Pages& pages, int batch, int position, int size) {
  if (!pages.table) return (int64)batch * pages.capacity + position;
  int page = __ldcg(pages.table + (int64)batch * pages.perSequence + position / size);
  if (page < 0 || page >= pages.count) {
    report(pages.fault, pages.node, page);
    return -1;
  }
  return (int64)page * size + position % size;
}

// The same in pages of PAGE rows, and some row where the page is not there.
__device__ inline int64 keyRowAt(const Pages& pages, int batch, int position) {
  int64 row = rowAt(pages, batch, position, PAGE);
  return row < 0 ? 0 : row;
}
