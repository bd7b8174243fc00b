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
  /** A WGSL expression of the operands' expressions. */
  expression(operands: readonly string[], node: Node): string;
  /** True where computing it again costs more than reading it. */
  readonly costly: boolean;
}

/** Each element from elements at other places. */
export interface View {
  readonly kind: "view";
  /** A WGSL expression of the output's element at `place`. */
  read(context: ViewContext): string;
}

/** What a view is told of its node. */
export interface ViewContext {
  /** The application that is lowered. */
  readonly node: Node;
  /** Its settings. */
  readonly attributes: Attributes;
  /** Where in the output. */
  readonly place: Place;
  /** Where lines go that the expression needs. */
  readonly scope: Scope;
  /** Sizes of an input; of the first where none is named. */
  sizes(input?: string): readonly number[];
  /** The element of an input at a place. */
  read(place: Place, input?: string): string;
}

/** Kernels of its own. `absorbs` names an input that may be an expression, which the kernel then computes itself. */
export interface KernelLowering {
  readonly kind: "kernel";
  /** Name of the input. Default: none is absorbed. */
  readonly absorbs?: string;
  /** Outputs that may be written over an input, where that is state: output name to input name. Default none. */
  readonly overwrites?: { readonly [output: string]: string };
  /** False where this device or these sizes are not for it; then the composition runs. Default: always. */
  readonly supports?: (node: Node, device: Capabilities) => boolean;
  /** Outputs that it does not compute: where one of them is needed, the composition runs. Default none. */
  readonly omits?: readonly string[];
  /**
   * Whether it stores its result by `KernelContext.finish`, so that what is computed of it takes no pass of its own.
   * Default false.
   */
  readonly finishes?: boolean;
  /**
   * How nodes that have one key and do not need each other are built at once. Nodes without a key are built alone. Parts
   * of a key that are objects, such as tensors, are compared by identity.
   */
  readonly joint?: Joint;
  /** Dispatches the kernels of one node. */
  build(context: KernelContext): void;
}

/** How nodes are built at once. */
export interface Joint {
  /** What nodes that are built at once have in common; undefined for a node that is built alone. */
  key(node: Node): readonly unknown[] | undefined;
  /** Dispatches the kernels of some nodes that have one key. */
  build(contexts: readonly KernelContext[]): void;
}

/** What becomes of an element of the result before it is stored. */
export interface Finish {
  /** A function of WGSL, `finish(place: u32, value: f32) -> f32`. */
  readonly declaration: string;
  /** What it reads. */
  readonly slots: { readonly [name: string]: Slot };
}

/** What a kernel is told of its node, and where it puts what it generates. */
export interface KernelContext {
  /** The application that is lowered. */
  readonly node: Node;
  /** Its settings. */
  readonly attributes: Attributes;
  /** What the device can do. */
  readonly device: Capabilities;
  /** Sizes of an input or an output. */
  sizes(tensor: AnyTensor | undefined): readonly number[];
  /** An input as a slot; undefined where an optional one is absent. */
  has(input: string): boolean;
  /** The memory of an input, to be bound. */
  input(name: string): Slot;
  /** The memory of an output, to be bound; default `value`. */
  output(name?: string): Slot;
  /** True where something reads this output. */
  needs(output: string): boolean;
  /** What to do with elements before they are stored; only for lowerings that say `finishes`. */
  readonly finish: Finish | undefined;
  /** True where this output is written over the input that `overwrites` names. */
  inPlace(output: string): boolean;
  /** Memory for this node alone. */
  scratch(type: StorageType, elements: number): Value;
  /**
   * A check that kernels may fail.
   * @returns the slot to bind as `status`, and statements of WGSL that fail it, for an i32 expression
   */
  check(check: Check): { readonly slot: Slot; readonly fail: (value: string) => string };
  /**
   * So many workgroups, in a grid that respects the limit of one dimension. There may be a few more; each has the number
   * `group.y * groups.x + group.x`.
   */
  grid(count: number): ShaderParts["workgroups"];
  /** Adds one kernel to the program. */
  dispatch(parts: ShaderParts): void;
  /**
   * The absorbed input inside a kernel of its own: lines that compute its element at a place, in the order in which
   * they are asked for. `slots` must be bound.
   */
  emit(body: (scope: Scope, read: (place: Place) => string) => void): EmittedExpression;
}

/** An absorbed input as code. */
export interface EmittedExpression {
  /** Statements of WGSL, in order. */
  readonly lines: readonly string[];
  /** What they read; must be bound. */
  readonly slots: { readonly [name: string]: Slot };
}

/** How one operation is computed. */
export type Lowering = Pointwise | View | KernelLowering;

/**
 * Declares a rule for single elements.
 * @param options.costly computing it again costs more than reading it; default false
 */
export function pointwise(expression: Pointwise["expression"], options: { costly?: boolean } = {}): Pointwise {
  return { kind: "pointwise", expression, costly: options.costly ?? false };
}

/** Declares a view. */
export function view(read: View["read"]): View {
  return { kind: "view", read };
}

/**
 * Declares kernels of an operation's own.
 * @param options as in KernelLowering; default none
 */
export function kernel(
  build: KernelLowering["build"],
  options: Omit<KernelLowering, "kind" | "build"> = {},
): KernelLowering {
  return { kind: "kernel", build, ...options };
}
