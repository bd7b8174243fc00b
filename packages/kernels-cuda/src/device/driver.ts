// The CUDA driver API, as far as the backend uses it. Every call is checked; handles and device addresses are numbers.

import { BackendUnavailableError, DeviceError } from "@sisa/core";
import { type TensorMap, tensorMapBytes } from "./arguments.ts";
import type { HostMemory, Library, Native, NativeFunction } from "./native.ts";

/** Result codes that mean more than "the call failed". */
const result = { success: 0, outOfMemory: 2, notReady: 600 } as const;
/** Those of a kernel that crashed, from an illegal address (700) to an unknown failure (719): every later call fails too. */
const crashes: ReadonlySet<number> = new Set([700, 702, 710, 714, 715, 716, 717, 718, 719]);
/** Calls that only wait or give back. */
const givesBack = /Free|Destroy|Unload|Release|Synchronize/;

/** Oldest driver that runs what nvcc 13 compiles: that of CUDA 13.0. */
const oldestDriver = 13_000;

const attribute = { multiprocessors: 16, major: 75, minor: 76, sharedBytes: 97 } as const;

/** A GPU as its driver describes it. */
export interface DeviceInfo {
  /** As CUDA numbers it. */
  readonly index: number;
  /** Of the product. */
  readonly name: string;
  /** Compute capability, such as 90 for 9.0. */
  readonly capability: number;
  /** How many it has. */
  readonly multiprocessors: number;
  /** Shared memory that a block of threads may have, at most. */
  readonly sharedBytes: number;
  /** All of its memory, whoever uses it. */
  readonly memoryBytes: number;
}

const prototypes = {
  cuInit: "int cuInit(uint flags)",
  cuDriverGetVersion: "int cuDriverGetVersion(_Out_ int *version)",
  cuDeviceGetCount: "int cuDeviceGetCount(_Out_ int *count)",
  cuDeviceGet: "int cuDeviceGet(_Out_ int *device, int ordinal)",
  cuDeviceGetName: "int cuDeviceGetName(void *name, int length, int device)",
  cuDeviceGetAttribute: "int cuDeviceGetAttribute(_Out_ int *value, int attribute, int device)",
  cuDeviceTotalMem: "int cuDeviceTotalMem_v2(_Out_ uint64_t *bytes, int device)",
  cuDevicePrimaryCtxRetain: "int cuDevicePrimaryCtxRetain(_Out_ uint64_t *context, int device)",
  cuDevicePrimaryCtxRelease: "int cuDevicePrimaryCtxRelease_v2(int device)",
  cuCtxSetCurrent: "int cuCtxSetCurrent(uint64_t context)",
  cuMemGetInfo: "int cuMemGetInfo_v2(_Out_ uint64_t *free, _Out_ uint64_t *total)",
  cuMemAlloc: "int cuMemAlloc_v2(_Out_ uint64_t *address, uint64_t bytes)",
  cuMemFree: "int cuMemFree_v2(uint64_t address)",
  cuMemHostAlloc: "int cuMemHostAlloc(_Out_ uint64_t *address, uint64_t bytes, uint flags)",
  cuMemFreeHost: "int cuMemFreeHost(uint64_t address)",
  cuMemcpyHtoDAsync:
    "int cuMemcpyHtoDAsync_v2(uint64_t destination, const void *source, uint64_t bytes, uint64_t stream)",
  cuMemcpyDtoHAsync: "int cuMemcpyDtoHAsync_v2(uint64_t destination, uint64_t source, uint64_t bytes, uint64_t stream)",
  cuMemcpyDtoDAsync: "int cuMemcpyDtoDAsync_v2(uint64_t destination, uint64_t source, uint64_t bytes, uint64_t stream)",
  cuMemsetD8Async: "int cuMemsetD8Async(uint64_t address, uint8_t value, uint64_t count, uint64_t stream)",
  cuModuleLoadData: "int cuModuleLoadData(_Out_ uint64_t *module, const void *image)",
  cuModuleUnload: "int cuModuleUnload(uint64_t module)",
  cuModuleGetFunction: "int cuModuleGetFunction(_Out_ uint64_t *function, uint64_t module, const char *name)",
  cuFuncSetAttribute: "int cuFuncSetAttribute(uint64_t function, int attribute, int value)",
  cuLaunchKernel:
    "int cuLaunchKernel(uint64_t function, uint gridX, uint gridY, uint gridZ, uint blockX, uint blockY, uint blockZ, uint sharedBytes, uint64_t stream, uint64_t parameters, uint64_t extra)",
  cuOccupancyMaxActiveClusters:
    "int cuOccupancyMaxActiveClusters(_Out_ int *count, uint64_t function, uint64_t config)",
  cuLaunchKernelEx: "int cuLaunchKernelEx(uint64_t config, uint64_t function, uint64_t parameters, uint64_t extra)",
  cuTensorMapEncodeTiled:
    "int cuTensorMapEncodeTiled(uint64_t map, int type, uint rank, uint64_t address, const uint64_t *sizes, const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion, int fill)",
  cuStreamCreate: "int cuStreamCreate(_Out_ uint64_t *stream, uint flags)",
  cuStreamDestroy: "int cuStreamDestroy_v2(uint64_t stream)",
  cuStreamSynchronize: "int cuStreamSynchronize(uint64_t stream)",
  cuStreamBeginCapture: "int cuStreamBeginCapture_v2(uint64_t stream, int mode)",
  cuStreamEndCapture: "int cuStreamEndCapture(uint64_t stream, _Out_ uint64_t *graph)",
  cuGraphInstantiate: "int cuGraphInstantiateWithFlags(_Out_ uint64_t *executable, uint64_t graph, uint64_t flags)",
  cuGraphLaunch: "int cuGraphLaunch(uint64_t executable, uint64_t stream)",
  cuGraphDestroy: "int cuGraphDestroy(uint64_t graph)",
  cuGraphExecDestroy: "int cuGraphExecDestroy(uint64_t executable)",
  cuEventCreate: "int cuEventCreate(_Out_ uint64_t *event, uint flags)",
  cuEventDestroy: "int cuEventDestroy_v2(uint64_t event)",
  cuEventRecord: "int cuEventRecord(uint64_t event, uint64_t stream)",
  cuEventRecordWithFlags: "int cuEventRecordWithFlags(uint64_t event, uint64_t stream, uint flags)",
  cuEventQuery: "int cuEventQuery(uint64_t event)",
  cuEventElapsedTime: "int cuEventElapsedTime_v2(_Out_ float *milliseconds, uint64_t start, uint64_t end)",
  cuGetErrorName: "int cuGetErrorName(int error, _Out_ const char **text)",
  cuGetErrorString: "int cuGetErrorString(int error, _Out_ const char **text)",
} as const;

