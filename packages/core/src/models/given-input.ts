// What a program takes from the host in every run.

import type { Backend, DeviceTensor } from "../backend.ts";
import type { TypedArray } from "../dtype.ts";
import type { TensorSpec } from "../spec.ts";

/** A tensor that is written only where its contents change: on a device each write has its turn among all other work. */
export class GivenInput {
  readonly tensor: DeviceTensor;
  readonly #backend: Backend;
  #held: TypedArray | undefined;

  constructor(backend: Backend, spec: TensorSpec) {
    this.#backend = backend;
    this.tensor = backend.tensor(spec);
  }

  /** @param data the whole contents; it is kept and must not change */
  write(data: TypedArray): void {
    if (this.#held && isSame(this.#held, data)) return;
    this.#backend.write(this.tensor, data);
    this.#held = data;
  }

  dispose(): void {
    this.tensor.dispose();
  }
}

function isSame(a: TypedArray, b: TypedArray): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
