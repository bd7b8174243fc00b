// Tensors of the webgpu backend: handles to buffers that change hands as runs are enqueued.

import { type DeviceTensor, DisposedError, GraphError, specText, type TensorSpec, type TypedArray } from "@sisa/core";
import type { RunStatus } from "./run-status.ts";

/**
 * A buffer that one or more owners hold: handles, and the executable that writes it. Work that is enqueued holds
 * nothing: the queue runs in order, so what overwrites a buffer comes after whatever was to read it.
 */
export class Block {
  readonly buffer: GPUBuffer;
  /** What may have gone wrong in the runs that the contents come from. */
  statuses: ReadonlySet<RunStatus> = noStatuses;
  #owners = 1;
  readonly #freed: (block: Block) => void;

  constructor(buffer: GPUBuffer, freed: (block: Block) => void) {
    this.buffer = buffer;
    this.#freed = freed;
  }

  /** True where somebody keeps the value, so that it must not be overwritten. */
  get shared(): boolean {
    return this.#owners > 1;
  }

  get freed(): boolean {
    return this.#owners === 0;
  }

  retain(): this {
    this.#owners += 1;
    return this;
  }

  release(): void {
    this.#owners -= 1;
    if (this.#owners === 0) this.#freed(this);
  }
}

const noStatuses: ReadonlySet<RunStatus> = new Set();

/** What a handle needs of its backend. */
export interface TensorHost {
  allocate(spec: TensorSpec): Block;
  /** Owned tensors, to be disposed of when the host is closed. */
  readonly live: Set<WebgpuTensor>;
  /** Contents of a block once all that is enqueued so far is done. @throws DeviceError, DataError */
  readBlock(spec: TensorSpec, block: Block): Promise<TypedArray>;
}

/** A handle. `owned` ones hold a buffer; others look at an output until the executable runs again. */
export class WebgpuTensor implements DeviceTensor {
  readonly spec: TensorSpec;
  readonly owned: boolean;
  readonly #host: TensorHost;
  #block: Block | undefined;
  /** The other buffer of a state tensor that is not updated in place: runs read one and write the other. */
  #spare: Block | undefined;

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

  /** A buffer for the next value of this tensor, apart from that of the present one. */
  takeSpare(): Block {
    const spare = this.#spare;
    this.#spare = undefined;
    // A spare that is kept elsewhere holds an older value that somebody still wants.
    if (spare && !spare.shared) return spare;
    spare?.release();
    return this.#host.allocate(this.spec);
  }

  /** Makes this handle denote another block; the present one becomes the spare. */
  advance(next: Block): void {
    const previous = this.block;
    if (previous === next) return;
    this.#spare?.release();
    this.#spare = previous;
    this.#block = next;
  }

  /** A block that only this handle holds, for overwriting. @throws GraphError for an output's view */
  exclusive(): Block {
    const block = this.block;
    if (!this.owned) throw new GraphError("write: this tensor is an output of an executable; make one with tensor()");
    if (!block.shared) return block;
    block.release();
    this.#block = this.#host.allocate(this.spec);
    return this.#block;
  }

  async read(): Promise<TypedArray> {
    return await this.#host.readBlock(this.spec, this.block);
  }

  keep(): DeviceTensor {
    return new WebgpuTensor(this.#host, this.spec, this.block.retain(), true);
  }

  /** Ends a view of an output. */
  expire(): void {
    this.#block = undefined;
  }

  dispose(): void {
    if (this.owned) {
      this.#host.live.delete(this);
      this.#block?.release();
      this.#spare?.release();
    }
    this.#block = undefined;
    this.#spare = undefined;
  }
}
