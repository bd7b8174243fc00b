// Where the rows of sequences lie: a run of rows for each, or pages of a pool that all share.
#pragma once
#include "common.cuh"

const int PAGE = 64;  // rows of a page, for kernels that read several keys at once; cachePage in src/lowerings/decode.ts

struct Pages {
  const int* table;        // [batches, perSequence]; none where each sequence has `capacity` rows of its own
  int perSequence, count;  // pages of a sequence, and of the pool
  int capacity;            // rows of a sequence
};

// The row of a position. A page that is not there is reported, and taken for the first.
__device__ inline int64 rowAt(const Pages& pages, int batch, int position, Fault* fault, int node) {
  if (!pages.table) return (int64)batch * pages.capacity + position;
  int page = __ldcg(pages.table + (int64)batch * pages.perSequence + position / PAGE);
  if (page < 0 || page >= pages.count) {
    report(fault, node, page);
    page = 0;
  }
  return (int64)page * PAGE + position % PAGE;
}
