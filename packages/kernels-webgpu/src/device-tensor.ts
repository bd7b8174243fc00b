// Memory of the webgpu backend: buffers, with what may have gone wrong in the runs that wrote them.

import { type BlockHost, type BlockTensor, DeviceBlock } from "@sisa/core";
import type { RunStatus } from "./run-status.ts";

export class Block extends DeviceBlock {
  readonly buffer: GPUBuffer;
  /** What may have gone wrong in the runs that the contents come from. */
  statuses: ReadonlySet<RunStatus> = noStatuses;
  readonly #freed: (buffer: GPUBuffer) => void;

  constructor(buffer: GPUBuffer, freed: (buffer: GPUBuffer) => void) {
    super();
    this.buffer = buffer;
    this.#freed = freed;
  }

  protected override free(): void {
    this.#freed(this.buffer);
  }
}

const noStatuses: ReadonlySet<RunStatus> = new Set();

export type WebgpuTensor = BlockTensor<Block>;
export type TensorHost = BlockHost<Block>;
