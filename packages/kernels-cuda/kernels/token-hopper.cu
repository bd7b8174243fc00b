// A token of decoding by one launch: what few-rows.cu and decode-step.cu do in a launch each are phases here, with a barrier of
// all blocks between two. While some phases are at work, one warp of each block copies the weights of the coming ones to shared
// memory, and asks for the caches. Only so much is on its way at once as the memory's rate needs: whatever else is read waits
// behind it.
#include "decode-step.cuh"
#include "few-rows.cuh"
#include "hopper.cuh"

const int mostPhases = 120;
const int mostPieces = 16;   // of weights that are in shared memory or on their way
const int mostSums = 128;    // results of a piece
const int padding = 16;      // bytes between rows of weights, so that eight rows lie in different banks
const int stepWidth = 16;    // elements of k that an instruction takes

struct alignas(16) Phase {
  int isStep;
  union {
    FewRows product;
    DecodeStep step;
  };
};

struct Token {
  uint32* arrived;  // blocks at barriers, zero between runs
  int count, xBytes, ringBytes, pieceBytes, flightBytes;
  Phase phases[mostPhases];
};

// What a block does of a product: results, or pairs of them for a gate, and how many at a time.
struct Share {
  int first, size, most;
};

// What a block does of attention: a part of the cache of one head of all batches' heads.
struct Item {
  int line, part, span, active, position;  // `active` parts hold the tokens up to the newest, which is at `position`
};

__device__ inline Item itemOf(const DecodeStep& p, int index) {
  int lines = p.batches * p.heads, splits = min(p.splits, max(1, (int)gridDim.x / lines));
  Item item = {index % lines, index / lines};
  item.position = p.start[item.line / p.heads];
  item.span = max(BLOCK, (item.position + splits) / splits);
  item.active = max(item.position, 0) / item.span + 1;
  if (item.part >= splits) item.line = -1;
  return item;
}

