// What a lowering is: the rule that spells one of our operations as ONNX nodes.

import type { Attributes, DefinedOp, Dim, Node, OpInputs, OpOutputs, Shape } from "@sisa/core";
import type { Attribute, ElementType, GraphBuilder, Value } from "./model-proto.ts";
import { elementTypeCode } from "./model-proto.ts";
import type { Sizes } from "./sizes.ts";

/** `onnxruntime` may use operators that only ONNX Runtime has; `standard` is for any runtime. */
export type Dialect = "onnxruntime" | "standard";

type Maybe<T, V> = undefined extends T ? V | undefined : V;

export interface LoweringArguments<
  I extends OpInputs = OpInputs,
  A extends Attributes = Attributes,
  O extends OpOutputs = OpOutputs,
> {
  readonly emit: Emitter;
  /** Values of the inputs; an optional one that is absent is undefined. */
  readonly inputs: { readonly [N in keyof I]: Maybe<I[N], Value> };
  readonly attributes: A;
  /** Shapes and dtypes of the inputs. */
  readonly specs: I;
  readonly outputs: O;
  /** Which outputs anything reads. */
  readonly needs: { readonly [N in keyof O]?: boolean };
  /** Names of the operations that read each output, and `graphOutput` for one of the graph. */
  readonly readers: { readonly [N in keyof O]?: readonly string[] };
}

/** Stands among the readers of a value for the graph itself. */
export const graphOutput = "graph output";

/** Values of the outputs, by name. Outputs that nothing reads may be left out. */
export type LoweredOutputs<O extends OpOutputs = OpOutputs> = { readonly [N in keyof O]?: Value };

/** How one operation is spelled in ONNX. */
export interface Lowering<Name extends string = string> {
  readonly op: Name;
  /** True where this node is better served by its composition, such as a composite with sizes that are not bound. */
  declines?(node: Node, dialect: Dialect): boolean;
  lower(args: LoweringArguments): LoweredOutputs;
}

/**
 * Declares the lowering of an operation, with the types that the operation has.
 *
 * @param op   the operation
 * @param rule adds nodes through `emit` and returns the values of the outputs
 * @param declines optional: nodes for which the composition is taken instead
 */
export function lowering<Name extends string, I extends OpInputs, A extends Attributes, O extends OpOutputs>(
  op: DefinedOp<Name, I, A, O>,
  rule: (args: LoweringArguments<I, A, O>) => LoweredOutputs<O>,
  declines?: (node: Node, dialect: Dialect) => boolean,
): Lowering<Name> {
  return {
    op: op.name,
    // A rule is only ever called for nodes of its own operation, whose inputs and attributes have these types.
    lower: (args) => rule(args as unknown as LoweringArguments<I, A, O>),
    ...(declines && { declines }),
  };
}

const microsoft = "com.microsoft";

/** A kind of thing that an operation leaves for others in the same graph, such as its own backward. */
export interface Slot<T> {
  readonly name: string;
  readonly type?: T;
}

/** What the emitters of one graph share. */
export interface EmitterScope {
  readonly builder: GraphBuilder;
  readonly sizes: Sizes;
  readonly dialect: Dialect;
  readonly kept: Map<Slot<unknown>, Map<string, unknown>>;
  /** Names of the operations in the graph. */
  readonly operations: ReadonlySet<string>;
}

/** Adds the nodes of one operation to a model. */
export class Emitter {
  readonly builder: GraphBuilder;
  readonly sizes: Sizes;
  readonly dialect: Dialect;
  readonly #kept: Map<Slot<unknown>, Map<string, unknown>>;
  readonly #operations: ReadonlySet<string>;
  /** What its nodes are called: the operation and its number. */
  readonly label: string;
  #count = 0;

  constructor(scope: EmitterScope, label: string) {
    this.builder = scope.builder;
    this.sizes = scope.sizes;
    this.dialect = scope.dialect;
    this.#kept = scope.kept;
    this.#operations = scope.operations;
    this.label = label;
  }

