// One GPU in use: its context and stream, its memory, the kernels that were asked for, and cuBLASLt.

import { BackendUnavailableError, DeviceError, DisposedError, type TypedArray } from "@sisa/core";
import { CublasLt } from "./cublas-lt.ts";
import { type DeviceInfo, Driver, versionText } from "./driver.ts";
import { kernelEntry, kernelImages, targetFor } from "./kernels.ts";
import { loadCublasLt, loadDriver } from "./libraries.ts";
import { DeviceMemory, type Staging, StagingPool } from "./memory.ts";
import { type HostMemory, host, Native } from "./native.ts";

const functionAttribute = { maximumDynamicSharedBytes: 8, sharedCarveout: 9 } as const;
/** All that a multiprocessor has, in percent. */
const wholeCarveout = 100;
/** From this compute capability on, a kernel can begin before the one before it ends. */
const overlappingCapability = 90;

/** Words that are read by a kernel, at most. */
const mostWords = 64;

/** Bytes that the driver takes over at once from memory that is not pinned; with more, the caller waits for the device. */
const largestBuffered = 2 ** 16;
const [largestPinned, mostWrites] = [2 ** 24, 16];

/** Pinned memory that a copy reads from, and what tells when that is done. */
interface Write {
  readonly staging: Staging;
  readonly event: number;
}

/** How long to look again at once before sleeping between looks. */
const eagerMilliseconds = 2;

/** Bytes on the device, from a multiple of four on, in memory that lasts to a multiple of four. */
interface Range {
  readonly address: number;
  readonly bytes: number;
}

const wordsOf = ({ bytes }: Range) => Math.ceil(bytes / 4);

export async function openDriver(): Promise<Driver> {
  const native = await Native.load();
  return new Driver(native, loadDriver(native));
}

export class Device {
  readonly driver: Driver;
  readonly info: DeviceInfo;
  readonly memory: DeviceMemory;
  readonly cublasLt: CublasLt;
  readonly stream: number;
  /** Whether every kernel is waited for. */
  readonly blocking: boolean;
  readonly #staging: StagingPool;
  readonly #target: ReturnType<typeof targetFor>;
  readonly #ordinal: number;
  readonly #modules = new Map<string, number>();
  readonly #functions = new Map<string, { readonly handle: number; sharedBytes: number }>();
  /** Copies to the device that may be on their way, the oldest first. */
  readonly #writes: Write[] = [];
  readonly #allEvents: number[] = [];
  /** Events that nobody waits for. */
  readonly #events: number[] = [];
  /** The arguments of readWords: five pointers to them, and they. */
  readonly #arguments: HostMemory;
  #closed = false;

