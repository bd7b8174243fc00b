// Instructions of sm_90a: barriers in shared memory, the copy engine for tiles, and products by warpgroups of four warps.
#pragma once
#include "common.cuh"

typedef unsigned long long uint64;
typedef __nv_bfloat16 bf16;

// What cuTensorMapEncodeTiled writes.
struct alignas(64) TensorMap {
  unsigned char opaque[128];
};

__device__ inline uint32 addressOf(const void* p) { return (uint32)__cvta_generic_to_shared(p); }

// ---------------------------------------------------------------------------------------------------------------------
__device__ inline void startBarrier(uint32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
// Makes started barriers visible to the copy engine.
__device__ inline void fenceBarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Lets the copy engine and products read what this thread has written to shared memory.
__device__ inline void fenceShared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ inline void arrive(uint32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// One arrival for a warp, all of whose lanes are done.
__device__ inline void leave(uint32 barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) arrive(barrier);
}
__device__ inline void arriveExpecting(uint32 barrier, uint32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void wait(uint32 barrier, uint32 parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier), "r"(parity)
      : "memory");
}

// A box of [columns, head, rows, batch] from the given place on; rows beyond the tensor become zero.
__device__ inline void copyTile(uint32 target, const TensorMap& map, int column, int head, int row, int batch, uint32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(target),
      "l"(&map), "r"(column), "r"(head), "r"(row), "r"(batch), "r"(barrier)
      : "memory");
}
__device__ inline void copyBytes(uint32 target, const void* source, uint32 bytes, uint32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target), "l"(source),
               "r"(bytes), "r"(barrier)
               : "memory");
}

template <int N> __device__ inline void giveRegisters() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ inline void takeRegisters() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

// ---------------------------------------------------------------------------------------------------------------------
// A tile of R rows, W wide, in shared memory as the copy engine lays it: panels of at most 64 columns one after another,
// each row's 16-byte parts permuted with the row (a swizzle as wide as the row).
template <int W, int R> struct SharedTile {
  static const int PANEL = W < 64 ? W : 64;
  static const int ROW_BYTES = 2 * PANEL;
  static const int BYTES = 2 * W * R;
  static const uint32 MASK = ROW_BYTES / 16 - 1;
  uint32 base;

  // Starts copies of R rows; the boxes of the map are PANEL wide and R high.
  __device__ void copy(const TensorMap& map, int head, int row, int batch, uint32 barrier) const {
#pragma unroll
    for (int panel = 0; panel < W / PANEL; panel++) copyTile(base + panel * R * ROW_BYTES, map, panel * PANEL, head, row, batch, barrier);
  }

  // Of what lies `offset` bytes from the base on. Descriptors of a tile differ by constants.
  __device__ uint64 descriptor(uint32 offset, uint32 betweenPanels) const {
    const uint64 layout = ROW_BYTES == 128 ? 1 : ROW_BYTES == 64 ? 2 : 3;
    uint32 low = ((base & 0x3ffff) >> 4 | betweenPanels >> 4 << 16) + (offset >> 4);
    return low | (uint64)(8 * ROW_BYTES >> 4) << 32 | layout << 62;
  }
  // Rows from `row` (of a multiple of 64) on as rows of the left or columns of the right operand; sums run over columns k..k+15.
  __device__ uint64 byRow(int row, int k) const { return descriptor((k / PANEL * R + row) * ROW_BYTES + k % PANEL * 2, 16); }
  // All W columns as columns of the right or, of 64, rows of the left operand; sums run over rows k..k+15.
  __device__ uint64 byColumn(int k) const { return descriptor(k * ROW_BYTES, R * ROW_BYTES); }
  // The same of one panel, and further columns from a panel that lies beyond it.
  __device__ uint64 byColumn(int k, const SharedTile& next) const { return descriptor(k * ROW_BYTES, next.base - base); }

  // Where eight elements of a row are, from a multiple of eight columns on.
  __device__ uint32 eight(int row, int column) const {
    uint32 place = base + (column / PANEL * R + row) * ROW_BYTES + column % PANEL * 2;
    return place ^ (place >> 7 & MASK) << 4;
  }

  // Rows row..row+15 and columns k..k+15 as one warp's left operand in registers.
  __device__ void left(uint32 (&a)[4], int row, int k) const {
    int lane = threadIdx.x % 32;
    uint32 place = (k / PANEL * R + row + lane % 16) * ROW_BYTES + (k % PANEL / 8 + lane / 16) * 16;
    place ^= (place >> 7 & MASK) << 4;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(base + place));
  }
  // Two neighbouring elements, from an even column on.
  __device__ __nv_bfloat162 pair(int row, int column) const {
    uint32 place = (column / PANEL * R + row) * ROW_BYTES + column % PANEL * 2, x;
    place ^= (place >> 7 & MASK) << 4;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(base + place));
    return *(__nv_bfloat162*)&x;
  }
};

