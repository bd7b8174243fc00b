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
const int mostPieces = 32, pieceBytes = 36 << 10;            // of weights: in shared memory or on their way, and their size
const int flightBytes = 96 << 10;                            // on their way at once
const int buffers = 4;                                       // of sums: a cluster may be behind by a layer
const int padding = 16;                                      // bytes between rows, so that eight rows lie in different banks
const int tileRows = 16, stepWidth = 16;                     // of weights, that an instruction takes
const int mostColumns = 1536 / clusterSize;                  // of x, that a block has
const int headRows = 48;                                     // of the last product, at a time
const int mostParts = 4;                                     // of k, each by a warp

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
  const bf16* x;  // [rows, d], or [idCount, d] where there are ids
  const int* ids;
  Fault* idFault;
  int idNode, idCount;
  bf16* last;  // x behind the last layer; none where the last product takes it
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

__device__ inline void loadTiles(uint32 (&x)[4], uint32 from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(from));
}
// Where a step is left.
__device__ inline void multiplyAdd(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1, bool isLeft = true) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.s32 p, %10, 0;\n"
               "@p mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n}"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"((int)isLeft));
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
  alignas(16) float factors[mostColumns];  // of the norm that comes next, for the block's columns
  Product product[products];
  alignas(16) float sums[2][warps][tileRows * mostRows];
  float inverse[mostRows];
  int position[mostRows], isThere[mostRows], before[mostRows], newest[mostRows];  // tokens held, and rows of caches
  int newestRank[mostRows];                                                        // of the block that attends to the newest
  // Attention: the sequence and the part of its keys that the block takes, and what belongs to its newest token.
  int sequence, firstKey, endOfKeys, isNewest;
  alignas(16) bf16 q[D], c[S == 0 ? 8 : S], key[D], value[D], importance[S == 0 ? 8 : S];
  float decay;
  // Of each warp, and of each block: weighted values are relative to the largest score.
  alignas(16) float2 weights[warps];  // largest score, sum of weights
  alignas(16) float2 foundWeights[clusterSize];
  alignas(16) float found[clusterSize][D];
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
      const void* cache = kind == 0 ? (const void*)layer.keys : kind == 1 ? layer.values : kind == 2 ? (const void*)layer.importances : layer.decays;
      int64 line = (int64)token.heads * width;
      prefetch((const unsigned char*)cache + row * token.pages.capacity * line, shared.position[row] * line);
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
  static const int keysOfWarp = 16, keysAtOnce = keysOfWarp * warps;
  // Whether a warp's keys fit into registers beside the weights of the projections, and values beside keys.
  static const bool isEarly = D / 2 + S / 4 <= 48;
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

  // Asks for the weights of the coming norm, which each warp of `gather` uses itself. All that a layer reads takes long while
  // weights are on their way.
  __device__ void askForFactors(const float* norm) {
#pragma unroll 1
    for (int chunk = warp; norm && chunk < token.d / 64; chunk += warps)
      if (lane < 2) copyAsync(shared.factors + chunk * 8 + lane * 4, norm + rank * this->columns() + chunk * 8 + lane * 4);
    endOfCopies();
  }

  // Adds what all have found in the last turn to the block's columns of x, and sends them, times the weights of a norm, to the cluster.
  __device__ void gather(int parts, bool isNormed) {
    const int chunks = token.d / 64, pair = lane % 4, line = token.d / 2, between = token.rows * line;
    if (isNormed) expect(Inputs, token.rows * (token.d * 2 + token.d / 8 * 4));
    const uint4* sums = token.sums + turn % buffers * token.parts * between;
#pragma unroll 1
    for (int chunk = warp; chunk < chunks; chunk += warps)
#pragma unroll 1
      for (int row = 0; row < token.rows; row++) {
        int place = rank * chunks + chunk;
        uint32* kept = own() + row * (this->columns() / 2) + chunk * 4 + pair;
        float2 x = {0, 0};
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
        waitForCopies(0);
        __syncwarp();
        if (lane < 4) *kept = word;
        if (isNormed) {
          float2 factor = ((const float2*)shared.factors)[chunk * 4 + pair];
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
      }
    __syncwarp();
  }

  // A warp's part of a product, to `sums`. Weights go to registers before what x comes by is waited for.
  template <int index> __device__ void multiply(int all, uint32 x, int pitchOfX) {
    const int exchange = index == Output ? exchanges : index == Down ? Hidden : Inputs;
    const int atOnce = index == Output ? 2 : index == Head ? 12 : 6;
    const Product& p = shared.product[index];
    Work work = p.work[warp];
    float* sums = shared.sums[buffer ^= 1][warp];
    if (work.tile >= all) return;
    int piece = consumed + work.piece, slot = piece % mostPieces, pitch = p.bytes + padding;
    wait(addressOf(&shared.full[slot]), piece / mostPieces & 1);
    uint32 line = addressOf(memory) + token.atRing + shared.place[slot] + work.offset + min(lane % 16, all - 1 - work.tile) * pitch + lane / 16 * 16;
    uint32 columns = x + min(lane % 8, token.rows - 1) * pitchOfX + (2 * work.first + lane / 8 % 2) * 16;
    float d[2][4] = {};
#pragma unroll 1
    for (int left = work.count; left > 0; left -= atOnce, line += atOnce * stepWidth * 2, columns += atOnce * stepWidth * 2) {
      uint32 a[atOnce][4];
      // Beyond the last step, that one again.
#pragma unroll
      for (int j = 0; j < atOnce; j++) loadTiles(a[j], line + min(j, left - 1) * stepWidth * 2);
      if (exchange < exchanges) waitFor(exchange);
#pragma unroll
      for (int j = 0; j < atOnce; j += 2) {
        uint32 b[4];
        loadTiles(b, columns + min(j + lane / 16, left - 1) * stepWidth * 2);
        multiplyAdd(d[0], a[j], b[0], b[1], left > j), multiplyAdd(d[1], a[j + 1], b[2], b[3], left > j + 1);
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
    const float4* squares = (const float4*)(memory + token.atSquares) + row * (token.d / 32);
    float sum = 0;
#pragma unroll 1
    for (int i = lane; i < token.d / 32; i += 32) sum += squares[i].x + squares[i].y + squares[i].z + squares[i].w;
    sum = warpSum(sum);
    if (lane == 0) shared.inverse[row] = rsqrtf(__fdividef(sum, token.d) + epsilon);
  }

  // Until each warp has its part of a product. Its weights may go.
  template <int index> __device__ void endProduct(int all) {
    syncWarps<warps>();
    int perPiece = shared.product[index].perPiece;
#pragma unroll 1
    for (int from = 0; from < all; from += perPiece, consumed++)
      if (thread == 0) arrive(addressOf(&shared.empty[consumed % mostPieces]));
  }

  // One result of a product, from the parts of all warps.
  template <int index> __device__ float result(int r, int row) {
    const bool isNormed = index != Output && index != Down;
    const Product& p = shared.product[index];
    int tile = r / tileRows, between = p.tiles * tileRows * mostRows;
    const float* from = shared.sums[buffer][tile] + (r - tile * tileRows) * token.rows + row;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < mostParts; k++) sum += k < p.parts ? from[k * between] : 0;
    return isNormed ? sum * shared.inverse[row] : sum;
  }

  // The block's columns of a product to all, as one part of a sum.
  template <int index> __device__ void give(int part) {
    int columns = this->columns();
    uint64* sums = (uint64*)token.sums + (((turn + 1) % buffers * token.parts + part) * token.rows * token.d + rank * columns);
#pragma unroll 1
    for (int i = thread; i < columns * token.rows; i += threads) {
      int r = token.rows == 1 ? i : i / token.rows, row = i - r * token.rows;
      uint64 x = (uint64)(turn + 1) << 32 | __float_as_uint(result<index>(r, row));
      asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(sums + row * token.d + r), "l"(x) : "memory");
    }
  }

  // What two warps finish of a head's projections, a thread what belongs together of one sequence: a pair of q, k, v, c or b, or
  // the decay.
  enum { Query, Key, Value, Reading, Importance, Decay };
  struct Finisher {
    int kind, row, place;  // place: among the head's pairs
    float first, second;   // cosine and sine, or angle before, or bias and sum of decays before
    int64 line;            // of the newest token in caches of all heads
  };

  __device__ void startFinisher(Finisher& f) {
    f.kind = warp / 2, f.row = token.rows;
    int index = warp % 2 * 32 + lane, each = f.kind < Reading ? perD / 2 : f.kind < Decay ? perPhase : S > 0;
    if (each == 0) return;
    f.row = f.kind < Reading ? index / (perD / 2) : f.kind < Decay ? index / max(perPhase, 1) : index == 0 ? shared.sequence : token.rows;
    if (f.row >= token.rows) return;
    f.place = rank * each + (f.kind < Decay ? index - f.row * each : 0);
    f.first = 1, f.second = 0, f.line = (int64)shared.newest[f.row] * token.heads;
    int place = min(shared.position[f.row], token.positions - 1) * (D / 2) + f.place;
    if (f.kind < Value && token.cosine) f.first = __ldg(token.cosine + place), f.second = __ldg(token.sine + place);
  }

  // What there is before the projections are.
  __device__ void prepare(Finisher& f, const Layer& layer, int head) {
    if (S == 0 || f.row >= token.rows || f.kind < Reading) return;
    int64 before = (int64)shared.before[f.row] * token.heads + head;
    int position = shared.position[f.row];
    if (f.kind < Decay) f.first = position > 0 ? __ldcg(layer.phases + before * (S / 2) + f.place) : 0;
    else f.first = __ldg(layer.bias + head), f.second = position % BLOCK != 0 ? __ldcg(layer.decays + before) : 0;
  }

  // To the blocks that attend to a sequence.
  __device__ void sendToAll(int row, const bf16* there, float2 x) {
    uint32 word = pairOf(x.x, x.y);
#pragma unroll
    for (int i = 0; i < clusterSize; i++) {
      int to = row * token.splits + i;
      if (i < token.splits) send(addressIn(addressOf(there), to), word, addressIn(sent(Queries), to));
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
    int64 line = f.line + head;
    auto resultOf = [&](int r) { return this->template result<Projections>(r, f.row); };
    if (f.kind == Decay) {
      float strength = resultOf(Base::projectionRows - 1) + f.first;
      float decay = (float)((double)f.second - (fmaxf(strength, 0.f) + log1pf(expf(-fabsf(strength)))));
      send(addressIn(addressOf(&shared.decay), rank), __float_as_uint(decay), addressIn(sent(Queries), rank));
      if (shared.isNewest && shared.isThere[f.row]) layer.decays[line] = decay;
      return;
    }
    // Results of the block in the order of its rows.
    bool isState = f.kind >= Reading;
    int own = f.place - rank * (isState ? perPhase : perD / 2), r = isState ? 3 * perD + (f.kind - Reading) * perS : f.kind * perD;
    float a = rounded<bf16>(resultOf(r + 2 * own)), b = rounded<bf16>(resultOf(r + 2 * own + 1)), cosine = f.first, sine = f.second;
    if (isState) {
      const double turn = 6.283185307179586476925, perTurn = 0.15915494309189533577;
      double turns = ((double)f.first + resultOf(3 * perD + 2 * perS + own)) * perTurn;
      turns -= floor(turns);
      sincospif((float)(2 * turns), &sine, &cosine);
      if (f.kind == Importance && shared.isThere[f.row]) layer.phases[line * (S / 2) + f.place] = (float)(turn * turns);
    }
    float2 x = {a * cosine - b * sine, a * sine + b * cosine};
    int place = 2 * f.place;
    if (f.kind == Query || f.kind == Reading) sendToAll(f.row, (isState ? shared.c : shared.q) + place, x);
    else {
      bf16* cache = isState ? layer.importances + line * S : (f.kind == Key ? layer.keys : layer.values) + line * D;
      keep(f.row, cache + place, (isState ? shared.importance : f.kind == Key ? shared.key : shared.value) + place, x);
    }
  }

  // Keys of a warp at a time. Four lanes share two keys, eight apart; of each a lane has every fourth part of 16 bytes (of 8 where
  // S is 16), which are operands of products as they lie if the query's are taken alike.
  struct Keys {
    uint32 k[2][D / 8], v[2][D / 8], b[2][S == 0 ? 1 : S / 8];
    float decay[2];     // in the key's block of positions up to it
    float total, rest;  // of one block of positions for each lane, and of every 32nd behind it
    float lambda;
  };

  static __device__ int64 lineOf(int row, int heads, int head) { return (int64)row * heads + head; }
  __device__ int rowOf(int position) {
    int sequence = shared.sequence;
    if (!token.pages.table) return sequence * token.pages.capacity + position;
    return max(__ldcg(token.pages.table + sequence * token.pages.perSequence + position / PAGE), 0) * PAGE + position % PAGE;
  }
  // A lane's part of a row.
  template <int width> static __device__ void load(uint32 (&x)[width / 8], const bf16* row, int own) {
    if constexpr (width == 16) *(uint2*)x = __ldcg((const uint2*)row + own);
    else
#pragma unroll
      for (int i = 0; i < width / 32; i++) *(uint4*)&x[4 * i] = __ldcg((const uint4*)row + 4 * i + own);
  }
  template <int width> static __device__ void take(uint32 (&x)[width / 8], const bf16* row, int own) {
    if constexpr (width == 16) *(uint2*)x = ((const uint2*)row)[own];
    else
#pragma unroll
      for (int i = 0; i < width / 32; i++) *(uint4*)&x[4 * i] = ((const uint4*)row)[4 * i + own];
  }

  // In caches, of the lane's keys; those that are left out are the last.
  __device__ int64 lineOfKey(int i, int head, int base) {
    return lineOf(rowOf(min(base + warp * keysOfWarp + lane / 4 + 8 * i, shared.endOfKeys - 1)), token.heads, head);
  }
  __device__ void fetch(Keys& keys, const Layer& layer, int head, int base) {
    int own = lane % 4, first = base + warp * keysOfWarp;
    if (first >= shared.endOfKeys) return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int64 line = lineOfKey(i, head, base);
      load<D>(keys.k[i], layer.keys + line * D, own);
      if constexpr (isEarly) load<D>(keys.v[i], layer.values + line * D, own);
      if constexpr (S > 0) load<S>(keys.b[i], layer.importances + line * S, own), keys.decay[i] = __ldcg(layer.decays + line);
    }
    if constexpr (S > 0) {
      keys.total = keys.rest = 0, keys.lambda = __ldg(layer.lambda + head);
      int queryBlock = shared.position[shared.sequence] / BLOCK;
#pragma unroll 1
      for (int block = first / BLOCK + lane, i = 0; block < queryBlock; block += 32, i++) {
        float total = __ldcg(layer.decays + lineOf(rowOf(block * BLOCK + BLOCK - 1), token.heads, head));
        if (i == 0) keys.total = total;
        else keys.rest += total;
      }
    }
  }

  // The sums of decays from the end of a key's block of positions to the begin of the query's.
  __device__ void settle(const Keys& keys, int base, float (&between)[2]) {
    int first = base + warp * keysOfWarp;
    float rest = keys.rest + __shfl_xor_sync(0xffffffffu, keys.rest, 16), sum = keys.total + (lane < 16 ? 0 : rest);
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      float other = __shfl_down_sync(0xffffffffu, sum, step);
      sum += lane + step < 32 ? other : 0;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) between[i] = __shfl_sync(0xffffffffu, sum, (first + 8 * i) / BLOCK - first / BLOCK);
  }

  // What a warp has found: values of the lane's part of a row, relative to the largest score of all lanes.
  struct Attention {
    float most = -INFINITY, total = 0, values[D / 4] = {};
  };

  __device__ void attend(Attention& found, Keys& keys, const Layer& layer, int head, const float (&between)[2], int base) {
    int own = lane % 4, first = base + warp * keysOfWarp, end = shared.endOfKeys;
    // The newest token's is not in the cache yet.
    int newest = shared.isNewest ? shared.position[shared.sequence] - first - lane / 4 : -1;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (newest != 8 * i) continue;
      take<D>(keys.k[i], shared.key, own);
      if constexpr (isEarly) take<D>(keys.v[i], shared.value, own);
      if constexpr (S > 0) take<S>(keys.b[i], shared.importance, own), keys.decay[i] = shared.decay;
    }
    __syncwarp();
    float products[4] = {}, states[4] = {};
    uint32 q[D / 8];
    take<D>(q, shared.q, own);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      const uint32 a[4] = {keys.k[0][j], keys.k[1][j], keys.k[0][j + 1], keys.k[1][j + 1]};
      multiplyAdd(products, a, q[j], q[j + 1]);
    }
    if constexpr (S > 0) {
      uint32 c[S / 8];
      take<S>(c, shared.c, own);
#pragma unroll
      for (int j = 0; j < S / 8; j += 2) {
        const uint32 a[4] = {keys.b[0][j], keys.b[1][j], keys.b[0][j + 1], keys.b[1][j + 1]};
        multiplyAdd(states, a, c[j], c[j + 1]);
      }
    }
    if constexpr (!isEarly) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        if (newest == 8 * i) take<D>(keys.v[i], shared.value, own);
        else load<D>(keys.v[i], layer.values + lineOfKey(i, head, base) * D, own);
      }
      __syncwarp();
    }
    float scores[2], most = found.most;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float score = products[2 * i] * token.scale;
      if constexpr (S > 0) score += keys.lambda * states[2 * i] * __expf(fminf(between[i] + shared.decay - keys.decay[i], 0.f));
      scores[i] = first + lane / 4 + 8 * i < end ? score : -INFINITY, most = fmaxf(most, scores[i]);
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    float shrink = weightOf(found.most, most), p[2] = {weightOf(scores[0], most), weightOf(scores[1], most)};
    found.most = most, found.total = found.total * shrink + p[0] + p[1];
