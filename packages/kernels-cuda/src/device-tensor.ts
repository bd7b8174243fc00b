// Memory of the cuda backend. Work runs in the order in which it is enqueued, so a block that is overwritten or given back
// by later work is still whole for what came before.

import { type BlockHost, type BlockTensor, DeviceBlock, type SisaError } from "@sisa/core";

export class Block extends DeviceBlock {
  #address: number;
  readonly bytes: number;
  /** Why the contents are not what they should be. */
  error: SisaError | undefined;
  readonly #freed: (address: number) => void;

  constructor(address: number, bytes: number, freed: (address: number) => void) {
    super();
    this.#address = address;
    this.bytes = bytes;
    this.#freed = freed;
  }

  get address(): number {
    return this.#address;
  }

  /** Swaps memory with a block of equal size. */
  exchange(other: Block): void {
    [this.#address, other.#address] = [other.#address, this.#address];
  }

  protected override free(): void {
    this.#freed(this.#address);
  }
}

export type CudaTensor = BlockTensor<Block>;

/** What handles and executables need of their backend. */
export interface TensorHost extends BlockHost<Block> {
  /** Memory of so many bytes, with any contents. */
  block(bytes: number): Block;
  /** Enqueues a copy of the contents, errors included. */
  copy(source: Block, target: Block): void;
}