/** Places in CUlaunchConfig, the size of one of its attributes, and the one that is set. */
const launch = {
  stream: 32,
  attributes: 40,
  attributeCount: 48,
  bytes: 56,
  attributeBytes: 72,
  attribute: { cooperative: 2, overlapping: 6 },
} as const;

/** Blocks of a cluster that every GPU with clusters takes. */
const mostClusterBlocks = 8;

/** Enumerators of tensor maps. */
const tensorMap = { bfloat16: 9, plain: 0, promote128Bytes: 2, fillZeros: 0 } as const;
/** Widest row of a box in bytes, and the swizzle for each width of a row. */
const panelBytes = 128;
const swizzles: { readonly [rowBytes: number]: number } = { 32: 1, 64: 2, 128: 3 };

type Name = keyof typeof prototypes;

/** A call that failed, with the driver's own words. */
export class DriverError extends DeviceError {
  readonly result: number;

  constructor(message: string, code: number) {
    super(message);
    this.result = code;
  }

  get outOfMemory(): boolean {
    return this.result === result.outOfMemory;
  }
}

export class Driver {
  readonly native: Native;
  readonly version: number;
  readonly #library: Library;
  readonly #functions = new Map<Name, NativeFunction>();
  /** Whether a kernel has crashed. */
  #crashed = false;
  /** Where tensor maps are written, which must be at a multiple of their size. */
  #mapMemory: HostMemory | undefined;
  /** Where launches with attributes are described. */
  #launchMemory: HostMemory | undefined;

  /** @throws BackendUnavailableError where the driver is too old or has no device */
  constructor(native: Native, library: Library) {
    this.native = native;
    this.#library = library;
    const code = this.#invoke("cuInit", 0);
    if (code !== result.success) {
      throw new BackendUnavailableError(
        `cuda: the driver cannot start: ${this.#describe(code)}; check with nvidia-smi that it sees a GPU`,
      );
    }
    this.version = this.handle("cuDriverGetVersion");
    if (this.version < oldestDriver) {
      throw new BackendUnavailableError(
        `cuda: needs a driver for CUDA 13.0 (580) or newer, got one for CUDA ${versionText(this.version)}; update it from https://www.nvidia.com/drivers`,
      );
    }
  }

  devices(): readonly DeviceInfo[] {
    return Array.from({ length: this.handle("cuDeviceGetCount") }, (_, index) => {
      const device = this.handle("cuDeviceGet", index);
      const text = new Uint8Array(256);
      this.call("cuDeviceGetName", text, text.length, device);
      const read = (which: number) => this.handle("cuDeviceGetAttribute", which, device);
      return {
        index,
        name: new TextDecoder().decode(text.subarray(0, text.indexOf(0))),
        capability: read(attribute.major) * 10 + read(attribute.minor),
        multiprocessors: read(attribute.multiprocessors),
        sharedBytes: read(attribute.sharedBytes),
        memoryBytes: this.handle("cuDeviceTotalMem", device),
      };
    });
  }

