// Matrix products through cuBLASLt. A product is prepared once and run often: with the algorithm its heuristics rank first,
// and for large ones with the fastest of those that they rank. cuBLASLt is column major, so C = A B is asked for as C^T = B^T A^T.

import { allocate, DeviceError, RandomStream, toBfloat16Bits, toFloat16Bits } from "@sisa/core";
import type { Driver } from "./driver.ts";
import type { HostMemory, Library, NativeFunction } from "./native.ts";

/** Float types that products take and give. */
export type ProductType = "float32" | "float64" | "float16" | "bfloat16";

const dataType = { float32: 0, float64: 1, float16: 2, bfloat16: 14 } as const satisfies Record<ProductType, number>;
/** CUBLAS_COMPUTE_32F: float32 is true float32, without TF32; narrow types have float32 sums. */
const compute = { float32: 68, float64: 70 } as const;
const descriptor = { transposeA: 3, transposeB: 4 } as const;
const layout = { batchCount: 5, stridedBatchOffset: 6 } as const;
const preference = { workspaceBytes: 1, alignment: [5, 6, 7, 8] } as const;

/** sizeof(cublasLtMatmulHeuristicResult_t); the algorithm is its first 64 bytes, the workspace's size follows. */
const heuristicBytes = 96;

/** Products of fewer operations take what the heuristics rank first. */
const tunedFlops = 1e10;
const mostCandidates = 8;
/** Random numbers in operands of a trial, after which they repeat. */
const drawnNumbers = 2 ** 16;
/** The first round of a trial loads code, and does not count. In a row, since the first run waits for the host. */
const [trialRounds, runsInRow] = [4, 4];
/** Share of the preferred candidate's time below which another one is taken: differences within it may be chance. */
const clearlyFaster = 0.97;

const typeBytes = { float32: 4, float64: 8, float16: 2, bfloat16: 2 } as const satisfies Record<ProductType, number>;

/** Scratch memory that products may use: what NVIDIA recommends for Hopper. */
export const workspaceBytes = 32 * 2 ** 20;

/** C [m,n] = op(A) op(B) + addend, all row major, `batch` times. */
export interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly type: ProductType;
  readonly resultType: ProductType;
  readonly batch: number;
  /** Elements from one matrix of the batch to the next; 0 repeats it. */
  readonly strideA: number;
  readonly strideB: number;
  readonly strideC: number;
  /** Elements from one row to the next, of A and B as they lie. The addend lies like C. */
  readonly pitchA: number;
  readonly pitchB: number;
  readonly pitchC: number;
  /** Whether there is an addend. */
  readonly adds: boolean;
  /** Largest power of two, at most 256, that divides every address in bytes. */
  readonly alignment: number;
}

function flopsOf({ m, n, k, batch }: Product): number {
  return 2 * m * n * k * batch;
}

export interface PreparedProduct {
  /** @param addend what is added; may be c itself */
  run(a: number, b: number, c: number, addend: number, stream: number): void;
}

const prototypes = {
  create: "int cublasLtCreate(_Out_ uint64_t *handle)",
  destroy: "int cublasLtDestroy(uint64_t handle)",
  descCreate: "int cublasLtMatmulDescCreate(_Out_ uint64_t *descriptor, int compute, int scale)",
  descSet: "int cublasLtMatmulDescSetAttribute(uint64_t descriptor, int attribute, const void *value, uint64_t bytes)",
  descDestroy: "int cublasLtMatmulDescDestroy(uint64_t descriptor)",
  layoutCreate:
    "int cublasLtMatrixLayoutCreate(_Out_ uint64_t *layout, int type, uint64_t rows, uint64_t columns, int64_t stride)",
  layoutSet: "int cublasLtMatrixLayoutSetAttribute(uint64_t layout, int attribute, const void *value, uint64_t bytes)",
  layoutDestroy: "int cublasLtMatrixLayoutDestroy(uint64_t layout)",
  preferenceCreate: "int cublasLtMatmulPreferenceCreate(_Out_ uint64_t *preference)",
  preferenceSet:
    "int cublasLtMatmulPreferenceSetAttribute(uint64_t preference, int attribute, const void *value, uint64_t bytes)",
  preferenceDestroy: "int cublasLtMatmulPreferenceDestroy(uint64_t preference)",
  heuristic:
    "int cublasLtMatmulAlgoGetHeuristic(uint64_t handle, uint64_t descriptor, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t preference, int requested, void *results, _Out_ int *found)",
  matmul:
    "int cublasLtMatmul(uint64_t handle, uint64_t descriptor, uint64_t alpha, uint64_t a, uint64_t aLayout, uint64_t b, uint64_t bLayout, uint64_t beta, uint64_t c, uint64_t cLayout, uint64_t d, uint64_t dLayout, const void *algorithm, uint64_t workspace, uint64_t workspaceBytes, uint64_t stream)",
  version: "uint64_t cublasLtGetVersion()",
} as const;

