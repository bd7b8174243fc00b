// What a lowering is: the rule that spells one of our operations as ONNX nodes.

import {
  type Attributes,
  type DefinedOp,
  type Dim,
  type Node,
  type OpInputs,
  type OpOutputs,
  type Shape,
  sameShape,
  type TensorSpec,
} from "@sisa/core";
import { elementType } from "./element-type.ts";
import type { Attribute, ElementType, GraphBuilder, Value } from "./model-proto.ts";
import { elementTypeCode } from "./model-proto.ts";
import type { Sizes } from "./sizes.ts";

/** `onnxruntime` may use operators that only ONNX Runtime has; `standard` is for any runtime. */
export type Dialect = "onnxruntime" | "standard";

type Maybe<T, V> = undefined extends T ? V | undefined : V;

/** What a rule is told of its node. */
export interface LoweringArguments<
  I extends OpInputs = OpInputs,
  A extends Attributes = Attributes,
  O extends OpOutputs = OpOutputs,
> {
  /** Where it adds its nodes. */
  readonly emit: Emitter;
  /** Values of the inputs; an optional one that is absent is undefined. */
  readonly inputs: { readonly [N in keyof I]: Maybe<I[N], Value> };
  /** Settings of the application. */
  readonly attributes: A;
  /** Shapes and dtypes of the inputs. */
  readonly specs: I;
  /** Shapes and dtypes of the outputs. */
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
  /** Name of the operation. */
  readonly op: Name;
  /** True where this node is better served by its composition, such as a composite with sizes that are not bound. */
  declines?(node: Node, dialect: Dialect): boolean;
  /** Adds nodes and gives the values of the outputs. */
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

type NodeAttributes = { readonly [name: string]: Attribute | undefined };

/** A kind of thing that an operation leaves for others in the same graph, such as its own backward. */
export interface Slot<T> {
  /** For people; slots are told apart by identity. */
  readonly name: string;
  /** For the compiler alone: never set. */
  readonly type?: T;
}

/** What a reshaped value was before. */
const reshaped: Slot<{ readonly value: Value; readonly shape: Shape | undefined }> = { name: "reshaped" };

/** What the emitters of one graph share. */
export interface EmitterScope {
  readonly builder: GraphBuilder;
  readonly sizes: Sizes;
  readonly dialect: Dialect;
  readonly kept: Map<Slot<unknown>, Map<string, unknown>>;
  /** Outputs of the nodes that there are, by what the nodes are. */
  readonly nodes: Map<string, readonly Value[]>;
  /** Names of the operations in the graph. */
  readonly operations: ReadonlySet<string>;
}

/** Adds the nodes of one operation to a model. */
export class Emitter {
  /** The graph that is being written. */
  readonly builder: GraphBuilder;
  /** Shapes as values, where sizes are not bound. */
  readonly sizes: Sizes;
  /** Which opset and runtime the graph is for. */
  readonly dialect: Dialect;
  readonly #scope: EmitterScope;
  readonly #tag: string;
  /** What its nodes are called: the operation and its number. */
  readonly label: string;
  #count = 0;

  /** @param tag nodes of different tags are never merged */
  constructor(scope: EmitterScope, label: string, tag = "") {
    this.builder = scope.builder;
    this.sizes = scope.sizes;
    this.dialect = scope.dialect;
    this.#scope = scope;
    this.#tag = tag;
    this.label = label;
  }

  /** Leaves something for other operations of this graph. */
  keep<T>(slot: Slot<T>, key: string, thing: T): T {
    const things = this.#scope.kept.get(slot) ?? new Map<string, unknown>();
    this.#scope.kept.set(slot, things.set(key, thing));
    return thing;
  }

  /** What was left under this key, if anything. */
  kept<T>(slot: Slot<T>, key: string): T | undefined {
    // Only `keep` puts things in, and those of a slot are all of its type.
    return this.#scope.kept.get(slot)?.get(key) as T | undefined;
  }

  /** True where the graph has a node of this operation. */
  has(operation: string): boolean {
    return this.#scope.operations.has(operation);
  }

  /** Adds an ONNX node and returns its output. A node that is there already is not added again. */
  node(operator: string, inputs: readonly (Value | undefined)[], attributes?: NodeAttributes): Value {
    const [value = ""] = this.#add(1, operator, inputs, attributes);
    return value;
  }

  /** A node with several outputs. */
  nodes(
    count: number,
    operator: string,
    inputs: readonly (Value | undefined)[],
    attributes?: NodeAttributes,
  ): readonly Value[] {
    return this.#add(count, operator, inputs, attributes);
  }

  /** A node of ONNX Runtime's own operator set. */
  microsoft(operator: string, inputs: readonly (Value | undefined)[], attributes?: NodeAttributes): Value {
    const [value = ""] = this.#add(1, operator, inputs, attributes, "com.microsoft");
    return value;
  }

  #add(
    count: number,
    operator: string,
    inputs: readonly (Value | undefined)[],
    attributes: NodeAttributes = {},
    domain = "",
  ): readonly Value[] {
    const settings = Object.entries(attributes);
    // Subgraphs have no text to compare them by.
    const comparable = settings.every(([, value]) => typeof value !== "object" || !("graph" in value));
    const key = comparable ? JSON.stringify([this.#tag, domain, operator, inputs, settings, count]) : undefined;
    const known = key === undefined ? undefined : this.#scope.nodes.get(key);
    if (known !== undefined) return known;
    const name = `${this.label}.${this.#count++}`;
    const outputs = this.builder.nodes(count, operator, inputs, attributes, { name, domain });
    if (key !== undefined) this.#scope.nodes.set(key, outputs);
    return outputs;
  }

  /**
   * One of two computations, chosen when the model runs.
   *
   * @param condition truth value without axes
   * @param specs     dtype and shape of the results, for both alike
   */
  choose(
    condition: Value,
    specs: readonly TensorSpec[],
    then: (emit: Emitter) => readonly Value[],
    otherwise: (emit: Emitter) => readonly Value[],
  ): readonly Value[] {
    const branch = (compute: (emit: Emitter) => readonly Value[]) => {
      const builder = this.builder.subgraph();
      // What a branch computes cannot be seen outside of it, so it shares none of it.
      const nodes = new Map(this.#scope.nodes);
      const kept = new Map([...this.#scope.kept].map(([slot, things]) => [slot, new Map(things)]));
      const emit = new Emitter({ ...this.#scope, builder, nodes, kept }, `${this.label}.${this.#count++}`, this.#tag);
      for (const [index, value] of compute(emit).entries()) {
        const { dtype, shape } = specs[index] ?? { dtype: "float32", shape: [] };
        const axes = shape.map((size) => size.value ?? size.toString());
        builder.branchOutput(value, elementType(dtype), axes);
      }
      return { graph: builder };
    };
    const attributes = { then_branch: branch(then), else_branch: branch(otherwise) };
    return this.nodes(specs.length, "If", [condition], attributes);
  }

  /** A value in another element type. */
  cast(x: Value, type: ElementType): Value {
    return this.node("Cast", [x], { to: elementTypeCode[type] });
  }

  /** @param from the shape that x has, where it is known: what need not be reshaped is not */
  reshape(x: Value, shape: Shape, from?: Shape): Value {
    // What was reshaped before is reshaped from its first shape.
    const source = this.kept(reshaped, x) ?? { value: x, shape: from };
    if (source.shape && sameShape(source.shape, shape)) return source.value;
    const unknown = shape.filter((size) => size.value === undefined);
    const free = unknown.length === 1 && shape.every((size) => size.value !== 0);
    const value = free
      ? // One size that is not known is left to the runtime.
        this.node("Reshape", [source.value, this.builder.int64(...shape.map((size) => size.value ?? -1))])
      : // A size of zero means zero, not "as in the input".
        this.node("Reshape", [source.value, this.sizes.shape(shape)], { allowzero: 1 });
    this.keep(reshaped, value, source);
    return value;
  }

  /** Axes in another order: axis i of the result is axis permutation[i]. */
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
  matmul(a: MatmulOperand, b: MatmulOperand, options: MatmulOptions = {}): Value {
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

  #transposed({ value, rank }: MatmulOperand): Value {
    const axes = Array.from({ length: rank }, (_, axis) => axis);
    return this.transpose(value, [...axes.slice(0, -2), rank - 1, rank - 2]);
  }
}

/** A factor of a matrix product. */
export interface MatmulOperand {
  /** Its name. */
  readonly value: Value;
  /** How many axes it has. */
  readonly rank: number;
}

/** How the factors of a matrix product lie, and what it is multiplied by. */
export interface MatmulOptions {
  /** The first is [..., K, M]. Default false. */
  readonly transposeA?: boolean;
  /** The second is [..., N, K]. Default false. */
  readonly transposeB?: boolean;
  /** Of the product. Default 1. */
  readonly factor?: number;
}
