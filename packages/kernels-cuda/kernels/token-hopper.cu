// A token of decoding by one launch. Clusters of eight blocks share what they find through shared memory, so that all blocks
// need what the others have found twice a layer: once the sums of attention's output are there, a part from each head, and
// once those of the feed-forward are, a part from each cluster. Some warps of each block copy the weights to a ring in shared
// memory, in the order in which the others use them, as far ahead as there is room.
#include "decode-step.cuh"
#include "hopper.cuh"

const int clusterSize = 8;
const int warps = 12, threads = 32 * warps, copiers = 4;  // at work, and warps that copy
const int mostLayers = 32;
const int mostRows = 8;
const int mostResults = 1024;                                // of a product, that a block finishes together
const int mostPieces = 32, pieceBytes = 36 << 10;            // of weights: in shared memory or on their way, and their size
const int flightBytes = 96 << 10;                            // on their way at once
const int buffers = 4;                                       // of sums: a cluster may be behind by a layer
const int padding = 16;                                      // bytes between rows, so that eight rows lie in different banks
const int tileRows = 16, stepWidth = 16;                     // of weights, that an instruction takes
const int headRows = 48;                                     // of the last product, at a time

struct Layer {
  const bf16 *narrow, *wide;          // rows of d: those of q, k, v, c and b, and those of phase and strength
  const bf16* output;                 // [d, heads * D]
  const bf16 *gate, *up, *down;       // [hidden, d] twice, [d, hidden]
  const float *norm, *gateNorm;       // [d]
  const float *bias, *lambda;         // [heads]
  bf16 *keys, *values, *importances;  // caches [rows, heads, D], and of S
  float *decays, *phases;             // [rows, heads], [rows, heads, S / 2]
  int first[7];                       // where the rows begin, in this order
  float epsilon, gateEpsilon;
};

struct Token {
  uint32* turn;   // how many exchanges of all blocks there were in all launches
  uint4* sums;    // [buffers, parts, rows, d / 2]: two sums, each with the turn that it is of
  const bf16* x;  // [rows, d]
  bf16* last;     // x behind the last layer; none where the last product takes it
  const float *cosine, *sine;  // [positions, D / 2]; none where nothing is rotated
  const int* start;
  Pages pages;
  Fault* fault;
  int faultNode;
  int rows, d, heads, hidden, positions, layers, parts;
  float scale;
  // The product of the last x.
  const float* headNorm;
  const bf16* head;  // [n, d]; none where it is not asked for
  void* logits;      // [rows, n]
  const int* row;    // zeros, or none; what is below zero is zero where `isFromZero`
  Fault* headFault;
  int headNode, n, isWide, isFromZero;
  float headEpsilon;
  int splits;                                   // parts of a sequence's keys
  int atX, atHidden, atSquares, atOwn, atRing;  // in shared memory, behind the layers
  int hiddenPitch, ringBytes;
  Layer layer[mostLayers];
};

