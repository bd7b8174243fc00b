// Memory of the cuda backend. Work runs in the order in which it is enqueued, so a block that is overwritten or given back
// by later work is still whole for what came before.

import { type BlockHost, type BlockTensor, DeviceBlock } from "@sisa/core";
import { noOutcomes, type Outcome } from "./outcomes.ts";

export class Block extends DeviceBlock {
  #address: number;
  readonly bytes: number;
  /** Of the runs that the contents come from. */
  outcomes: readonly Outcome[] = noOutcomes;
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
  /** Enqueues a copy of the contents, with their outcomes. */
  copy(source: Block, target: Block): void;
}