  /**
   * After a crash nothing is left to give back, and whoever met it was told: calls that would then end quietly.
   * @throws DriverError
   */
  call(name: Name, ...args: readonly unknown[]): void {
    const code = this.#invoke(name, ...args);
    if (code === result.success || (this.#crashed && givesBack.test(name))) return;
    throw this.#error(`${name} failed: `, code);
  }

  /** A call whose first argument is where its result goes: a handle or another number. @throws DriverError */
  handle(name: Name, ...args: readonly unknown[]): number {
    const out = [0];
    this.call(name, out, ...args);
    return Number(out[0]);
  }

  /** Free and total bytes of the current device. */
  memory(): { readonly free: number; readonly total: number } {
    const [free, total] = [[0], [0]];
    this.call("cuMemGetInfo", free, total);
    return { free: Number(free[0]), total: Number(total[0]) };
  }

  /** True once everything recorded before the event is done. @throws DriverError where it failed */
  isDone(event: number): boolean {
    const code = this.#invoke("cuEventQuery", event);
    if (code === result.notReady) return false;
    if (code !== result.success) throw this.#error("", code);
    return true;
  }

  /** What a kernel takes as a tensor map; valid until the next call. @throws DriverError */
  tensorMap(address: number, { sizes: [batches, length, heads, width], pitch, rows }: TensorMap): Uint8Array {
    this.#mapMemory ??= this.native.allocate(2 * tensorMapBytes);
    const first = Math.ceil(this.#mapMemory.address / tensorMapBytes) * tensorMapBytes;
    const columns = Math.min(width, panelBytes / 2);
    this.call(
      "cuTensorMapEncodeTiled",
      first,
      tensorMap.bfloat16,
      4,
      address,
      BigUint64Array.of(BigInt(width), BigInt(heads), BigInt(length), BigInt(batches)),
      BigUint64Array.of(BigInt(2 * width), BigInt(2 * pitch), BigInt(2 * pitch * length)),
      Uint32Array.of(columns, 1, rows, 1),
      Uint32Array.of(1, 1, 1, 1),
      tensorMap.plain,
      swizzles[2 * columns],
      tensorMap.promote128Bytes,
      tensorMap.fillZeros,
    );
    return new Uint8Array(this.#mapMemory.buffer, first - this.#mapMemory.address, tensorMapBytes);
  }

  /** Launches a kernel that may begin before the one before it ends, or one whose blocks are all at work at once. */
  launchAs(
    mode: keyof typeof launch.attribute,
    kernel: number,
    grid: readonly [number, number, number],
    block: number,
    sharedBytes: number,
    stream: number,
    parameters: number,
  ): void {
    const config = this.#launchConfig(grid, block, sharedBytes, stream, launch.attribute[mode]);
    this.call("cuLaunchKernelEx", config, kernel, parameters, 0);
  }

  /** How many clusters of blocks of a kernel that declares their size can be at work at once. */
  activeClusters(kernel: number, block: number, sharedBytes: number): number {
    const config = this.#launchConfig([mostClusterBlocks, 1, 1], block, sharedBytes, 0);
    return this.handle("cuOccupancyMaxActiveClusters", kernel, config);
  }

  /** A CUlaunchConfig; valid until the next call. */
  #launchConfig(
    grid: readonly [number, number, number],
    block: number,
    sharedBytes: number,
    stream: number,
    attribute?: number,
  ): number {
    this.#launchMemory ??= this.native.allocate(launch.bytes + launch.attributeBytes);
    const { address, buffer } = this.#launchMemory;
    const view = new DataView(buffer);
    [...grid, block, 1, 1, sharedBytes].forEach((value, index) => {
      view.setUint32(4 * index, value, true);
    });
    view.setBigUint64(launch.stream, BigInt(stream), true);
    view.setBigUint64(launch.attributes, BigInt(address + launch.bytes), true);
    view.setUint32(launch.attributeCount, attribute === undefined ? 0 : 1, true);
    view.setUint32(launch.bytes, attribute ?? 0, true);
    view.setInt32(launch.bytes + 8, 1, true);
    return address;
  }

  endCapture(stream: number): number {
    const out = [0];
    this.call("cuStreamEndCapture", stream, out);
    return Number(out[0]);
  }

  #invoke(name: Name, ...args: readonly unknown[]): number {
    let call = this.#functions.get(name);
    if (call === undefined) {
      try {
        call = this.#library.func(prototypes[name]);
      } catch (error) {
        throw new BackendUnavailableError(`cuda: ${this.#library.path} has no ${name}; update the NVIDIA driver`, {
          cause: error,
        });
      }
      this.#functions.set(name, call);
    }
    return Number(call(...args));
  }

  #error(what: string, code: number): DriverError {
    this.#crashed ||= crashes.has(code);
    return new DriverError(`${what}${this.#describe(code)}`, code);
  }

  #describe(code: number): string {
    const [name, text] = [[""], [""]];
    this.#invoke("cuGetErrorName", code, name);
    this.#invoke("cuGetErrorString", code, text);
    return name[0] ? `${name[0]} (${text[0]})` : `error ${code}`;
  }
}

export function versionText(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}