__device__ inline void multiplyAdd(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <int WARPS> struct Shared {
  union {
    Share share;
    Item item;
  } own[mostPhases];
  uint64 full[mostPieces], empty[mostPieces];
  int place[mostPieces];  // of pieces in the ring
  float squares[WARPS][mostRows];
  float sums[2][WARPS][mostSums];
};

__device__ inline int rowsOf(const FewRows& p) { return p.isGate ? 2 : 1; }
__device__ inline int pitchOf(const FewRows& p) { return p.k * 2 + padding; }

__device__ inline Share shareOf(const FewRows& p, int pieceBytes) {
  int all = p.isGate ? p.n[0] : p.n[0] + p.n[1];
  int each = all / gridDim.x, more = all % gridDim.x, block = blockIdx.x;
  int first = block * each + min(block, more), size = each + (block < more);
  return {first, size, max(1, min(mostSums / p.rows, pieceBytes / pitchOf(p)) / rowsOf(p))};
}

// The warp that copies weights, piece after piece, to a ring that the others read in the same order.
template <int D, int S, int WARPS> struct Copier {
  const Token& token;
  Shared<WARPS>& shared;
  const Phase* phases;
  unsigned char* ring;
  int lane = threadIdx.x % 32;
  int copied = 0, landed = 0, freed = 0;  // pieces
  int end = 0, used = 0, flying = 0;      // bytes: where the ring is free from, how many are in use, and on their way
  int taken = 0, size = 0;                // of the piece of this lane: bytes with those left out before it, and its own

  __device__ void waitForRoom(int taking, int bytes) {
    while (used + taking > token.ringBytes || copied - freed == mostPieces) {
      wait(addressOf(&shared.empty[freed % mostPieces]), freed / mostPieces & 1);
      used -= __shfl_sync(0xffffffffu, taken, freed++ % mostPieces);
    }
    while (landed < copied && flying + bytes > token.flightBytes) {
      wait(addressOf(&shared.full[landed % mostPieces]), landed / mostPieces & 1);
      flying -= __shfl_sync(0xffffffffu, size, landed++ % mostPieces);
    }
  }

  __device__ void copy(const FewRows& p, int first, int rows, uint64 once) {
    int pitch = pitchOf(p), all = rows * rowsOf(p), bytes = all * pitch;
    int begin = end + bytes <= token.ringBytes ? end : 0, taking = begin == end ? bytes : token.ringBytes - end + bytes;
    waitForRoom(taking, bytes);
    int slot = copied % mostPieces;
    uint32 full = addressOf(&shared.full[slot]), to = addressOf(ring + begin);
    if (lane == slot) taken = taking, size = bytes;
    if (lane == 0) {
      shared.place[slot] = begin;
      arriveExpecting(full, all * p.k * 2);
      // The rows of the first matrix, and those of the second.
      int own = p.isGate ? rows : min(max(p.n[0] - first, 0), rows);
      const bf16* source = (const bf16*)p.weights[0] + (int64)first * p.k;
#pragma unroll 1
      for (int i = 0; i < all; i++, source += p.k) {
        if (i == own) source = (const bf16*)p.weights[1] + (int64)(p.isGate ? first : max(first - p.n[0], 0)) * p.k;
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to + i * pitch),
                     "l"(source), "r"(p.k * 2), "r"(full), "l"(once)
                     : "memory");
      }
    }
    __syncwarp();
    end = begin + bytes, used += taking, flying += bytes, copied++;
  }

  // This block's part of some bytes.
  __device__ void prefetch(const void* from, int64 bytes) {
    uint32 units = bytes / 16, each = (units + gridDim.x - 1) / gridDim.x, first = each * blockIdx.x;
    if (first >= units || (uint64)from % 16 != 0) return;
    uint32 size = 16 * min(each, units - first);
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"((const uint4*)from + first), "r"(size) : "memory");
  }
  __device__ void prefetchCaches(const DecodeStep& p) {
    // Pages lie anywhere.
    for (int batch = lane; batch < p.batches && !p.pages.table; batch += 32) {
      int position = min(max(p.start[batch], 0), p.pages.capacity);
      int64 from = (int64)batch * p.pages.capacity * p.heads, held = (int64)position * p.heads;
      prefetch((const bf16*)p.keys + from * D, held * D * 2);
      prefetch((const bf16*)p.values + from * D, held * D * 2);
      if (S > 0) {
        prefetch((const bf16*)p.importances + from * S, held * S * 2);
        prefetch(p.decays + from, held * 4);
        if (position > 0) prefetch(p.phases + (from + held - p.heads) * (S / 2), p.heads * S * 2);
      }
    }
    if (S > 0 && lane == 0) prefetch(p.bias, p.heads * 4), prefetch(p.lambda, p.heads * 4);
  }

  __device__ void run() {
    // Weights are read once a token: all else may stay in the second cache.
    uint64 once;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
    for (int i = 0; i < token.count; i++) {
      if (phases[i].isStep) {
        prefetchCaches(phases[i].step);
        continue;
      }
      const FewRows p = phases[i].product;
      Share share = shared.own[i].share;
      if (p.norm && lane == 0) prefetch(p.norm, p.k * 4);
      for (int at = 0; at < share.size; at += share.most) copy(p, share.first + at, min(share.most, share.size - at), once);
    }
  }
};