#pragma unroll
    for (int j = 0; j < D / 4; j++) {
      // What is left out may be NaN.
      float v[2];
#pragma unroll
      for (int i = 0; i < 2; i++) v[i] = p[i] == 0 ? 0 : j % 2 == 0 ? lowOf(keys.v[i][j / 2]) : highOf(keys.v[i][j / 2]);
      found.values[j] = found.values[j] * shrink + p[0] * v[0] + p[1] * v[1];
    }
  }

  // Two lanes with the same elements of other keys add them up, and take half of the sums each.
  template <int n> static __device__ void halve(Attention& found, int lane) {
    const int step = 128 * n / D;
    found.total += __shfl_xor_sync(0xffffffffu, found.total, step);
#pragma unroll
    for (int j = 0; j < n; j++) {
      float lower = found.values[j], upper = found.values[j + n];
      found.values[j] = (lane & step ? upper : lower) + __shfl_xor_sync(0xffffffffu, lane & step ? lower : upper, step);
    }
  }

  // What the block found among its keys goes to the cluster.
  __device__ void share(Attention& found) {
    halve<D / 8>(found, lane), halve<D / 16>(found, lane), halve<D / 32>(found, lane);
    const int each = D / 32;  // elements that a lane is left with
    float(*values)[D] = (float(*)[D])shared.sums[buffer ^= 1];
    int part = lane / 4 * each, column = (part / 8 * 4 + lane % 4) * 8 + part % 8;
#pragma unroll
    for (int j = 0; j < each; j++) values[warp][column + j] = found.values[j];
    if (lane == 0) shared.weights[warp] = {found.most, found.total};
    syncWarps<warps>();
    // Neighbouring lanes take some of the warps' parts of an element, and send its sum to some of the blocks.
    const int lanes = threads / D >= 4 ? 4 : 2, parts = warps / lanes, targets = clusterSize / lanes;
    int element = thread / lanes, which = thread % lanes;
    if (element >= D) return;
    float largest = -INFINITY, sum = 0, result = 0;
#pragma unroll
    for (int i = 0; i < warps; i++) largest = fmaxf(largest, shared.weights[i].x);
#pragma unroll
    for (int i = 0; i < parts; i++) {
      float2 own = shared.weights[which * parts + i];
      float weight = weightOf(own.x, largest);
      sum += weight * own.y, result += weight * values[which * parts + i][element];
    }
#pragma unroll
    for (int step = 1; step < lanes; step *= 2)
      sum += __shfl_xor_sync(0xffffffffu, sum, step), result += __shfl_xor_sync(0xffffffffu, result, step);
#pragma unroll
    for (int i = 0; i < targets; i++) {
      int to = which * targets + i;
      uint32 barrier = addressIn(sent(Attended), to);
      send(addressIn(addressOf(&shared.found[rank][element]), to), __float_as_uint(result), barrier);
      if (element == 0) send(addressIn(addressOf(&shared.foundWeights[rank]), to), float2{largest, sum}, barrier);
    }
  }

  // From the parts of all blocks of the cluster, of which two lanes take half each.
  __device__ void join() {
#pragma unroll 1
    for (int i = thread; i < token.rows * D * 2; i += threads) {
      int row = i / (2 * D), column = i / 2 % D, half = i % 2;
      const float2* weights = shared.foundWeights + row * token.splits;
      float largest = -INFINITY, sum = 0, result = 0;
#pragma unroll
      for (int j = 0; j < clusterSize; j++) largest = j < token.splits ? fmaxf(largest, weights[j].x) : largest;
#pragma unroll
      for (int j = 0; j < clusterSize / 2; j++) {
        int part = 2 * j + half;
        if (part >= token.splits) continue;
        float weight = weightOf(weights[part].x, largest);
        sum += weight * weights[part].y, result += weight * shared.found[row * token.splits + part][column];
      }
      sum += __shfl_xor_sync(0xffffffffu, sum, 1), result += __shfl_xor_sync(0xffffffffu, result, 1);
      if (half == 0) shared.attended[row][column] = __float2bfloat16_rn(__fdividef(result, sum));
    }
  }

  // Of gates, to the cluster: four lanes have the gates and what they let through of two elements, and send to two blocks each.
  __device__ void sendHidden(int own) {
    int all = own * 2 * token.rows;
#pragma unroll 1
    for (int begin = warp * 32; begin < all; begin += threads) {
      int i = min(begin + lane, all - 1), which = i % 4, pair = i / 4, row = token.rows == 1 ? 0 : pair / (own / 2), j = (pair - row * (own / 2)) * 2;
      float x = rounded<bf16>(result<Gates>((which < 2 ? 0 : own) + j + which % 2, row)), other = __shfl_xor_sync(0xffffffffu, x, 2);
      float gate = which < 2 ? x : other, up = which < 2 ? other : x;
      float value = __fdividef(gate, 1 + __expf(-gate)) * up, next = __shfl_xor_sync(0xffffffffu, value, 1);
      uint32 word = which % 2 == 0 ? pairOf(value, next) : pairOf(next, value);
      uint32 there = addressOf(memory + token.atHidden + row * token.hiddenPitch + (rank * own + j) * 2);
      if (begin + lane >= all) continue;
#pragma unroll
      for (int to = 0; to < 2; to++) send(addressIn(there, 2 * which + to), word, addressIn(sent(Hidden), 2 * which + to));
    }
    __syncwarp();
  }

  // A head of the cluster, whose keys are on their way where they fit.
  __device__ void mix(const Layer& layer, int head, Finisher& finisher, Keys& keys) {
    if (isAttending()) expect(Queries, D * 2 + S * 2 + (S > 0 ? 4 : 0) + (shared.isNewest ? D * 4 + S * 2 : 0));
    expect(Attended, token.rows * token.splits * (D + 2) * 4);
    multiply<Projections>(Base::projectionRows, inputs(), token.d * 2 + padding);
    if (head == cluster) normalize(layer.epsilon);
    if (!isEarly && isAttending()) fetch(keys, layer, head, shared.firstKey);
    endProduct<Projections>(Base::projectionRows);
    finish(layer, head, finisher);
    __syncwarp();
    if (isAttending()) {
      Attention found;
#pragma unroll 1
      for (int base = shared.firstKey;;) {
        bool isTaking = base + warp * keysOfWarp < shared.endOfKeys;
        float between[2] = {};
        if (S > 0 && isTaking) settle(keys, base, between);
        if (base == shared.firstKey) waitFor(Queries), haveGot(Queries);
        if (isTaking) attend(found, keys, layer, head, between, base);
        base += keysAtOnce;
        if (base >= shared.endOfKeys) break;
        fetch(keys, layer, head, base);
      }
      share(found);
      __syncwarp();
    }
    waitFor(Attended);
    haveGot(Attended);
    join();
    syncWarps<warps>();
    multiply<Output>(this->columns(), addressOf(shared.attended), D * 2 + padding);
    endProduct<Output>(this->columns());
    give<Output>(head);
  }

  __device__ void feedForward(const Layer& layer) {
    int all = shared.product[Gates].all;
    expect(Hidden, token.rows * all * clusterSize);
    multiply<Gates>(all, inputs(), token.d * 2 + padding);
    normalize(layer.gateEpsilon);
    endProduct<Gates>(all);
    sendHidden(all / 2);
    multiply<Down>(this->columns(), addressOf(memory) + token.atHidden, token.hiddenPitch);
    haveGot(Hidden);
    endProduct<Down>(this->columns());
    give<Down>(cluster);
  }

  __device__ void project() {
    int all = shared.product[Head].all, firstLogit = this->firstOfHead();
#pragma unroll 1
    for (int row = 0; row < all; row += headRows) {
      int rows = min(headRows, all - row);
      multiply<Head>(rows, inputs(), token.d * 2 + padding);
      if (row == 0) normalize(token.headEpsilon);
      endProduct<Head>(rows);
#pragma unroll 1
      for (int i = thread; i < rows * token.rows; i += threads) {
        int r = token.rows == 1 ? i : i / token.rows, sequence = i - r * token.rows;
        int64 to = (int64)sequence * token.n + firstLogit + row + r;
        float logit = result<Head>(r, sequence);
        if (token.isWide) ((float*)token.logits)[to] = logit;
        else ((bf16*)token.logits)[to] = __float2bfloat16_rn(logit);
      }
    }
  }

  // Of the norm with which a half of a layer begins, or the last product; none where the block has no part in what follows.
  __device__ const float* normOf(int half) {
    if (half == 2 * token.layers) return token.headNorm;
    const Layer& layer = this->layer(half / 2);
    if (half % 2 == 0) return cluster < token.heads ? layer.norm : nullptr;
    return shared.product[Gates].all > 0 ? layer.gateNorm : nullptr;
  }

  __device__ void run() {
    Finisher finisher;
    startFinisher(finisher);
    askForFactors(normOf(0));
    // Halves of layers, and what follows the last; one loop, since instructions come slowly where they are used once.
#pragma unroll 1
    for (int half = 0; half <= 2 * token.layers; half++) {
      // Keeps the compiler from finding out before what then does not fit into registers.
      asm volatile("" : "+r"(thread), "+r"(lane), "+r"(warp), "+r"(rank), "+r"(cluster), "+r"(clusters));
      const Layer& layer = this->layer(half / 2);
      bool isLast = half == 2 * token.layers, takesPart = normOf(half), isMixing = takesPart && half % 2 == 0 && !isLast;
      int head = cluster;
#pragma unroll 1
      do {
        Keys keys;
        // What there is before x is.
        if (isMixing) prepare(finisher, layer, head);
        if (isEarly && isMixing && isAttending()) fetch(keys, layer, head, shared.firstKey);
        if (head == cluster) {
          gather(half == 0 ? 0 : half % 2 == 0 ? this->feeding() : token.heads, takesPart);
          if (!isLast) askForFactors(normOf(half + 1));
        }
        if (isMixing) mix(layer, head, finisher, keys);
        head += clusters;
      } while (isMixing && head < token.heads);
      if (isLast) break;
      if (takesPart && !isMixing) feedForward(layer);
      if (takesPart) haveGot(Inputs);
      turn++;
    }
    if (token.head) project();
    else {
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
  int tiles = max(1, (min(all, most) + tileRows - 1) / tileRows), parts = max(1, min(min(warps / tiles, mostParts), steps));
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
  for (int i = thread; i < token.rows * pairs; i += blockDim.x) {
    int row = i / pairs, pair = i - row * pairs, id = token.ids ? __ldcg(token.ids + row) : row;
    bool isBad = token.ids && (id < 0 || id >= token.idCount);
    if (isBad && blockIdx.x == 0 && pair == 0) report(token.idFault, token.idNode, id);
    ((uint32*)(memory + token.atOwn))[i] = isBad ? 0 : __ldcg((const uint32*)token.x + (int64)id * (token.d / 2) + block.rank * pairs + pair);
  }
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
