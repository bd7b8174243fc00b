// Tables of tensors as one launch takes them: entries with the first of their blocks, in order.
#pragma once

// The last entry whose first block is not after this one.
template <class Table> __device__ inline int entryOf(const Table& table, int block) {
  int low = 0, high = table.count - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (table.entries[middle].firstBlock <= block) low = middle;
    else high = middle - 1;
  }
  return low;
}