template <int D, int S, int WARPS> struct Worker {
  const Token& token;
  Shared<WARPS>& shared;
  const Phase* phases;
  bf16* x;  // of a product, rows of k
  unsigned char* ring;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32 barriers = 0;
  int isWaiting = 0;
  int consumed = 0;

  // A barrier of all blocks in two halves.
  __device__ void arriveAtAll() {
    if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(token.arrived) : "memory");
    barriers++;
    isWaiting = 1;
  }
  __device__ void waitForAll() {
    // Keeps the compiler from making copies of what follows for each of the two.
    asm volatile("" : "+r"(isWaiting));
    if (!isWaiting) return;
    isWaiting = 0;
    if (threadIdx.x == 0) {
      uint32 seen;
      do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(token.arrived) : "memory");
      while (seen < barriers * gridDim.x);
    }
    syncWarps<WARPS>();
  }

  // Each warp takes a part of k; the threads of the first warps add what all have found, and do what comes after. The code is
  // small, since every phase reads all of it.
  __device__ void multiply(int phase) {
    const FewRows p = phases[phase].product;
    const Share share = shared.own[phase].share;
    int steps = p.k / stepWidth, firstStep = steps * warp / WARPS, own = steps * (warp + 1) / WARPS - firstStep;
    int quarter = lane % 4, row = lane / 4, pitch = pitchOf(p);
    int result = p.rows == 1 ? threadIdx.x : threadIdx.x / p.rows, column = threadIdx.x - result * p.rows;
    int xPitch = p.k + padding / 2, first = firstStep * stepWidth, chunks = own * stepWidth / 8;
    // At most 64 chunks of eight elements are a warp's: widestPhase in src/lowerings/few-rows.ts.
    float factors[2][8];
#pragma unroll
    for (int j = 0; j < 2; j++) if (p.norm && lane + 32 * j < chunks) Eight<float>::load(factors[j], p.norm + first + (lane + 32 * j) * 8);
    waitForAll();

    if (phase > 0 && isJoinedLater(phase - 1)) joinParts(phase - 1);
    else {
#pragma unroll 1
      for (int i = 0; i < p.rows; i++) {
        const bf16* from = (const bf16*)p.x + (int64)placeOf(p, i) * p.xPitch + first;
        float squares = 0;
#pragma unroll
        for (int j = 0; j < 2; j++) {
          int chunk = lane + 32 * j;
          if (chunk >= chunks) break;
          Raw<bf16, 8> part;
          part.load(from + chunk * 8);
          if (p.norm) {
            float scaled[8];
#pragma unroll
            for (int e = 0; e < 8; e++) squares += part[e] * part[e], scaled[e] = part[e] * factors[j][e];
            part.set(scaled);
          }
          part.store(x + i * xPitch + first + chunk * 8);
        }
        if (!p.norm) continue;
        squares = warpSum(squares);
        if (lane == 0) shared.squares[warp][i] = squares;
      }
      __syncwarp();
    }

    float inverse = 1;
    uint32 pairs = addressOf(x + min(row, p.rows - 1) * xPitch + first + 2 * quarter);
    for (int at = 0; at < share.size; at += share.most, consumed++) {
      int size = min(share.most, share.size - at), all = size * rowsOf(p), slot = consumed % mostPieces;
      float(&sums)[WARPS][mostSums] = shared.sums[consumed % 2];
      int index = share.first + at + result, part = !p.isGate && index >= p.n[0];
      int isWide = part ? p.isWide[1] : p.isWide[0];
      int64 to = (int64)column * (part ? p.n[1] : p.n[0]) + index - part * p.n[0];
      float addend = 0;
      if (result < size && p.addend && !part) {
        addend = isWide ? __ldcg((const float*)p.addend + to) : __bfloat162float(__ushort_as_bfloat16(__ldcg((const unsigned short*)p.addend + to)));
      }
      wait(addressOf(&shared.full[slot]), consumed / mostPieces & 1);
      uint32 weights = addressOf(ring + shared.place[slot]) + (first + lane / 16 * 8) * 2;
#pragma unroll 1
      for (int tile = 0; tile < all; tile += 32) {
        float d[2][4] = {};
        uint32 lines[] = {weights + min(tile + lane % 16, all - 1) * pitch, weights + min(tile + 16 + lane % 16, all - 1) * pitch};
#pragma unroll 4
        for (int s = 0; s < own; s++) {
          uint32 b[2];
#pragma unroll
          for (int i = 0; i < 2; i++) asm volatile("ld.shared.u32 %0, [%1];" : "=r"(b[i]) : "r"(pairs + (s * stepWidth + 8 * i) * 2));
#pragma unroll
          for (int t = 0; t < 2; t++) {
            uint32 a[4];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(lines[t] + s * stepWidth * 2));
            multiplyAdd(d[t], a, b);
          }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
          int r = tile + row + i / 2 * 8, c = 2 * quarter + i % 2;
          if (r < all && c < p.rows) sums[warp][r * p.rows + c] = d[i / 4][i % 4];
        }
      }
      syncWarps<WARPS>();
      if (threadIdx.x == 0) arrive(addressOf(&shared.empty[slot]));
      if (result >= size) continue;
      if (p.norm && at == 0) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += shared.squares[w][column];
        inverse = rsqrtf(total / p.k + p.epsilon);
      }
      auto sumOf = [&](int r) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += sums[w][r * p.rows + column];
        return total * inverse;
      };
      float value = sumOf(result);
      if (p.isGate) {
        float gate = rounded<bf16>(value), up = rounded<bf16>(sumOf(size + result));
        value = gate / (1 + expf(-gate)) * up;
      }
      void* results = part ? p.results[1] : p.results[0];
      if (isWide) ((float*)results)[to] = value + addend;
      else ((bf16*)results)[to] = __float2bfloat16_rn(value + addend);
    }
    syncWarps<WARPS>();
  }

  // Which row of x is row i of the product.
  __device__ int placeOf(const FewRows& p, int i) {
    if (!p.row) return i;
    int taken = __ldcg(p.row + i);
    if (taken < 0 || taken >= p.length) {
      if (threadIdx.x == 0 && blockIdx.x == 0) report(p.fault, p.faultNode, taken);
      taken = 0;
    }
    return i * p.length + taken;
  }

  // Whether the product after attention takes what that gives from its parts.
  __device__ bool isJoinedLater(int phase) {
    if (!phases[phase].isStep || phase + 1 == token.count || phases[phase + 1].isStep) return false;
    const DecodeStep& step = phases[phase].step;
    const FewRows& product = phases[phase + 1].product;
    return product.x == step.value && product.k == step.heads * D && product.rows == step.batches && !product.row && !product.norm;
  }

  // Makes x what attention gives, [batches, heads * width], from what was found in the parts of each head's cache.
  __device__ void joinParts(int phase) {
    const DecodeStep& p = phases[phase].step;
    const int atOnce = 12;
    for (int i = 2 * threadIdx.x; i < p.batches * p.heads * D; i += 2 * 32 * WARPS) {
      int line = i / D, batch = p.batches == 1 ? 0 : line / p.heads;
      int active = min((p.batches == 1 ? shared.own[phase].item : itemOf(p, line)).active, p.splits);
      const float* parts = p.partial + (int64)line * p.splits * (2 + D);
      float most = -INFINITY, sum = 0;
      float2 result = {0, 0};
      for (int first = 0; first < active; first += atOnce) {
        float2 of[atOnce], values[atOnce];
#pragma unroll
        for (int j = 0; j < atOnce; j++) {
          const float* part = parts + (first + j) * (2 + D);
          of[j] = {-INFINITY, 0}, values[j] = {0, 0};
          if (first + j < active) of[j] = __ldcg((const float2*)part), values[j] = __ldcg((const float2*)(part + 2 + i % D));
        }
        float largest = most;
#pragma unroll
        for (int j = 0; j < atOnce; j++) largest = fmaxf(largest, of[j].x);
        float shrink = weightOf(most, largest);
        sum *= shrink, result.x *= shrink, result.y *= shrink, most = largest;
#pragma unroll
        for (int j = 0; j < atOnce; j++) {
          float weight = weightOf(of[j].x, most);
          sum += weight * of[j].y, result.x += weight * values[j].x, result.y += weight * values[j].y;
        }
      }
      __nv_bfloat162 pair = __floats2bfloat162_rn(result.x / sum, result.y / sum);
      *(__nv_bfloat162*)(x + i + batch * (padding / 2)) = pair;
      if (blockIdx.x == 0) *(__nv_bfloat162*)((bf16*)p.value + i) = pair;
    }
    syncWarps<WARPS>();
  }

  // A head of a sequence belongs to as many blocks as there are for each.
  __device__ void attend(int phase) {
    const DecodeStep& p = phases[phase].step;
    bool joins = !isJoinedLater(phase);
    Item item = shared.own[phase].item;
    for (int index = blockIdx.x; item.line >= 0; item = itemOf(p, index += gridDim.x)) {
      int batch = p.batches == 1 ? 0 : item.line / p.heads, head = item.line - batch * p.heads, position = item.position;
      if (position < 0 || position >= p.pages.capacity) {
        if (threadIdx.x == 0 && item.part == 0 && head == 0) report(p.fault, p.faultNode, position);
      } else if (item.part < item.active) {
        decodeStep<bf16, D / lanes, S / lanes, WARPS>(p, position, item.span, item.part, head, batch, joins, [&]() { waitForAll(); });
        syncWarps<WARPS>();
      }
    }
    waitForAll();
    syncWarps<WARPS>();
  }

  __device__ void run() {
    for (int i = 0; i < token.count; i++) {
      if (phases[i].isStep) attend(i);
      else multiply(i);
      arriveAtAll();
    }
    // The last block to end leaves the count as it was found: nobody waits any more.
    if (threadIdx.x == 0) {
      uint32 before = atomicAdd(token.arrived, 1);
      if (before == (barriers + 1) * gridDim.x - 1) *token.arrived = 0;
    }
  }
};