__device__ inline uint32 addressIn(uint32 address, int rank) {
  uint32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
// To another block's shared memory, counted by its barrier.
__device__ inline void send(uint32 to, uint32 x, uint32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to), "r"(x), "r"(barrier) : "memory");
}
__device__ inline void send(uint32 to, float2 x, uint32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1,%2}, [%3];" ::"r"(to), "f"(x.x), "f"(x.y), "r"(barrier)
               : "memory");
}
__device__ inline void send(uint32 to, const uint32 (&x)[4], uint32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1,%2,%3,%4}, [%5];" ::"r"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]),
               "r"(x[3]), "r"(barrier)
               : "memory");
}
// Until what the cluster sends is there.
__device__ inline void waitForCluster(uint32 barrier, uint32 parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier), "r"(parity)
      : "memory");
}
__device__ inline void syncCluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ inline void multiplyAdd(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline uint32 pairOf(float a, float b) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *(uint32*)&pair;
}
__device__ inline float lowOf(uint32 pair) { return __uint_as_float(pair << 16); }
__device__ inline float highOf(uint32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// A block's part of each product.
enum { Projections, Output, Gates, Down, Head, products };
struct Work {
  int tile;    // the first of 16 rows that a warp takes; beyond the last where it takes none
  int piece;   // in which copy these are
  int offset;  // bytes from where that begins
  int first;   // step of k
  int count;
};
struct Product {
  int all;            // rows
  int bytes;          // of a row
  int perPiece;       // rows that are copied at once
  int tiles, parts;   // of 16 rows, and of k, that are at work at once
  Work work[warps];
};

// What the cluster sends: where it goes, and what counts it.
enum { Inputs, Queries, Attended, Hidden, exchanges };

template <int D, int S> struct Shared {
  uint64 full[mostPieces], empty[mostPieces], sent[exchanges];
  int place[mostPieces];  // of pieces in the ring
  uint32 turn;
  Product product[products];
  alignas(16) float sums[2][warps][tileRows * mostRows];
  float inverse[mostRows];
  float results[mostResults];
  int position[mostRows], isThere[mostRows], before[mostRows], newest[mostRows];  // tokens held, and rows of caches
  int newestRank[mostRows];                                                        // of the block that attends to the newest
  // Attention: the sequence and the part of its keys that the block takes, and what belongs to its newest token.
  int sequence, firstKey, endOfKeys, isNewest;
  alignas(16) float q[D];
  alignas(16) float c[S == 0 ? 4 : S];
  alignas(16) bf16 key[D], value[D], importance[S == 0 ? 8 : S];
  float decay;
  alignas(16) float most[warps], total[warps];
  alignas(16) float found[clusterSize][D + 4];  // weighted values, largest score, sum of weights
  alignas(16) bf16 attended[mostRows][D + padding / 2];
};

extern __shared__ __align__(16) unsigned char memory[];

template <int D, int S> struct Block {
  static const int perD = D / clusterSize, perS = S / clusterSize, perPhase = S / 16;
  static const int projectionRows = 3 * perD + 2 * perS + perPhase + (S > 0);
  const Token& token;
  Shared<D, S>& shared;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int rank = blockIdx.x % clusterSize, cluster = blockIdx.x / clusterSize, clusters = gridDim.x / clusterSize;
  __device__ int columns() const { return token.d / clusterSize; }
  // Clusters that have a part of the feed-forward, the first ones: groups of 16 hidden elements.
  __device__ int feeding() const { return min(token.hidden / stepWidth, clusters); }
  __device__ int firstGroup(int cluster) const { return token.hidden / stepWidth * min(cluster, feeding()) / feeding(); }
  __device__ int groups() const { return firstGroup(cluster + 1) - firstGroup(cluster); }
  __device__ int firstOfHead() const { return (int64)token.n * blockIdx.x / gridDim.x; }
  __device__ const Layer& layer(int index) const { return ((const Layer*)memory)[index]; }
};

// The warps that copy weights: each some of the rows, since it takes time to ask for one.
template <int D, int S> struct Copier : Block<D, S> {
  using Base = Block<D, S>;
  using Base::token, Base::shared, Base::lane, Base::warp, Base::rank, Base::cluster, Base::clusters, Base::perD, Base::perS, Base::perPhase;
  int copied = 0, landed = 0, freed = 0;  // pieces
  int end = 0, used = 0, flying = 0;      // bytes: where the ring is free from, how many are in use, and on their way
  int taken = 0, size = 0;                // of the piece of this lane: bytes with those left out before it, and its own
  // Found once, since it takes divisions.
  int firstHidden = this->firstGroup(cluster) * stepWidth, firstLogit = this->firstOfHead();
  uint64 once;

  __device__ Copier(const Base& base) : Base(base) {
    // Weights are read once a token: all else may stay in the second cache.
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
  }

  __device__ void waitForRoom(int taking, int bytes) {
#pragma unroll 1
    while (used + taking > token.ringBytes || copied - freed == mostPieces) {
      wait(addressOf(&shared.empty[freed % mostPieces]), freed / mostPieces & 1);
      used -= __shfl_sync(0xffffffffu, taken, freed++ % mostPieces);
    }
#pragma unroll 1
    while (landed < copied && flying + bytes > flightBytes) {
      wait(addressOf(&shared.full[landed % mostPieces]), landed / mostPieces & 1);
      flying -= __shfl_sync(0xffffffffu, size, landed++ % mostPieces);
    }
  }

  // Where a row of the block's part lies.
  __device__ const bf16* sourceOf(int index, const Layer& layer, int head, int row) {
    int64 d = token.d, ownColumn = rank * this->columns() + row;
    switch (index) {
      case Projections: {
        int part = 0, each = perD;
        for (; part < 6 && row >= each; part++) row -= each, each = part < 2 ? perD : part < 4 ? perS : part < 5 ? perPhase : 1;
        int place = part == 6 ? head : (head * clusterSize + rank) * each + row;
        return (part < 5 ? layer.narrow : layer.wide) + (layer.first[part] + place) * d;
      }
      case Output: return layer.output + (ownColumn * token.heads + head) * D;
      case Gates: {
        int own = shared.product[Gates].all / 2, isUp = row >= own;
        return (isUp ? layer.up : layer.gate) + (firstHidden + rank * own + row - isUp * own) * d;
      }
      case Down: return layer.down + ownColumn * token.hidden + firstHidden;
      default: return token.head + (firstLogit + row) * d;
    }
  }

  __device__ void copy(int index, const Layer& layer, int head) {
    const Product& p = shared.product[index];
#pragma unroll 1
    for (int from = 0; from < p.all; from += p.perPiece) {
      int rows = min(p.perPiece, p.all - from), pitch = p.bytes + padding, bytes = rows * pitch;
      int begin = end + bytes <= token.ringBytes ? end : 0, taking = begin == end ? bytes : token.ringBytes - end + bytes;
      waitForRoom(taking, bytes);
      int slot = copied % mostPieces;
      uint32 full = addressOf(&shared.full[slot]), to = addressOf(memory + token.atRing + begin);
      if (lane == slot) taken = taking, size = bytes;
      if (lane == 0 && warp == warps) shared.place[slot] = begin, arriveExpecting(full, rows * p.bytes);
#pragma unroll 1
      for (int i = lane * copiers + warp - warps; i < rows; i += 32 * copiers)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to + i * pitch),
                     "l"(sourceOf(index, layer, head, from + i)), "r"(p.bytes), "r"(full), "l"(once)
                     : "memory");
      __syncwarp();
      end = begin + bytes, used += taking, flying += bytes, copied++;
    }
  }

  // This block's part of some bytes.
  __device__ void prefetch(const void* from, int64 bytes) {
    uint32 units = bytes / 16, each = (units + gridDim.x - 1) / gridDim.x, first = each * blockIdx.x;
    if (first >= units || (uint64)from % 16 != 0) return;
    uint32 size = 16 * min(each, units - first);
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"((const uint4*)from + first), "r"(size) : "memory");
  }
  // What attention and norms of a layer read, each by a lane. Pages lie anywhere.
  __device__ void prefetch(const Layer& layer) {
#pragma unroll 1
    for (int i = lane; i < 4 * token.rows && !token.pages.table; i += 32) {
      int row = i / 4, kind = i % 4, width = kind < 2 ? D * 2 : kind == 2 ? S * 2 : S > 0 ? 4 : 0;
      const void* caches[] = {layer.keys, layer.values, layer.importances, layer.decays};
      int64 line = (int64)token.heads * width;
      prefetch((const unsigned char*)caches[kind] + row * token.pages.capacity * line, shared.position[row] * line);
    }
    if (lane < 2) prefetch(lane == 0 ? layer.norm : layer.gateNorm, token.d * 4);
  }

  __device__ void run() {
#pragma unroll 1
    for (int i = 0; i <= token.layers; i++) {
      const Layer& layer = this->layer(i);
      if (i < token.layers && warp == warps) prefetch(layer);
      // Two products for each head of this cluster, two for the rest of the layer; and the last.
      int own = cluster < token.heads ? (token.heads - 1 - cluster) / clusters + 1 : 0;
#pragma unroll 1
      for (int j = i < token.layers ? 0 : Head; j < (i < token.layers ? 2 * own + 2 : products); j++) {
        int isMixing = j < 2 * own, index = i == token.layers ? Head : isMixing ? j % 2 : Gates + j - 2 * own;
        this->copy(index, layer, cluster + j / 2 * clusters);
      }
    }
  }
};

