// Shared libraries and memory outside JavaScript, through koffi. The one file that knows koffi and modules of Node.

import { BackendUnavailableError } from "@sisa/core";

/** A function of a shared library; pointers are passed as numbers, memory of the caller as typed arrays. */
export type NativeFunction = (...args: readonly unknown[]) => unknown;

export interface Library {
  readonly path: string;
  /** @param declaration a C prototype */
  func(declaration: string): NativeFunction;
}

interface Koffi {
  load(path: string): { func(declaration: string): NativeFunction };
  alloc(type: string, count: number): bigint;
  free(pointer: bigint): void;
  address(pointer: bigint): bigint;
  view(pointer: bigint, bytes: number): ArrayBuffer;
}

/** The modules of Node that the loader needs, typed as far as it uses them. */
interface FileSystem {
  readdirSync(path: string): string[];
}

interface Process {
  readonly platform: string;
  readonly env: { readonly [name: string]: string | undefined };
  getBuiltinModule?(name: string): unknown;
}

function nodeProcess(): Process {
  const found = (globalThis as { readonly process?: Process }).process;
  if (found?.getBuiltinModule === undefined) {
    throw new BackendUnavailableError("cuda: needs Node 20.19 or newer; browsers have no access to the CUDA driver");
  }
  return found;
}

function builtin<T>(name: string): T {
  return nodeProcess().getBuiltinModule?.(name) as T;
}

export const host = {
  get platform(): string {
    return nodeProcess().platform;
  },
  variable(name: string): string | undefined {
    return nodeProcess().env[name];
  },
  /** Names in a folder; none where there is no such folder. */
  list(path: string): readonly string[] {
    try {
      return builtin<FileSystem>("node:fs").readdirSync(path);
    } catch {
      return [];
    }
  },
  decompress(text: string): Uint8Array {
    const zlib = builtin<{ brotliDecompressSync(bytes: Uint8Array): Uint8Array }>("node:zlib");
    const { Buffer } = builtin<{ Buffer: { from(text: string, encoding: string): Uint8Array } }>("node:buffer");
    return zlib.brotliDecompressSync(Buffer.from(text, "base64"));
  },
};

export class Native {
  readonly #koffi: Koffi;

  private constructor(koffi: Koffi) {
    this.#koffi = koffi;
  }

  /** @throws BackendUnavailableError where koffi has no binary for this system */
  static async load(): Promise<Native> {
    nodeProcess();
    try {
      const koffi = (await import("koffi")) as unknown as { readonly default: Koffi };
      return new Native(koffi.default);
    } catch (error) {
      throw new BackendUnavailableError(
        "cuda: the package koffi, which calls the driver, could not be loaded; install it with `npm install koffi`",
        { cause: error },
      );
    }
  }

  /** The library, or why it cannot be loaded. */
  open(path: string): Library | Error {
    try {
      const library = this.#koffi.load(path);
      return { path, func: (declaration) => library.func(declaration) };
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  allocate(bytes: number): HostMemory {
    const pointer = this.#koffi.alloc("uint8_t", Math.max(bytes, 16));
    return new HostMemory(Number(this.#koffi.address(pointer)), this.view(Number(pointer), bytes), () =>
      this.#koffi.free(pointer),
    );
  }

  /** Memory at an address as an array, without a copy. */
  view(address: number, bytes: number): ArrayBuffer {
    return bytes === 0 ? new ArrayBuffer(0) : this.#koffi.view(BigInt(address), bytes);
  }
}

/** Memory outside JavaScript, at an address that stays. */
export class HostMemory {
  readonly address: number;
  readonly buffer: ArrayBuffer;
  readonly #free: () => void;

  constructor(address: number, buffer: ArrayBuffer, free: () => void) {
    this.address = address;
    this.buffer = buffer;
    this.#free = free;
  }

  free(): void {
    this.#free();
  }
}