// The table as it lies in the parameters, which threads read at different places.
__device__ inline void copyPhases(Phase* to, const Token& token) {
  uint64 from = (uint64)&token.phases;
  for (int i = threadIdx.x; i < token.count * (int)sizeof(Phase) / 16; i += blockDim.x) {
    uint4 x;
    asm volatile("ld.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(from + 16 * i));
    ((uint4*)to)[i] = x;
  }
}

template <int D, int S, int WARPS> __device__ void decodeToken(const Token& token) {
  extern __shared__ uint4 dynamicMemory[];
  __shared__ Shared<WARPS> shared;
  Phase* phases = (Phase*)dynamicMemory;
  bf16* x = (bf16*)(phases + token.count);
  unsigned char* ring = (unsigned char*)x + token.xBytes;
  copyPhases(phases, token);
  if (threadIdx.x < mostPieces) {
    startBarrier(addressOf(&shared.full[threadIdx.x]), 1), startBarrier(addressOf(&shared.empty[threadIdx.x]), 1);
    fenceBarriers();
  }
  __syncthreads();
  for (int i = threadIdx.x; i < token.count; i += blockDim.x) {
    if (phases[i].isStep) shared.own[i].item = itemOf(phases[i].step, blockIdx.x);
    else shared.own[i].share = shareOf(phases[i].product, token.pieceBytes);
  }
  __syncthreads();
  if (threadIdx.x / 32 == WARPS) Copier<D, S, WARPS>{token, shared, phases, ring}.run();
  else Worker<D, S, WARPS>{token, shared, phases, x, ring}.run();
}

#define DECODE_TOKEN(width, states, warps)                                                                             \
  extern "C" __global__ void __launch_bounds__(32 * (warps + 1), 1) decodeTokenHopper_##width##_##states(              \
      const __grid_constant__ Token token) {                                                                           \
    decodeToken<width, states, warps>(token);                                                                          \
  }
DECODE_TOKEN(64, 0, 12)
DECODE_TOKEN(64, 16, 12)
DECODE_TOKEN(64, 32, 12)
DECODE_TOKEN(64, 64, 7)
DECODE_TOKEN(64, 128, 7)
DECODE_TOKEN(128, 0, 7)
DECODE_TOKEN(128, 16, 7)
DECODE_TOKEN(128, 32, 7)
DECODE_TOKEN(128, 64, 7)
DECODE_TOKEN(128, 128, 7)
