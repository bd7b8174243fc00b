// A compiled graph as plain data: values, and the kernels that read and write them, in order.

import type { TensorSpec } from "@sisa/core";
import type { StorageType } from "./element-type.ts";
import type { Check } from "./run-status.ts";

/** Memory that kernels read or write. Tensors that differ in shape only are one value. */
export interface Value {
  /** Its number in the program. */
  readonly id: number;
  /** Of its elements. */
  readonly type: StorageType;
  /** How many there are. */
  readonly elements: number;
  /** Of all elements, filled up to a multiple of 4. */
  readonly bytes: number;
  /** What it is to the program. */
  readonly role: Role;
}

export type Role =
  | { readonly kind: "input"; readonly name: string }
  | { readonly kind: "output"; readonly name: string }
  | { readonly kind: "constant"; readonly data: Uint8Array<ArrayBuffer> }
  | { readonly kind: "temporary" }
  /** The checks of the whole program. */
  | { readonly kind: "status" };

/** Memory as a kernel takes it. */
export interface Binding {
  /** The memory. */
  readonly value: Value;
  /** What the kernel does with it. */
  readonly access: "read" | "read_write";
}

/** One dispatch. */
export interface Kernel {
  /** The operation it is for, and what part of it: shown in errors and profiles. */
  readonly label: string;
  readonly code: string;
  readonly bindings: readonly Binding[];
  readonly workgroups: readonly [number, number, number];
}

export interface Program {
  readonly kernels: readonly Kernel[];
  readonly inputs: ReadonlyMap<string, Value>;
  readonly outputs: ReadonlyMap<string, OutputPlace>;
  readonly checks: readonly Check[];
}

/** Where an output ends up: in a buffer of its own, or in that of the state input which it overwrites. */
export interface OutputPlace {
  readonly spec: TensorSpec;
  readonly value: Value;
  /** The input whose buffer it is, where it is written in place. */
  readonly overwrites: string | undefined;
}
