// Tensors of the cuda backend: handles to blocks of device memory. Work runs in the order in which it is enqueued, so a
// block that is overwritten or given back by later work is still whole for what came before.

import {
  allocate,
  checkData,
  type DeviceTensor,
  DisposedError,
  GraphError,
  type SisaError,
  specText,
  type TensorSpec,
  type TypedArray,
} from "@sisa/core";
import { bytesOfSpec } from "./plan.ts";

/** Device memory that handles, and executables, hold together. */
export class Block {
  readonly address: number;
  readonly bytes: number;
  /** Why the contents are not what they should be. */
  error: SisaError | undefined;
  #owners = 1;
  readonly #free: (address: number) => void;

  constructor(address: number, bytes: number, free: (address: number) => void) {
    this.address = address;
    this.bytes = bytes;
    this.#free = free;
  }

  /** True where somebody else keeps the value, so that it must not be overwritten. */
  get shared(): boolean {
    return this.#owners > 1;
  }

  retain(): this {
    this.#owners += 1;
    return this;
  }

  release(): void {
    this.#owners -= 1;
    if (this.#owners === 0) this.#free(this.address);
  }
}

/** What a handle needs of its backend. */
export interface TensorHost {
  allocate(spec: TensorSpec): Block;
  copy(source: Block, target: Block): void;
  read(block: Block): Promise<Uint8Array>;
  upload(block: Block, data: TypedArray): void;
  readonly live: Set<CudaTensor>;
}

export class CudaTensor implements DeviceTensor {
  readonly spec: TensorSpec;
  /** False for outputs, which hold until their executable runs again. */
  readonly owned: boolean;
  readonly #host: TensorHost;
  #block: Block | undefined;

  constructor(host: TensorHost, spec: TensorSpec, block: Block, owned: boolean) {
    this.#host = host;
    this.spec = spec;
    this.#block = block;
    this.owned = owned;
    if (owned) host.live.add(this);
  }

  isOf(host: TensorHost): boolean {
    return this.#host === host;
  }

  /** @throws DisposedError */
  get block(): Block {
    if (this.#block === undefined) {
      throw new DisposedError(
        `a ${specText(this.spec)} tensor was used after it was disposed or its value replaced; keep() it`,
      );
    }
    return this.#block;
  }

  /** A block that only this handle holds. @param contents whether they are still wanted */
  exclusive(contents: boolean): Block {
    const block = this.block;
    if (!block.shared) return block;
    const own = this.#host.allocate(this.spec);
    if (contents) this.#host.copy(block, own);
    own.error = block.error;
    block.release();
    this.#block = own;
    return own;
  }

  /** @throws GraphError for an output, or data that does not fit */
  write(data: TypedArray): void {
    if (!this.owned) throw new GraphError("write: this tensor is an output of an executable; make one with tensor()");
    checkData(this.spec, data, bytesOfSpec(this.spec) / data.BYTES_PER_ELEMENT);
    const block = this.exclusive(false);
    const truth = this.spec.dtype === "bool" ? Uint8Array.from(data, (value) => (value ? 1 : 0)) : data;
    this.#host.upload(block, truth);
    block.error = undefined;
  }

  async read(): Promise<TypedArray> {
    const block = this.block;
    const bytes = await this.#host.read(block);
    const result = allocate(this.spec.dtype, 0).constructor as new (
      buffer: ArrayBufferLike,
      offset: number,
      length: number,
    ) => TypedArray;
    const { BYTES_PER_ELEMENT: width } = allocate(this.spec.dtype, 0);
    return new result(bytes.buffer, bytes.byteOffset, bytes.byteLength / width);
  }

  keep(): DeviceTensor {
    return new CudaTensor(this.#host, this.spec, this.block.retain(), true);
  }

  /** Ends a view of an output. */
  expire(): void {
    this.#block = undefined;
  }

  dispose(): void {
    if (this.owned) {
      this.#host.live.delete(this);
      this.#block?.release();
    }
    this.#block = undefined;
  }
}