// The reverse of SharedTile::left; `place` is of eight elements of row lane % 16, the second eight where lane is 16 or more.
__device__ inline void storeLeft(uint32 place, const uint32 (&a)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(place), "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
               : "memory");
}

// ---------------------------------------------------------------------------------------------------------------------
// Products run while the program goes on: what they read and write must not be touched before they are waited for.
__device__ inline void beginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ inline void waitProducts() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
// Keeps the compiler from moving uses of sums over a fence or a wait.
template <int N> __device__ inline void pin(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define SUMS4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS8(i) SUMS4(i), SUMS4(i + 4)
#define SUMS16(i) SUMS8(i), SUMS8(i + 8)
#define SUMS32(i) SUMS16(i), SUMS16(i + 16)
#define SUMS40(i) SUMS32(i), SUMS8(i + 32)
#define SUMS48(i) SUMS32(i), SUMS16(i + 32)
#define SUMS64(i) SUMS32(i), SUMS32(i + 32)
#define LIST8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LIST16 LIST8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LIST32 LIST16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST40 LIST32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define LIST48 LIST32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LIST64 LIST48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d += a b of 64 x 16 by 16 x N in bfloat16, or d = a b where not `add`. `byColumn` tells how b's descriptor was made,
// `leftByColumn` how a's was.
// The left operand lies in shared memory, or in registers in the layout of results.
#define PRODUCT(N, COUNT, ADD, A, B, TRANSPOSED, LEFT, A0, A1, A2, A3, RB, RADD, RTRANSPOSED)                              \
  template <int byColumn, int leftByColumn = 0>                                                                            \
  __device__ inline void multiply(float (&d)[COUNT], uint64 a, uint64 b, int add) {                                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #ADD ", 0;\n"                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST##COUNT "}, %" #A ", %" #B               \
                 ", p, 1, 1, %" #LEFT ", %" #TRANSPOSED ";\n}\n"                                                           \
                 : SUMS##COUNT(0) : "l"(a), "l"(b), "r"(add), "n"(byColumn), "n"(leftByColumn));                           \
  }                                                                                                                        \
  template <int byColumn> __device__ inline void multiply(float (&d)[COUNT], const uint32 (&a)[4], uint64 b, int add) {    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #RADD ", 0;\n"                                                       \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST##COUNT "}, {%" #A0 ", %" #A1 ", %" #A2  \
                 ", %" #A3 "}, %" #RB ", p, 1, 1, %" #RTRANSPOSED ";\n}\n"                                                 \
                 : SUMS##COUNT(0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(byColumn));          \
  }
PRODUCT(16, 8, 10, 8, 9, 11, 12, 8, 9, 10, 11, 12, 13, 14)
PRODUCT(32, 16, 18, 16, 17, 19, 20, 16, 17, 18, 19, 20, 21, 22)
PRODUCT(64, 32, 34, 32, 33, 35, 36, 32, 33, 34, 35, 36, 37, 38)
PRODUCT(80, 40, 42, 40, 41, 43, 44, 40, 41, 42, 43, 44, 45, 46)
PRODUCT(96, 48, 50, 48, 49, 51, 52, 48, 49, 50, 51, 52, 53, 54)
PRODUCT(128, 64, 66, 64, 65, 67, 68, 64, 65, 66, 67, 68, 69, 70)