template <int D, int S> struct Worker : Block<D, S> {
  using Base = Block<D, S>;
  using Base::token, Base::shared, Base::lane, Base::warp, Base::rank, Base::cluster, Base::clusters, Base::perD, Base::perS, Base::perPhase;
  // Lanes that share a key, each with eight of its elements and SE of its states; keys of a lane at a time.
  static const int lanesOfKey = D / 8, groups = 32 / lanesOfKey, SE = S / lanesOfKey > 1 ? S / lanesOfKey : 2;
  static const int atOnce = S * 64 / D > 64 ? 2 : 3, keysAtOnce = atOnce * warps * groups;
  int thread = threadIdx.x;
  uint32 turn;
  int consumed = 0;     // pieces
  uint32 parities = 0;  // of exchanges
  int buffer = 0;       // of sums in shared memory

  __device__ Worker(const Base& base) : Base(base) { turn = shared.turn; }

  __device__ bool isAttending() const { return shared.sequence < token.rows; }
  __device__ uint32 sent(int exchange) { return addressOf(&shared.sent[exchange]); }
  __device__ void expect(int exchange, uint32 bytes) { if (thread == 0) arriveExpecting(sent(exchange), bytes); }
  __device__ void waitFor(int exchange) { waitForCluster(sent(exchange), parities >> exchange & 1); }
  __device__ void haveGot(int exchange) { parities ^= 1 << exchange; }
  __device__ uint32 inputs() { return addressOf(memory) + token.atX; }
  __device__ uint32* own() { return (uint32*)(memory + token.atOwn); }

  // Adds what all have found in the last turn to the block's columns of x, and sends them, times the weights of a norm, to the cluster.
  __device__ void gather(int parts, const float* norm) {
    const int chunks = token.d / 64, pair = lane % 4, line = token.d / 2, between = token.rows * line;
    if (norm) expect(Inputs, token.rows * (token.d * 2 + token.d / 8 * 4));
    const uint4* sums = token.sums + turn % buffers * token.parts * between;
    int row = 0, chunk = warp;
    while (chunk >= chunks) chunk -= chunks, row++;
#pragma unroll 1
    while (row < token.rows) {
      int place = rank * chunks + chunk;
      uint32* kept = own() + row * (this->columns() / 2) + chunk * 4 + pair;
      float2 factor = {1, 1}, x = {0, 0};
      if (norm) factor = __ldg((const float2*)norm + place * 4 + pair);
#pragma unroll 1
      for (int i = lane / 4; i < parts; i += 16) {
        const uint4* from = sums + i * between + row * line + place * 4 + pair;
        int next = i + 8 < parts ? 8 * between : 0;
        uint64 a, b, c, e;
        do {
          asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];" : "=l"(a), "=l"(b) : "l"(from) : "memory");
          asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];" : "=l"(c), "=l"(e) : "l"(from + next) : "memory");
        } while ((uint32)(a >> 32) != turn || (uint32)(b >> 32) != turn || (uint32)(c >> 32) != turn || (uint32)(e >> 32) != turn);
        x.x += __uint_as_float((uint32)a), x.y += __uint_as_float((uint32)b);
        if (next > 0) x.x += __uint_as_float((uint32)c), x.y += __uint_as_float((uint32)e);
      }
#pragma unroll
      for (int step = 4; step < 32; step *= 2) x.x += __shfl_xor_sync(0xffffffffu, x.x, step), x.y += __shfl_xor_sync(0xffffffffu, x.y, step);
      uint32 word = pairOf(lowOf(*kept) + x.x, highOf(*kept) + x.y);
      __syncwarp();
      if (lane < 4) *kept = word;
      if (norm) {
        x = {lowOf(word), highOf(word)};
        float squares = x.x * x.x + x.y * x.y;
        word = pairOf(x.x * factor.x, x.y * factor.y);
        uint32 words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) words[i] = __shfl_sync(0xffffffffu, word, i);
        squares += __shfl_xor_sync(0xffffffffu, squares, 1), squares += __shfl_xor_sync(0xffffffffu, squares, 2);
        int to = lane % clusterSize;
        uint32 barrier = addressIn(sent(Inputs), to);
        if (lane < 8) send(addressIn(addressOf(memory) + token.atX + row * (token.d * 2 + padding) + place * 16, to), words, barrier);
        else if (lane < 16) send(addressIn(addressOf(memory) + token.atSquares + row * (token.d / 2) + place * 4, to), __float_as_uint(squares), barrier);
      }
      chunk += warps;
      while (chunk >= chunks) chunk -= chunks, row++;
    }
    __syncwarp();
  }

  // A warp's part of a product, to `sums`. Weights go to registers before what x comes by is waited for; beyond the last step of k
  // the last is taken once more, times zero.
  template <int index> __device__ void multiply(int all, uint32 x, int pitchOfX) {
    const int exchange = index == Output ? exchanges : index == Down ? Hidden : Inputs;
    const int atOnce = index == Output ? 2 : index == Down ? 6 : 12;
    const Product& p = shared.product[index];
    Work work = p.work[warp];
    float* sums = shared.sums[buffer ^= 1][warp];
    if (work.tile >= all) return;
    int piece = consumed + work.piece, slot = piece % mostPieces, pitch = p.bytes + padding;
    wait(addressOf(&shared.full[slot]), piece / mostPieces & 1);
    uint32 line = addressOf(memory) + token.atRing + shared.place[slot] + work.offset + min(lane % 16, all - 1 - work.tile) * pitch + lane / 16 * 16;
    uint32 pairs = x + min(lane / 4, token.rows - 1) * pitchOfX + work.first * stepWidth * 2 + lane % 4 * 4;
    float d[2][4] = {};
#pragma unroll 1
    for (int left = work.count; left > 0; left -= atOnce, line += atOnce * stepWidth * 2, pairs += atOnce * stepWidth * 2) {
      uint32 a[atOnce][4];
#pragma unroll
      for (int j = 0; j < atOnce; j++)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(a[j][0]), "=r"(a[j][1]), "=r"(a[j][2]), "=r"(a[j][3]) : "r"(line + min(j, left - 1) * stepWidth * 2));
      if (exchange < exchanges) waitFor(exchange);
#pragma unroll
      for (int from = 0; from < atOnce; from += (atOnce + 1) / 2) {
        uint32 b[(atOnce + 1) / 2][2];
#pragma unroll
        for (int j = 0; j < (atOnce + 1) / 2; j++)
#pragma unroll
          for (int i = 0; i < 2; i++)
            asm volatile("{\n.reg .pred p;\nsetp.gt.s32 p, %2, 0;\nmov.u32 %0, 0;\n@p ld.shared.u32 %0, [%1];\n}"
                         : "=&r"(b[j][i]) : "r"(pairs + (from + j) * stepWidth * 2 + 16 * i), "r"(left - from - j));
#pragma unroll
        for (int j = 0; j < (atOnce + 1) / 2; j++) multiplyAdd(d[j % 2], a[from + j], b[j]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int r = lane / 4 + i / 2 * 8, c = lane % 4 * 2 + i % 2;
      if (c < token.rows) sums[r * token.rows + c] = d[0][i] + d[1][i];
    }
  }

  // What the norm of each row of x divides by; by the last warps, which have less to do.
  __device__ void normalize(float epsilon) {
    int row = warps - 1 - warp;
    if (row >= token.rows) return;
    waitFor(Inputs);
    float squares = 0;
#pragma unroll 1
    for (int i = lane; i < token.d / 8; i += 32) squares += ((const float*)(memory + token.atSquares))[row * (token.d / 8) + i];
    squares = warpSum(squares);
    if (lane == 0) shared.inverse[row] = rsqrtf(squares / token.d + epsilon);
  }

  // A product once each warp has its part: gives the block's columns to all, as one part of a sum, or keeps what is to be finished.
  template <int index> __device__ void addUp(int all, int part, int firstLogit) {
    syncWarps<warps>();
    const Product& p = shared.product[index];
    // The weights may go.
#pragma unroll 1
    for (int from = 0; from < all; from += p.perPiece, consumed++)
      if (thread == 0) arrive(addressOf(&shared.empty[consumed % mostPieces]));
    int parts = p.parts, between = p.tiles * tileRows * mostRows, columns = this->columns();
    bool isGiven = index == Output || index == Down;
    uint64* sums = (uint64*)token.sums + (((turn + 1) % buffers * token.parts + part) * token.rows * token.d + rank * columns);
#pragma unroll 1
    for (int i = thread; i < all * token.rows; i += threads) {
      int r = token.rows == 1 ? i : i / token.rows, row = i - r * token.rows, tile = r / tileRows;
      const float* from = shared.sums[buffer][tile] + i - tile * tileRows * token.rows;
      float sum = 0;
#pragma unroll 1
      for (int k = 0; k < parts; k += 4, from += 4 * between)
#pragma unroll
        for (int j = 0; j < 4; j++) sum += k + j < parts ? from[j * between] : 0;
      if (isGiven) {
        uint64 x = (uint64)(turn + 1) << 32 | __float_as_uint(sum);
        asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(sums + row * token.d + r), "l"(x) : "memory");
        continue;
      }
      sum *= shared.inverse[row];
      if (index != Head) {
        shared.results[i] = sum;
        continue;
      }
      int64 to = (int64)row * token.n + firstLogit + r;
      if (token.isWide) ((float*)token.logits)[to] = sum;
      else ((bf16*)token.logits)[to] = __float2bfloat16_rn(sum);
    }
  }

  // What two warps finish of a head's projections, a thread what belongs together of one sequence: a pair of q, k or v, or of c
  // and b with their phase; or the decay.
  enum { Query, Key, Value, State, Decay };
  struct Finisher {
    int kind, row, place;  // place: among the head's pairs
    float first, second;   // cosine and sine, or angle before, or bias and sum of decays before
    int64 line;            // of the newest token in caches of all heads
  };

  __device__ void startFinisher(Finisher& f) {
    const int pairs = perD / 2;
    f.kind = warp / 2, f.row = token.rows;
    int index = warp % 2 * 32 + lane, each = f.kind < State ? pairs : f.kind == State ? perPhase : 1;
    if (f.kind > Decay || each == 0) return;
    f.row = f.kind < State ? index / pairs : f.kind == State ? index / max(perPhase, 1) : index == 0 ? shared.sequence : token.rows;
    if (f.row >= token.rows) return;
    f.place = rank * each + (f.kind < Decay ? index - f.row * each : 0);
    f.first = 1, f.second = 0, f.line = (int64)shared.newest[f.row] * token.heads;
    int place = min(shared.position[f.row], token.positions - 1) * (D / 2) + f.place;
    if (f.kind < Value && token.cosine) f.first = __ldg(token.cosine + place), f.second = __ldg(token.sine + place);
  }

  // What there is before the projections are.
  __device__ void prepare(Finisher& f, const Layer& layer, int head) {
    if (S == 0 || f.row >= token.rows || f.kind < State) return;
    int64 before = (int64)shared.before[f.row] * token.heads + head;
    int position = shared.position[f.row];
    if (f.kind == State) f.first = position > 0 ? __ldcg(layer.phases + before * (S / 2) + f.place) : 0, f.second = __ldg(layer.lambda + head);
    else f.first = __ldg(layer.bias + head), f.second = position % BLOCK != 0 ? __ldcg(layer.decays + before) : 0;
  }

  // To the blocks that attend to a sequence.
  __device__ void sendToAll(int row, const float* there, float2 x, float factor) {
    x = {rounded<bf16>(x.x) * factor, rounded<bf16>(x.y) * factor};
#pragma unroll
    for (int i = 0; i < clusterSize; i++) {
      int to = row * token.splits + i;
      if (i < token.splits) send(addressIn(addressOf(there), to), x, addressIn(sent(Queries), to));
    }
  }
  // To the cache, and to the block that attends to the newest token.
  __device__ void keep(int row, bf16* cache, const bf16* there, float2 x) {
    uint32 word = pairOf(x.x, x.y);
    int newest = shared.newestRank[row];
    if (shared.isThere[row]) *(uint32*)cache = word;
    send(addressIn(addressOf(there), newest), word, addressIn(sent(Queries), newest));
  }

  __device__ void finish(const Layer& layer, int head, const Finisher& f) {
    if (f.row >= token.rows) return;
    // Results of the block in the order of its rows.
    int own = f.place - rank * (f.kind < State ? perD / 2 : perPhase);
    auto result = [&](int r) { return shared.results[r * token.rows + f.row]; };
    auto turned = [&](int r, float cosine, float sine) {
      float a = rounded<bf16>(result(r)), b = rounded<bf16>(result(r + 1));
      return float2{a * cosine - b * sine, a * sine + b * cosine};
    };
    int64 line = f.line + head;
    int place = 2 * f.place;
    if (f.kind < State) {
      float2 x = turned(f.kind * perD + 2 * own, f.first, f.second);
      if (f.kind == Query) sendToAll(f.row, shared.q + place, x, token.scale);
      else keep(f.row, (f.kind == Key ? layer.keys : layer.values) + line * D + place, (f.kind == Key ? shared.key : shared.value) + place, x);
    } else if constexpr (S > 0) {
      if (f.kind == State) {
        const double turn = 6.283185307179586476925, perTurn = 0.15915494309189533577;
        double turns = ((double)f.first + result(3 * perD + 2 * perS + own)) * perTurn;
        turns -= floor(turns);
        float cosine, sine;
        sincospif((float)(2 * turns), &sine, &cosine);
        sendToAll(f.row, shared.c + place, turned(3 * perD + 2 * own, cosine, sine), f.second);
        keep(f.row, layer.importances + line * S + place, shared.importance + place, turned(3 * perD + perS + 2 * own, cosine, sine));
        if (shared.isThere[f.row]) layer.phases[line * (S / 2) + f.place] = (float)(turn * turns);
      } else {
        float strength = result(Base::projectionRows - 1) + f.first;
        float decay = (float)((double)f.second - (fmaxf(strength, 0.f) + log1pf(expf(-fabsf(strength)))));
        send(addressIn(addressOf(&shared.decay), rank), __float_as_uint(decay), addressIn(sent(Queries), rank));
        if (shared.isNewest && shared.isThere[f.row]) layer.decays[line] = decay;
      }
    }
  }

  // Keys of a warp at a time, each of a group of lanes.
  struct Keys {
    Raw<bf16, 8> k[atOnce], v[atOnce];
    Raw<bf16, SE> b[atOnce];
    float decay[atOnce];    // in the key's block of positions up to it
    float between[atOnce];  // from there to the query's block
    float total, rest;      // of one block of positions for each lane, and of every 32nd behind it
  };

  __device__ int positionOf(int base, int i) { return base + (i * warps + warp) * groups; }

  __device__ void fetch(Keys& keys, const Layer& layer, int head, int base) {
    int group = lane / lanesOfKey, own = lane % lanesOfKey, end = shared.endOfKeys, sequence = min(shared.sequence, token.rows - 1);
    auto rowOf = [&](int position) {
      int row = sequence * token.pages.capacity + position;
      if (token.pages.table) row = max(__ldcg(token.pages.table + sequence * token.pages.perSequence + position / PAGE), 0) * PAGE + position % PAGE;
      return (int64)row * token.heads + head;
    };
#pragma unroll
    for (int i = 0; i < atOnce; i++) {
      int64 row = rowOf(max(min(positionOf(base, i) + group, end - 1), 0));
      keys.k[i].load(layer.keys + row * D + own * 8), keys.v[i].load(layer.values + row * D + own * 8);
      if constexpr (S > 0) {
        keys.decay[i] = __ldcg(layer.decays + row);
        if (own * SE < S) keys.b[i].load(layer.importances + row * S + own * SE);
        else keys.b[i].clear();
      }
    }
    if constexpr (S > 0) {
      int queryBlock = shared.position[sequence] / BLOCK, block = positionOf(base, 0) / BLOCK + lane;
      auto totalOf = [&](int block) { return __ldcg(layer.decays + rowOf(block * BLOCK + BLOCK - 1)); };
      keys.total = block < queryBlock ? totalOf(block) : 0, keys.rest = 0;
#pragma unroll 1
      while ((block += 32) < queryBlock) keys.rest += totalOf(block);
    }
  }
  // Once they are there.
  __device__ void settle(Keys& keys, int base) {
    if constexpr (S > 0) {
      int first = positionOf(base, 0) / BLOCK;
#pragma unroll
      for (int i = 0; i < atOnce; i++) keys.between[i] = warpSum((first + lane < positionOf(base, i) / BLOCK ? 0 : keys.total) + keys.rest);
    }
  }

  // What the block finds among its keys goes to the cluster.
  __device__ void attend(Keys& keys, const Layer& layer, int head) {
    int group = lane / lanesOfKey, own = lane % lanesOfKey, end = shared.endOfKeys;
    float q[8], c[SE] = {};
    Eight<float>::load(q, shared.q + own * 8);
    if constexpr (S > 0) {
#pragma unroll
      for (int i = 0; i < SE; i++) if (own * SE < S) c[i] = shared.c[own * SE + i];
    }
    Found<8> found;
    int newest = shared.position[shared.sequence];
#pragma unroll 1
    for (int base = shared.firstKey;;) {
      float scores[atOnce], most = -INFINITY;
#pragma unroll
      for (int i = 0; i < atOnce; i++) {
        int position = positionOf(base, i) + group;
        // The newest token's is not in the cache yet.
        if (position == newest && position < end) {
          *(uint4*)keys.k[i].word = *(const uint4*)(shared.key + own * 8), *(uint4*)keys.v[i].word = *(const uint4*)(shared.value + own * 8);
          if constexpr (S > 0) {
#pragma unroll
            for (int e = 0; e < SE / 2; e++) keys.b[i].word[e] = own * SE < S ? ((const uint32*)(shared.importance + own * SE))[e] : 0;
            keys.decay[i] = shared.decay;
          }
        }
        float score = 0, state = 0;
#pragma unroll
        for (int e = 0; e < 8; e++) score += q[e] * keys.k[i][e];
        if constexpr (S > 0) {
#pragma unroll
          for (int e = 0; e < SE; e++) state += c[e] * keys.b[i][e];
          score += state * __expf(fminf(keys.between[i] + shared.decay - keys.decay[i], 0.f));
        }
#pragma unroll
        for (int step = lanesOfKey / 2; step > 0; step /= 2) score += __shfl_xor_sync(0xffffffffu, score, step);
        scores[i] = position < end ? score : -INFINITY, most = fmaxf(most, scores[i]);
      }
      found.raise(most);
#pragma unroll
      for (int i = 0; i < atOnce; i++) found.add(scores[i], keys.v[i]);
      base += keysAtOnce;
      if (base >= end) break;
      fetch(keys, layer, head, base), settle(keys, base);
    }
#pragma unroll
    for (int step = lanesOfKey; step < 32; step *= 2) found.join(step);
    float(*values)[D] = (float(*)[D])shared.sums[buffer ^= 1];
    if (group == 0) {
      Eight<float>::store(values[warp] + own * 8, found.values);
      if (lane == 0) shared.most[warp] = found.most, shared.total[warp] = found.total;
    }
    syncWarps<warps>();
    if (thread >= D) return;
    float largest = -INFINITY, sum = 0, result = 0;
#pragma unroll
    for (int i = 0; i < warps; i++) largest = fmaxf(largest, shared.most[i]);
#pragma unroll
    for (int i = 0; i < warps; i++) {
      float weight = weightOf(shared.most[i], largest);
      sum += weight * shared.total[i], result += weight * values[i][thread];
    }
#pragma unroll
    for (int to = 0; to < clusterSize; to++) {
      uint32 barrier = addressIn(sent(Attended), to);
      send(addressIn(addressOf(&shared.found[rank][thread]), to), __float_as_uint(result), barrier);
      if (thread == 0) send(addressIn(addressOf(&shared.found[rank][D]), to), float2{largest, sum}, barrier);
    }
  }

  // From the parts of all blocks of the cluster.
  __device__ void join() {
#pragma unroll 1
    for (int i = thread; i < token.rows * D; i += threads) {
      int row = i / D, column = i % D;
      const float(*found)[D + 4] = shared.found + row * token.splits;
      float largest = -INFINITY, sum = 0, result = 0;
#pragma unroll
      for (int j = 0; j < clusterSize; j++) largest = j < token.splits ? fmaxf(largest, found[j][D]) : largest;
#pragma unroll
      for (int j = 0; j < clusterSize; j++) {
        float weight = j < token.splits ? weightOf(found[j][D], largest) : 0;
        if (j < token.splits) sum += weight * found[j][D + 1], result += weight * found[j][column];
      }
      shared.attended[row][column] = __float2bfloat16_rn(__fdividef(result, sum));
    }
  }

  // Of gates, to the cluster.
  __device__ void sendHidden(int own) {
#pragma unroll 1
    for (int i = thread; i < own / 2 * token.rows; i += threads) {
      int row = token.rows == 1 ? 0 : i / (own / 2), j = (i - row * (own / 2)) * 2;
      float values[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float gate = rounded<bf16>(shared.results[(j + e) * token.rows + row]), up = rounded<bf16>(shared.results[(own + j + e) * token.rows + row]);
        values[e] = __fdividef(gate, 1 + __expf(-gate)) * up;
      }
      uint32 word = pairOf(values[0], values[1]), there = addressOf(memory + token.atHidden + row * token.hiddenPitch + (rank * own + j) * 2);
#pragma unroll
      for (int to = 0; to < clusterSize; to++) send(addressIn(there, to), word, addressIn(sent(Hidden), to));
    }
  }

  __device__ void mix(const Layer& layer, Finisher& finisher, int parts) {
    bool takesPart = cluster < token.heads;
    gather(parts, takesPart ? layer.norm : nullptr);
    if (!takesPart) return;
#pragma unroll 1
    for (int head = cluster; head < token.heads; head += clusters) {
      prepare(finisher, layer, head);
      if (isAttending()) expect(Queries, D * 4 + S * 4 + (S > 0 ? 4 : 0) + (shared.isNewest ? D * 4 + S * 2 : 0));
      expect(Attended, token.rows * token.splits * (D + 2) * 4);
      multiply<Projections>(Base::projectionRows, inputs(), token.d * 2 + padding);
      if (head == cluster) normalize(layer.epsilon);
      Keys keys;
      fetch(keys, layer, head, shared.firstKey);
      addUp<Projections>(Base::projectionRows, 0, 0);
      syncWarps<warps>();
      finish(layer, head, finisher);
      __syncwarp();
      settle(keys, shared.firstKey);
      if (isAttending()) {
        waitFor(Queries);
        haveGot(Queries);
        attend(keys, layer, head);
        __syncwarp();
      }
      waitFor(Attended);
      haveGot(Attended);
      join();
      syncWarps<warps>();
      multiply<Output>(this->columns(), addressOf(shared.attended), D * 2 + padding);
      addUp<Output>(this->columns(), head, 0);
    }
    haveGot(Inputs);
  }

  __device__ void feedForward(const Layer& layer) {
    int all = shared.product[Gates].all;
    gather(token.heads, all > 0 ? layer.gateNorm : nullptr);
    if (all == 0) return;
    expect(Hidden, token.rows * all * clusterSize);
    multiply<Gates>(all, inputs(), token.d * 2 + padding);
    normalize(layer.gateEpsilon);
    haveGot(Inputs);
    addUp<Gates>(all, 0, 0);
    syncWarps<warps>();
    sendHidden(all / 2);
    multiply<Down>(this->columns(), addressOf(memory) + token.atHidden, token.hiddenPitch);
    haveGot(Hidden);
    addUp<Down>(this->columns(), cluster, 0);
  }

  __device__ void project(int parts) {
    gather(parts, token.headNorm);
    int all = shared.product[Head].all, firstLogit = this->firstOfHead();
#pragma unroll 1
    for (int row = 0; row < all; row += headRows) {
      int rows = min(headRows, all - row);
      multiply<Head>(rows, inputs(), token.d * 2 + padding);
      if (row == 0) normalize(token.headEpsilon);
      addUp<Head>(rows, 0, firstLogit + row);
    }
  }

  __device__ void run() {
    Finisher finisher;
    startFinisher(finisher);
#pragma unroll 1
    for (int i = 0; i < token.layers; i++) {
      // Keeps the compiler from finding out before what then does not fit into registers.
      asm volatile("" : "+r"(thread), "+r"(lane), "+r"(warp), "+r"(rank), "+r"(cluster), "+r"(clusters));
      mix(this->layer(i), finisher, i == 0 ? 0 : this->feeding());
      turn++;
      feedForward(this->layer(i));
      turn++;
    }
    if (token.head) project(this->feeding());
    else {
      gather(this->feeding(), nullptr);
      syncWarps<warps>();
      int pairs = this->columns() / 2;
      for (int i = thread; i < token.rows * pairs && cluster == 0; i += threads)
        ((uint32*)token.last)[i / pairs * (token.d / 2) + rank * pairs + i % pairs] = own()[i];
    }
    // All blocks have given sums, so each has read this.
    if (blockIdx.x == 0 && thread == 0) *token.turn = turn;
  }
};

