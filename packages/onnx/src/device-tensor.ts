// Tensors of the onnxruntime backend: handles to arrays in memory that change hands as runs are enqueued.

import {
  type DeviceTensor,
  DisposedError,
  GraphError,
  type SisaError,
  sizesOf,
  specText,
  type TensorSpec,
  type TypedArray,
} from "@sisa/core";
import { elementType } from "./element-type.ts";
import type { RuntimeData, RuntimeTensor } from "./runtime.ts";

/**
 * Memory that one or more owners hold: handles, and the executable that writes it. Work that is enqueued holds nothing:
 * it runs in order, so what overwrites a block comes after whatever was to read it.
 */
export class Block implements RuntimeTensor {
  readonly type: "float32" | "int32" | "bool";
  readonly dims: readonly number[];
  readonly data: RuntimeData;
  /** Why the contents are not what they should be: the run that was to write them failed. */
  error: SisaError | undefined;
  #owners = 1;
  readonly #freed: (bytes: number) => void;

  constructor(spec: TensorSpec, freed: (bytes: number) => void) {
    this.dims = sizesOf(spec.shape);
    this.type = elementType(spec.dtype);
    this.data = allocate(
      this.type,
      this.dims.reduce((a, b) => a * b, 1),
    );
    this.#freed = freed;
  }

  /** True where somebody keeps the value, so that it must not be overwritten. */
  get shared(): boolean {
    return this.#owners > 1;
  }

  retain(): this {
    this.#owners += 1;
    return this;
  }

  release(): void {
    this.#owners -= 1;
    if (this.#owners === 0) this.#freed(this.data.byteLength);
  }
}

function allocate(type: Block["type"], length: number): RuntimeData {
  if (type === "float32") return new Float32Array(length);
  return type === "int32" ? new Int32Array(length) : new Uint8Array(length);
}

/** What a handle needs of its backend. */
export interface TensorHost {
  allocate(spec: TensorSpec): Block;
  /** Owned tensors, to be disposed of when the host is closed. */
  readonly live: Set<OnnxTensor>;
  /** Does something after all that was enqueued before. */
  afterQueue<T>(action: () => T): Promise<T>;
}

/** A handle. `owned` ones hold memory; others look at an output until the executable runs again. */
export class OnnxTensor implements DeviceTensor {
  readonly spec: TensorSpec;
  readonly owned: boolean;
  readonly #host: TensorHost;
  #block: Block | undefined;
  /** The other array of a state tensor: runs read one and write the other. */
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

  /** Memory for the next value of this tensor, apart from that of the present one. */
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
    const block = this.block;
    return await this.#host.afterQueue(() => {
      if (block.error) throw block.error;
      return block.data.slice();
    });
  }

  keep(): DeviceTensor {
    return new OnnxTensor(this.#host, this.spec, this.block.retain(), true);
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
