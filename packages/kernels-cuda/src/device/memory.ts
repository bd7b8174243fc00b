// Device memory: blocks, a pool of small ones that were given back, and pinned memory of the host for reads.

import { DeviceError } from "@sisa/core";
import { type Driver, DriverError } from "./driver.ts";

/** Freeing waits for the device, so blocks up to this size go back to a pool instead. */
const largestPooled = 2 ** 20;
const pooledLimit = 64 * 2 ** 20;

export class DeviceMemory {
  readonly #driver: Driver;
  readonly #pool = new Map<number, number[]>();
  readonly #live = new Map<number, number>();
  #pooled = 0;
  #bytes = 0;

  constructor(driver: Driver) {
    this.#driver = driver;
  }

  /** Bytes that are allocated and in use. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @throws DeviceError saying how much was needed and how much there is */
  allocate(bytes: number): number {
    const size = Math.max(256, Math.ceil(bytes / 256) * 256);
    const reused = this.#pool.get(size)?.pop();
    if (reused !== undefined) this.#pooled -= size;
    const address = reused ?? this.#new(size);
    this.#live.set(address, size);
    this.#bytes += size;
    return address;
  }

  #new(size: number): number {
    try {
      return this.#driver.handle("cuMemAlloc", size);
    } catch (error) {
      if (!(error instanceof DriverError) || !error.outOfMemory) throw error;
      this.#empty();
      const { free, total } = this.#driver.memory();
      if (free < size) {
        throw new DeviceError(
          `cuda: out of memory: needs ${text(size)} more, has ${text(free)} free of ${text(total)}; use a smaller micro-batch or model`,
          { cause: error },
        );
      }
      return this.#driver.handle("cuMemAlloc", size);
    }
  }

  free(address: number): void {
    const size = this.#live.get(address);
    if (size === undefined) return;
    this.#live.delete(address);
    this.#bytes -= size;
    if (size <= largestPooled && this.#pooled + size <= pooledLimit) {
      const list = this.#pool.get(size) ?? [];
      list.push(address);
      this.#pool.set(size, list);
      this.#pooled += size;
    } else {
      this.#driver.call("cuMemFree", address);
    }
  }

  #empty(): void {
    for (const list of this.#pool.values()) for (const address of list) this.#driver.call("cuMemFree", address);
    this.#pool.clear();
    this.#pooled = 0;
  }

  close(): void {
    for (const address of [...this.#live.keys()]) {
      this.#live.delete(address);
      this.#driver.call("cuMemFree", address);
    }
    this.#bytes = 0;
    this.#empty();
  }
}

function text(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Pinned memory that the device copies into while the program goes on. */
export interface Staging {
  readonly address: number;
  readonly size: number;
  readonly buffer: ArrayBuffer;
}

const largestKept = 64 * 2 ** 20;

export class StagingPool {
  readonly #driver: Driver;
  readonly #all = new Set<Staging>();
  readonly #free: Staging[] = [];

  constructor(driver: Driver) {
    this.#driver = driver;
  }

  take(bytes: number): Staging {
    const index = this.#free.findIndex(({ size }) => size >= bytes && size <= 4 * bytes + 4096);
    const [found] = index < 0 ? [] : this.#free.splice(index, 1);
    if (found) return found;
    const size = 2 ** Math.ceil(Math.log2(Math.max(bytes, 4096)));
    const address = this.#driver.handle("cuMemHostAlloc", size, 0);
    const made = { address, size, buffer: this.#driver.native.view(address, size) };
    this.#all.add(made);
    return made;
  }

  give(staging: Staging): void {
    if (!this.#all.has(staging)) return;
    if (staging.size <= largestKept && this.#free.length < 16) this.#free.push(staging);
    else this.#drop(staging);
  }

  #drop(staging: Staging): void {
    this.#all.delete(staging);
    this.#driver.call("cuMemFreeHost", staging.address);
  }

  /** Frees what was taken too: nothing may be at work on it any more. */
  close(): void {
    this.#free.length = 0;
    for (const staging of this.#all) this.#drop(staging);
  }
}