// Which rows and which part of k each warp takes.
__device__ inline void plan(Product& p, int all, int k, int most) {
  int pitch = k * 2 + padding, steps = k / stepWidth;
  int tiles = max(1, (min(all, most) + tileRows - 1) / tileRows), parts = max(1, min(warps / tiles, steps));
  // So many rows at a time are whole pieces.
  int tilesPerPiece = max(1, min(tiles, pieceBytes / pitch / tileRows));
  int perPiece = (tiles % tilesPerPiece == 0 ? tilesPerPiece : 1) * tileRows;
  p.all = all, p.bytes = k * 2, p.perPiece = perPiece, p.tiles = tiles, p.parts = parts;
#pragma unroll 1
  for (int i = 0; i < warps; i++) {
    int part = i / tiles, row = (i - part * tiles) * tileRows, first = steps * part / parts, piece = row / perPiece;
    bool isIdle = part >= parts;
    p.work[i] = {isIdle ? 1 << 30 : row, piece, (row - piece * perPiece) * pitch + first * stepWidth * 2, first, steps * (part + 1) / parts - first};
  }
}

template <int D, int S> __device__ void decodeToken(const Token& token) {
  __shared__ Shared<D, S> shared;
  Block<D, S> block{token, shared};
  int thread = threadIdx.x, pairs = block.columns() / 2;
  // The layers as they lie in the parameters, which threads read at different places.
#pragma unroll 1
  for (int i = thread; i < token.layers * (int)sizeof(Layer) / 8; i += blockDim.x) {
    uint64 x;
    asm volatile("ld.u64 %0, [%1];" : "=l"(x) : "l"((uint64)&token.layer + 8 * i));
    ((uint64*)memory)[i] = x;
  }
#pragma unroll 1
  for (int i = thread; i < token.rows * pairs; i += blockDim.x)
    ((uint32*)(memory + token.atOwn))[i] = __ldcg((const uint32*)token.x + i / pairs * (token.d / 2) + block.rank * pairs + i % pairs);
  if (thread < mostPieces) startBarrier(addressOf(&shared.full[thread]), 1), startBarrier(addressOf(&shared.empty[thread]), 1);
  else if (thread < mostPieces + exchanges) startBarrier(addressOf(&shared.sent[thread - mostPieces]), 1);
  else if (thread < 2 * mostPieces) shared.turn = __ldcg(token.turn);
  else if (thread < 2 * mostPieces + token.rows) {
    int i = thread - 2 * mostPieces, position = token.start[i], isThere = position >= 0 && position < token.pages.capacity;
    if (!isThere && blockIdx.x == 0) report(token.fault, token.faultNode, position);
    int taken = token.row ? token.row[i] : 0;
    if (token.isFromZero) taken = max(taken, 0);
    if (taken != 0 && blockIdx.x == 0) report(token.headFault, token.headNode, taken);
    if (!isThere) position = 0;
    shared.position[i] = position, shared.isThere[i] = isThere;
    shared.newest[i] = keyRowAt(token.pages, i, position), shared.before[i] = keyRowAt(token.pages, i, max(position - 1, 0));
    int each = (position + token.splits * 8) / (token.splits * 8) * 8, part = block.rank - i * token.splits;
    shared.newestRank[i] = i * token.splits + position / each;
    if (part >= 0 && part < token.splits)
      shared.firstKey = part * each, shared.endOfKeys = min(part * each + each, position + 1), shared.isNewest = part == position / each;
  } else if (thread >= 3 * mostPieces && thread % 32 == 0 && thread / 32 - 3 < products) {
    int groups = block.groups(), index = thread / 32 - 3;
    int first = block.firstOfHead(), rows = token.head ? (int64)token.n * (blockIdx.x + 1) / gridDim.x - first : 0;
    int all = index == Projections ? Block<D, S>::projectionRows : index == Gates ? groups * 4 : index == Head ? rows : index == Down && groups == 0 ? 0 : block.columns();
    plan(shared.product[index], all, index == Output ? D : index == Down ? groups * stepWidth : token.d, index == Head ? headRows : all);
  }
  if (thread == 0) {
    shared.sequence = block.rank / token.splits;
    if (shared.sequence >= token.rows) shared.firstKey = shared.endOfKeys = shared.isNewest = 0;
  }
  fenceBarriers();
  __syncthreads();
  syncCluster();
  if (thread >= threads) Copier<D, S>{block}.run();
  else Worker<D, S>{block}.run();
}

#define DECODE_TOKEN(width, states)                                                                                \
  extern "C" __global__ void __cluster_dims__(clusterSize, 1, 1) __launch_bounds__(threads + 32 * copiers, 1)      \
      decodeTokenHopper_##width##_##states(const __grid_constant__ Token token) {                                  \
    decodeToken<width, states>(token);                                                                             \
  }
DECODE_TOKEN(64, 0)
DECODE_TOKEN(64, 16)
DECODE_TOKEN(64, 32)
DECODE_TOKEN(64, 64)
DECODE_TOKEN(64, 128)
DECODE_TOKEN(128, 0)
DECODE_TOKEN(128, 16)
DECODE_TOKEN(128, 32)
DECODE_TOKEN(128, 64)
DECODE_TOKEN(128, 128)