  /** Leaves something for other operations of this graph. */
  keep<T>(slot: Slot<T>, key: string, thing: T): T {
    const things = this.#kept.get(slot) ?? new Map<string, unknown>();
    this.#kept.set(slot, things.set(key, thing));
    return thing;
  }

  /** What was left under this key, if anything. */
  kept<T>(slot: Slot<T>, key: string): T | undefined {
    // Only `keep` puts things in, and those of a slot are all of its type.
    return this.#kept.get(slot)?.get(key) as T | undefined;
  }

  /** True where the graph has a node of this operation. */
  has(operation: string): boolean {
    return this.#operations.has(operation);
  }

  #name(): string {
    return `${this.label}.${this.#count++}`;
  }

  /** Adds an ONNX node and returns its output. */
  node(
    operator: string,
    inputs: readonly (Value | undefined)[],
    attributes?: { readonly [name: string]: Attribute | undefined },
  ): Value {
    return this.builder.node(operator, inputs, attributes, { name: this.#name() });
  }

  nodes(
    count: number,
    operator: string,
    inputs: readonly (Value | undefined)[],
    attributes?: { readonly [name: string]: Attribute | undefined },
  ): readonly Value[] {
    return this.builder.nodes(count, operator, inputs, attributes, { name: this.#name() });
  }

  /** A node of ONNX Runtime's own operator set. */
  microsoft(
    operator: string,
    inputs: readonly (Value | undefined)[],
    attributes?: { readonly [name: string]: Attribute | undefined },
  ): Value {
    return this.builder.node(operator, inputs, attributes, { name: this.#name(), domain: microsoft });
  }

  cast(x: Value, type: ElementType): Value {
    return this.node("Cast", [x], { to: elementTypeCode[type] });
  }

  reshape(x: Value, shape: Shape): Value {
    const unknown = shape.filter((size) => size.value === undefined);
    if (unknown.length === 1 && shape.every((size) => size.value !== 0)) {
      // One size that is not known is left to the runtime.
      return this.node("Reshape", [x, this.builder.int64(...shape.map((size) => size.value ?? -1))]);
    }
    // A size of zero means zero, not "as in the input".
    return this.node("Reshape", [x, this.sizes.shape(shape)], { allowzero: 1 });
  }

  transpose(x: Value, permutation: readonly number[]): Value {
    return this.node("Transpose", [x], { perm: permutation });
  }

  /** Places `start` to `end` of one axis. */
  slice(x: Value, axis: number, start: Dim, end: Dim): Value {
    const { builder, sizes } = this;
    return this.node("Slice", [x, sizes.size(start), sizes.size(end), builder.int64(axis)]);
  }

  /** Sum over axes, kept with size 1 or dropped. */
  sum(x: Value, axes: readonly number[], keepDims: boolean): Value {
    return this.node("ReduceSum", [x, this.builder.int64(...axes)], {
      keepdims: keepDims ? 1 : 0,
      noop_with_empty_axes: 1,
    });
  }

  /** Matrix product over the last two axes of values with these ranks, times a factor. */
  matmul(a: Operand, b: Operand, options: MatmulOptions = {}): Value {
    const { transposeA = false, transposeB = false, factor = 1 } = options;
    if (!transposeA && !transposeB && factor === 1) return this.node("MatMul", [a.value, b.value]);
    if (this.dialect === "standard") {
      const left = transposeA ? this.#transposed(a) : a.value;
      const right = transposeB ? this.#transposed(b) : b.value;
      const product = this.node("MatMul", [left, right]);
      return factor === 1 ? product : this.node("Mul", [product, this.builder.float(factor)]);
    }
    return this.microsoft("FusedMatMul", [a.value, b.value], {
      transA: transposeA ? 1 : 0,
      transB: transposeB ? 1 : 0,
      alpha: { float: factor },
    });
  }

  #transposed({ value, rank }: Operand): Value {
    const axes = Array.from({ length: rank }, (_, axis) => axis);
    return this.transpose(value, [...axes.slice(0, -2), rank - 1, rank - 2]);
  }
}

export interface Operand {
  readonly value: Value;
  readonly rank: number;
}

export interface MatmulOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly factor?: number;
}
