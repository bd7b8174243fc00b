// Memory of the onnxruntime backend: arrays that sessions read and write.

import { type BlockHost, type BlockTensor, DeviceBlock, type SisaError, sizesOf, type TensorSpec } from "@sisa/core";
import { elementType } from "./element-type.ts";
import type { RuntimeData, RuntimeTensor } from "./runtime.ts";

export class Block extends DeviceBlock implements RuntimeTensor {
  readonly type: "float32" | "int32" | "bool";
  readonly dims: readonly number[];
  readonly data: RuntimeData;
  /** Why the contents are not what they should be: the run that was to write them failed. */
  error: SisaError | undefined;
  readonly #freed: (bytes: number) => void;

  constructor(spec: TensorSpec, freed: (bytes: number) => void) {
    super();
    this.dims = sizesOf(spec.shape);
    this.type = elementType(spec.dtype);
    this.data = allocate(
      this.type,
      this.dims.reduce((a, b) => a * b, 1),
    );
    this.#freed = freed;
  }

  protected override free(): void {
    this.#freed(this.data.byteLength);
  }
}

function allocate(type: Block["type"], length: number): RuntimeData {
  if (type === "float32") return new Float32Array(length);
  return type === "int32" ? new Int32Array(length) : new Uint8Array(length);
}

export type OnnxTensor = BlockTensor<Block>;
export type TensorHost = BlockHost<Block>;