  private constructor(driver: Driver, info: DeviceInfo, blocking: boolean) {
    this.driver = driver;
    this.info = info;
    this.blocking = blocking;
    this.#target = targetFor(info.capability);
    if (this.#target === undefined) {
      throw new BackendUnavailableError(
        `cuda: needs a GPU of compute capability 8.0 or newer (Ampere), got ${info.name} with ${(info.capability / 10).toFixed(1)}`,
      );
    }
    this.#ordinal = driver.handle("cuDeviceGet", info.index);
    driver.call("cuCtxSetCurrent", driver.handle("cuDevicePrimaryCtxRetain", this.#ordinal));
    this.memory = new DeviceMemory(driver);
    this.#staging = new StagingPool(driver);
    this.#arguments = driver.native.allocate(2 * 5 * 8);
    this.stream = driver.handle("cuStreamCreate", 1);
    this.cublasLt = new CublasLt(driver, loadCublasLt(driver.native), this.stream);
  }

  /** @throws BackendUnavailableError, which says what is missing */
  static async open(index: number, blocking = false): Promise<Device> {
    const driver = await openDriver();
    const devices = driver.devices();
    const info = devices[index];
    if (info === undefined) {
      const found = devices.map(({ name }, place) => `${place}: ${name}`).join(", ");
      throw new BackendUnavailableError(
        `cuda: no device ${index}; this machine has ${found || "none that CUDA sees"} (CUDA_VISIBLE_DEVICES hides devices)`,
      );
    }
    return new Device(driver, info, blocking);
  }

  /** One line for people: the device, its driver and its cuBLASLt. */
  get description(): string {
    const { name, memoryBytes } = this.info;
    return `${name}, ${(memoryBytes / 2 ** 30).toFixed(0)} GiB, driver for CUDA ${versionText(this.driver.version)}, cuBLASLt ${this.cublasLt.version}`;
  }

  /** Whether kernels can begin before the one before them ends. */
  get overlaps(): boolean {
    return this.info.capability >= overlappingCapability && !this.blocking;
  }

  /**
   * The handle of a kernel, which may use this much dynamic shared memory.
   * @param overlaps whether it may run beside others, which takes one division of a multiprocessor's memory for all
   */
  kernel(name: string, sharedBytes: number, overlaps = false): number {
    let known = this.#functions.get(name);
    if (known === undefined) {
      known = {
        handle: this.driver.handle("cuModuleGetFunction", this.#module(kernelEntry(name).file), name),
        sharedBytes: 0,
      };
      this.#functions.set(name, known);
      if (overlaps) {
        this.driver.call("cuFuncSetAttribute", known.handle, functionAttribute.sharedCarveout, wholeCarveout);
      }
    }
    if (sharedBytes > known.sharedBytes) {
      this.driver.call("cuFuncSetAttribute", known.handle, functionAttribute.maximumDynamicSharedBytes, sharedBytes);
      known.sharedBytes = sharedBytes;
    }
    return known.handle;
  }

  /** How many clusters of a kernel's blocks can be at work at once. */
  clusters(kernel: string, block: number, sharedBytes: number): number {
    return this.driver.activeClusters(this.kernel(kernel, sharedBytes), block, sharedBytes);
  }

  #module(file: string): number {
    const known = this.#modules.get(file);
    if (known !== undefined) return known;
    const image = this.#target && kernelImages[file]?.images[this.#target];
    if (image === undefined)
      throw new DeviceError(`cuda: there is no code of the kernels "${file}" for ${this.#target}`);
    const code = host.decompress(image);
    // PTX is text and must end with a zero.
    const ended = new Uint8Array(code.length + 1);
    ended.set(code);
    const module = this.driver.handle("cuModuleLoadData", ended);
    this.#modules.set(file, module);
    return module;
  }

  /**
   * Copies an array to the device after all that was enqueued before. The caller may change the array at once, but for small
   * ones only pinned memory lets it go on before the copy is done.
   */
  write(address: number, data: TypedArray): void {
    const { byteLength } = data;
    if (byteLength === 0) return;
    while (this.#writes[0] && this.driver.isDone(this.#writes[0].event)) {
      const { staging, event } = this.#writes.shift() as Write;
      this.#staging.give(staging);
      this.#events.push(event);
    }
    if (byteLength <= largestBuffered || byteLength > largestPinned || this.#writes.length >= mostWrites) {
      this.driver.call("cuMemcpyHtoDAsync", address, data, byteLength, this.stream);
      return;
    }
    const staging = this.#staging.take(byteLength);
    const pinned = new Uint8Array(staging.buffer, 0, byteLength);
    pinned.set(new Uint8Array(data.buffer, data.byteOffset, byteLength));
    this.driver.call("cuMemcpyHtoDAsync", address, pinned, byteLength, this.stream);
    const event = this.#events.pop() ?? this.#newEvent();
    this.driver.call("cuEventRecord", event, this.stream);
    this.#writes.push({ staging, event });
  }

  #newEvent(): number {
    const event = this.driver.handle("cuEventCreate", 2);
    this.#allEvents.push(event);
    return event;
  }

  /**
   * Bytes of two places once all that was enqueued before is done.
   * @throws DeviceError where it failed; DisposedError where the device is closed meanwhile
   */
  async read(first: Range, second: Range): Promise<readonly [Uint8Array, Uint8Array]> {
    const between = 4 * wordsOf(first);
    const staging = this.#staging.take(between + 4 * wordsOf(second));
    if (wordsOf(first) + wordsOf(second) <= mostWords) this.#readWords(first, second, staging.address);
    else {
      const copy = (offset: number, { address, bytes }: Range) =>
        bytes > 0 && this.driver.call("cuMemcpyDtoHAsync", staging.address + offset, address, bytes, this.stream);
      copy(0, first);
      copy(between, second);
    }
    const copyOf = (offset: number, { bytes }: Range) => new Uint8Array(staging.buffer, offset, bytes).slice();
    try {
      await this.finished();
      this.#checkOpen();
      return [copyOf(0, first), copyOf(between, second)];
    } finally {
      this.#staging.give(staging);
    }
  }

  /** By a kernel: the copy engine would wait for the kernels before it, and those behind it for the engine. */
  #readWords(first: Range, second: Range, target: number): void {
    const { address, buffer } = this.#arguments;
    const values = [first.address, wordsOf(first), second.address, wordsOf(second), target];
    new BigUint64Array(buffer).set([...values.map((_, i) => address + 8 * (values.length + i)), ...values].map(BigInt));
    const kernel = this.kernel("readWords", 0);
    this.driver.call("cuLaunchKernel", kernel, 1, 1, 1, mostWords, 1, 1, 0, this.stream, address, 0);
  }

  /** Resolves once everything enqueued so far is done, without holding up the program. @throws as read does */
  async finished(): Promise<void> {
    const event = this.#events.pop() ?? this.#newEvent();
    try {
      this.driver.call("cuEventRecord", event, this.stream);
      const start = performance.now();
      while (!this.#closed && !this.driver.isDone(event)) {
        await new Promise<void>((resolve) => {
          if (performance.now() - start < eagerMilliseconds) setImmediate(resolve);
          else setTimeout(resolve, 1);
        });
      }
    } catch (error) {
      const hint = "run again with cuda({ blocking: true }) or CUDA_LAUNCH_BLOCKING=1 to learn in which operation";
      throw new DeviceError(`cuda: a kernel failed: ${error instanceof Error ? error.message : error}; ${hint}`, {
        cause: error,
      });
    }
    this.#checkOpen();
    this.#events.push(event);
  }

  /** Once it is closed, events are gone, and so is what was read. */
  #checkOpen(): void {
    if (this.#closed) throw new DisposedError("cuda: the backend is closed");
  }

  close(): void {
    this.#closed = true;
    this.driver.call("cuStreamSynchronize", this.stream);
    this.cublasLt.close();
    this.#staging.close();
    this.#arguments.free();
    for (const event of this.#allEvents) this.driver.call("cuEventDestroy", event);
    this.memory.close();
    for (const module of this.#modules.values()) this.driver.call("cuModuleUnload", module);
    this.driver.call("cuStreamDestroy", this.stream);
    this.driver.call("cuDevicePrimaryCtxRelease", this.#ordinal);
  }
}
