// What a lowering is: how one operation is computed here. Operations on single elements and on places are expressions,
// which are joined into one kernel; the others write kernels of their own.

import type { AnyTensor, Attributes, Node } from "@sisa/core";
import type { Place, Scope } from "./codegen/index-space.ts";
import type { ShaderParts, Slot } from "./codegen/shader.ts";
import type { Capabilities } from "./device.ts";
import type { StorageType } from "./element-type.ts";
import type { Value } from "./program.ts";
import type { Check } from "./run-status.ts";

/** Each element from the elements at the same place: an expression of the operands. */
export interface Pointwise {
  readonly kind: "pointwise";
  expression(operands: readonly string[], node: Node): string;
  /** True where computing it again costs more than reading it. */
  readonly costly: boolean;
}

/** Each element from elements at other places. */
export interface View {
  readonly kind: "view";
  read(context: ViewContext): string;
}

export interface ViewContext {
  readonly node: Node;
  readonly attributes: Attributes;
  /** Where in the output. */
  readonly place: Place;
  readonly scope: Scope;
  /** Sizes of an input; of the first where none is named. */
  sizes(input?: string): readonly number[];
  /** The element of an input at a place. */
  read(place: Place, input?: string): string;
}

/** Kernels of its own. `absorbs` names an input that may be an expression, which the kernel then computes itself. */
export interface KernelLowering {
  readonly kind: "kernel";
  readonly absorbs?: string;
  /** Outputs that may be written over an input, where that is state: output name to input name. */
  readonly overwrites?: { readonly [output: string]: string };
  /** False where this device or these sizes are not for it; then the composition runs. Default: always. */
  readonly supports?: (node: Node, device: Capabilities) => boolean;
  /** Outputs that it does not compute: where one of them is needed, the composition runs. */
  readonly omits?: readonly string[];
  build(context: KernelContext): void;
}

export interface KernelContext {
  readonly node: Node;
  readonly attributes: Attributes;
  readonly device: Capabilities;
  /** Sizes of an input or an output. */
  sizes(tensor: AnyTensor | undefined): readonly number[];
  /** An input as a slot; undefined where an optional one is absent. */
  has(input: string): boolean;
  input(name: string): Slot;
  output(name?: string): Slot;
  /** True where this output is written over the input that `overwrites` names. */
  inPlace(output: string): boolean;
  /** Memory for this node alone. */
  scratch(type: StorageType, elements: number): Value;
  /** A check that kernels may fail: statements of WGSL that do so, for an i32 expression. Needs the slot `status`. */
  check(check: Check): { readonly slot: Slot; readonly fail: (value: string) => string };
  dispatch(parts: ShaderParts): void;
  /**
   * The absorbed input inside a kernel of its own: lines that compute its element at a place, in the order in which
   * they are asked for. `slots` must be bound.
   */
  emit(body: (scope: Scope, read: (place: Place) => string) => void): EmittedExpression;
}

export interface EmittedExpression {
  readonly lines: readonly string[];
  readonly slots: { readonly [name: string]: Slot };
}

export type Lowering = Pointwise | View | KernelLowering;

export function pointwise(expression: Pointwise["expression"], options: { costly?: boolean } = {}): Pointwise {
  return { kind: "pointwise", expression, costly: options.costly ?? false };
}

export function view(read: View["read"]): View {
  return { kind: "view", read };
}

export function kernel(
  build: KernelLowering["build"],
  options: Omit<KernelLowering, "kind" | "build"> = {},
): KernelLowering {
  return { kind: "kernel", build, ...options };
}