type Name = keyof typeof prototypes;

export class CublasLt {
  readonly version: number;
  readonly #functions: { readonly [N in Name]: NativeFunction };
  readonly #driver: Driver;
  readonly #stream: number;
  readonly #handle: number;
  readonly #workspace: number;
  readonly #scalars: HostMemory;
  readonly #prepared = new Map<string, PreparedProduct>();
  readonly #release: (() => void)[] = [];

  /** @param stream where candidates are tried */
  constructor(driver: Driver, library: Library, stream: number) {
    this.#driver = driver;
    this.#stream = stream;
    const load = ([name, prototype]: [string, string]) => [name, library.func(prototype)] as const;
    this.#functions = Object.fromEntries(Object.entries(prototypes).map(load)) as { [N in Name]: NativeFunction };
    this.version = Number(this.#functions.version());
    this.#handle = this.#make("create");
    this.#workspace = driver.handle("cuMemAlloc", workspaceBytes);
    this.#scalars = driver.native.allocate(32);
    new Float32Array(this.#scalars.buffer, 0, 2).set([1, 0]);
    new Float64Array(this.#scalars.buffer, 8, 2).set([1, 0]);
  }

  /**
   * @param timed whether large products take the algorithm that is the fastest here, and not the one that is ranked first.
   *   Processes may find different ones the fastest, which add in different orders
   * @throws DeviceError where cuBLASLt has no algorithm for the product
   */
  prepare(product: Product, timed: boolean): PreparedProduct {
    const key = JSON.stringify([product, timed]);
    const known = this.#prepared.get(key);
    if (known) return known;
    const prepared = this.#prepare(product, timed);
    this.#prepared.set(key, prepared);
    return prepared;
  }

  #prepare(product: Product, timed: boolean): PreparedProduct {
    const { m, n, k, transposeA, transposeB, batch, resultType } = product;
    const wide = product.type === "float64";
    const desc = this.#make(
      "descCreate",
      wide ? compute.float64 : compute.float32,
      wide ? dataType.float64 : dataType.float32,
    );
    this.#set("descSet", desc, descriptor.transposeA, Int32Array.of(transposeB ? 1 : 0));
    this.#set("descSet", desc, descriptor.transposeB, Int32Array.of(transposeA ? 1 : 0));
    const layoutOf = (type: ProductType, rows: number, columns: number, pitch: number, stride: number) => {
      const made = this.#make("layoutCreate", dataType[type], rows, columns, pitch);
      this.#set("layoutSet", made, layout.batchCount, Int32Array.of(batch));
      this.#set("layoutSet", made, layout.stridedBatchOffset, BigInt64Array.of(BigInt(stride)));
      return made;
    };
    const first = layoutOf(product.type, transposeB ? k : n, transposeB ? n : k, product.pitchB, product.strideB);
    const second = layoutOf(product.type, transposeA ? m : k, transposeA ? k : m, product.pitchA, product.strideA);
    const third = layoutOf(resultType, n, m, product.pitchC, product.strideC);
    const wish = this.#make("preferenceCreate");
    this.#set("preferenceSet", wish, preference.workspaceBytes, BigUint64Array.of(BigInt(workspaceBytes)));
    for (const which of preference.alignment) {
      this.#set("preferenceSet", wish, which, Uint32Array.of(product.alignment));
    }
    const results = new Uint8Array(heuristicBytes * mostCandidates);
    const found = [0];
    const wanted = timed && flopsOf(product) >= tunedFlops ? mostCandidates : 1;
    const layouts = [first, second, third, third, wish] as const;
    const code = this.#functions.heuristic(this.#handle, desc, ...layouts, wanted, results, found);
    this.#functions.preferenceDestroy(wish);
    this.#release.push(() => {
      this.#functions.descDestroy(desc);
      for (const made of [first, second, third]) this.#functions.layoutDestroy(made);
    });
    const count = Number(found[0]);
    if (code !== 0 || count === 0) {
      throw new DeviceError(`matmul: cuBLASLt has no algorithm for ${JSON.stringify(product)} (status ${code})`);
    }
    const scalars = this.#scalars.address;
    const [one, zero] = wide ? [scalars + 8, scalars + 16] : [scalars, scalars + 4];
    const beta = product.adds ? one : zero;
    const { matmul } = this.#functions;
    const prepared = Array.from({ length: count }, (_, index): PreparedProduct => {
      const algorithm = results.slice(index * heuristicBytes, index * heuristicBytes + 64);
      return {
        run: (a, b, c, addend, stream) => {
          const operands = [b, first, a, second, beta, addend, third, c, third] as const;
          const workspace = [this.#workspace, workspaceBytes] as const;
          const status = matmul(this.#handle, desc, one, ...operands, algorithm, ...workspace, stream);
          if (status !== 0) throw new DeviceError(`matmul: cuBLASLt failed with status ${status}`);
        },
      };
    });
    return this.#fastest(product, prepared);
  }

  /** The candidate that takes the least time here; the first, which the heuristics prefer, unless another is clearly faster. */
  #fastest(product: Product, candidates: readonly PreparedProduct[]): PreparedProduct {
    const [preferred] = candidates;
    if (preferred === undefined) throw new DeviceError("matmul: nothing to choose from");
    if (candidates.length === 1) return preferred;
    const driver = this.#driver;
    const { m, n, k, batch, pitchA, pitchB, pitchC, transposeA, transposeB } = product;
    const bytes = [
      ((transposeA ? k : m) * pitchA + (batch - 1) * product.strideA) * typeBytes[product.type],
      ((transposeB ? n : k) * pitchB + (batch - 1) * product.strideB) * typeBytes[product.type],
      (m * pitchC + (batch - 1) * product.strideC) * typeBytes[product.resultType],
    ];
    // Where there is no room for a trial, the heuristics decide.
    if (driver.memory().free < bytes.reduce((x, y) => x + y, workspaceBytes)) return preferred;
    const buffers = bytes.map((size) => driver.handle("cuMemAlloc", size));
    const events = [0, 0].map(() => driver.handle("cuEventCreate", 0)) as [number, number];
    try {
      const types = [product.type, product.type, product.resultType];
      buffers.forEach((buffer, index) => {
        this.#fill(buffer, bytes[index] ?? 0, types[index] ?? product.type);
      });
      const [a = 0, b = 0, c = 0] = buffers;
      const time = (candidate: PreparedProduct) => {
        driver.call("cuEventRecord", events[0], this.#stream);
        for (let run = 0; run < runsInRow; run++) candidate.run(a, b, c, c, this.#stream);
        driver.call("cuEventRecord", events[1], this.#stream);
        driver.call("cuStreamSynchronize", this.#stream);
        const elapsed = [0];
        driver.call("cuEventElapsedTime", elapsed, ...events);
        return Number(elapsed[0]);
      };
      // In turns, as a GPU does not always run at one rate.
      const rounds = Array.from({ length: trialRounds }, () => candidates.map(time)).slice(1);
      const times = candidates.map((_, index) => Math.min(...rounds.map((round) => round[index] ?? Number.NaN)));
      const best = times.indexOf(Math.min(...times));
      return ((times[best] ?? 0) < (times[0] ?? 0) * clearlyFaster && candidates[best]) || preferred;
    } finally {
      for (const event of events) driver.call("cuEventDestroy", event);
      for (const buffer of buffers) driver.call("cuMemFree", buffer);
    }
  }

  /** Random numbers: with zeros, or one number again and again, a GPU draws less power and runs faster than it will. */
  #fill(buffer: number, bytes: number, type: ProductType): void {
    const numbers = new RandomStream(0, "products").normal(drawnNumbers);
    const encode = { float32: Number, float64: Number, float16: toFloat16Bits, bfloat16: toBfloat16Bits }[type];
    const drawn = allocate(type, drawnNumbers);
    drawn.set(Array.from(numbers, encode));
    const driver = this.#driver;
    let filled = Math.min(drawn.byteLength, bytes);
    driver.call("cuMemcpyHtoDAsync", buffer, drawn, filled, this.#stream);
    while (filled < bytes) {
      const more = Math.min(filled, bytes - filled);
      driver.call("cuMemcpyDtoDAsync", buffer + filled, buffer, more, this.#stream);
      filled += more;
    }
  }

  #make(name: Name, ...args: readonly unknown[]): number {
    const out = [0];
    const code = this.#functions[name](out, ...args);
    if (code !== 0) throw new DeviceError(`cuBLASLt: ${name} failed with status ${code}`);
    return Number(out[0]);
  }

  #set(name: Name, target: number, attribute: number, value: ArrayBufferView): void {
    const code = this.#functions[name](target, attribute, value, value.byteLength);
    if (code !== 0) throw new DeviceError(`cuBLASLt: ${name} ${attribute} failed with status ${code}`);
  }

  close(): void {
    for (const release of this.#release) release();
    this.#functions.destroy(this.#handle);
    this.#driver.call("cuMemFree", this.#workspace);
    this.#scalars.free();
  }
}
