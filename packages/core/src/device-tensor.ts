// What the tensors of a backend are made of: memory that several hold, and handles that denote other memory as runs are
// enqueued. A backend brings the memory; which handle denotes what is the same in all of them.

import type { DeviceTensor } from "./backend.ts";
import type { TypedArray } from "./dtype.ts";
import { DisposedError, GraphError } from "./errors.ts";
import { specText, type TensorSpec } from "./spec.ts";

/**
 * Memory on a device that one or more owners hold: handles, and the executable that writes it. Work that is enqueued holds
 * nothing: it runs in order, so what overwrites a block comes after whatever was to read it.
 */
export abstract class DeviceBlock {
  #owners = 1;

  /** Gives the memory back; called once, when nobody holds it any more. */
  protected abstract free(): void;

  /** True where somebody else keeps the value, so that it must not be overwritten. */
  get shared(): boolean {
    return this.#owners > 1;
  }

  /** True where the memory was given back. */
  get freed(): boolean {
    return this.#owners === 0;
  }

  /** One owner more. */
  retain(): this {
    this.#owners += 1;
    return this;
  }

  /** One owner less. */
  release(): void {
    this.#owners -= 1;
    if (this.#owners === 0) this.free();
  }
}

/** What handles need of their backend. */
export interface BlockHost<B extends DeviceBlock> {
  /** Handles that own their memory, to be disposed of when the backend is closed. */
  readonly live: Set<BlockTensor<B>>;
  /** Memory for a bound spec, with any contents. */
  allocate(spec: TensorSpec): B;
  /** Contents of a block once all that is enqueued so far is done. */
  read(spec: TensorSpec, block: B): Promise<TypedArray>;
}

/** A handle of a backend. `owned` ones hold memory; others look at an output until its executable runs again. */
export class BlockTensor<B extends DeviceBlock> implements DeviceTensor {
  readonly spec: TensorSpec;
  /** Whether it holds memory, until it is disposed of. */
  readonly owned: boolean;
  readonly #host: BlockHost<B>;
  #block: B | undefined;
  /** The other block of a state that is not updated in place: runs read one and write the other. */
  #spare: B | undefined;

  constructor(host: BlockHost<B>, spec: TensorSpec, block: B, owned: boolean) {
    this.#host = host;
    this.spec = spec;
    this.#block = block;
    this.owned = owned;
    if (owned) host.live.add(this);
  }

  /** Whether a tensor is a handle of this backend. */
  static isOf<B extends DeviceBlock>(tensor: DeviceTensor, host: BlockHost<B>): tensor is BlockTensor<B> {
    return tensor instanceof BlockTensor && tensor.#host === host;
  }

  /** What the handle denotes. @throws DisposedError */
  get block(): B {
    if (this.#block === undefined) {
      throw new DisposedError(
        `a ${specText(this.spec)} tensor was used after it was disposed or its value replaced; keep() it`,
      );
    }
    return this.#block;
  }

  /** Memory for the next value of this handle, apart from that of the present one. */
  takeSpare(): B {
    const spare = this.#spare;
    this.#spare = undefined;
    // A spare that is kept elsewhere holds an older value that somebody still wants.
    if (spare && !spare.shared) return spare;
    spare?.release();
    return this.#host.allocate(this.spec);
  }

  /** Makes this handle denote another block; the present one becomes the spare. */
  advance(next: B): void {
    const previous = this.block;
    if (previous === next) return;
    this.#spare?.release();
    this.#spare = previous;
    this.#block = next;
  }

  /**
   * A block that only this handle holds, for overwriting.
   * @param copy enqueues a copy of the contents, where they are still wanted
   * @throws GraphError for an output's view
   */
  exclusive(copy?: (from: B, to: B) => void): B {
    const block = this.block;
    if (!this.owned) throw new GraphError("write: this tensor is an output of an executable; make one with tensor()");
    if (!block.shared) return block;
    const own = this.#host.allocate(this.spec);
    copy?.(block, own);
    block.release();
    this.#block = own;
    return own;
  }

  async read(): Promise<TypedArray> {
    return await this.#host.read(this.spec, this.block);
  }

  keep(): DeviceTensor {
    return new BlockTensor(this.#host, this.spec, this.block.retain(), true);
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
