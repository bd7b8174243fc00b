// What an operation is. A primitive is defined by a reference in plain loops; a composite by a composition of other
// operations. Passes and autodiff ask an operation for its rules and know none by name.

import { checkSizes, Dim } from "../dim.ts";
import { type DType, type Kind, kindOf } from "../dtype.ts";
import { DTypeError, GraphError, ShapeError, SisaError } from "../errors.ts";
import { specText, type TensorSpec } from "../spec.ts";
import { type AnyTensor, isTensor, Node, type Tensor } from "./tensor.ts";

/** Tensors that an operation takes, by name. An absent optional input is undefined or missing. */
export type OpInputs = { readonly [name: string]: AnyTensor | undefined };
/** Settings of an operation: plain data; sizes may be `Dim`s. */
export type Attributes = { readonly [name: string]: unknown };
/** Tensors that an operation gives, by name; most give one, `value`. */
export type OpOutputs = { readonly [name: string]: AnyTensor };
/** dtype and shape of each output. */
export type OutputSpecs<O extends OpOutputs> = { readonly [N in keyof O]: TensorSpec };

/** An array inside the reference interpreter. Floats of any width are held as numbers, row major. */
export interface NdArray {
  /** Sizes of the axes; all are bound. */
  readonly shape: readonly number[];
  /** Floats of any dtype as float64, int32, or truth values as 0 and 1. */
  readonly data: Float64Array | Int32Array | Uint8Array;
}

/** What a rule for gradients is given. */
export interface VjpArguments<I extends OpInputs, A extends Attributes, O extends OpOutputs> {
  /** The operation's inputs. */
  readonly inputs: I;
  /** The operation's settings. */
  readonly attributes: A;
  /** What the operation gave in the forward pass. */
  readonly outputs: O;
  /** Gradients of the loss by each output; an output that the loss does not depend on has none. */
  readonly gradients: { readonly [N in keyof O]?: Tensor };
  /** Which inputs need a gradient. Rules may skip the others. */
  readonly needs: { readonly [N in keyof I]?: boolean };
}

/** The gradient of the loss by each input, of that input's shape; none where it does not depend on it. */
export type Gradients<I extends OpInputs> = { readonly [N in keyof I]?: Tensor | undefined };

/** Why an operation has no gradient; shown to the user who asks for one. */
export interface NotDifferentiable {
  /** As the end of a sentence: "a place is not a quantity". */
  readonly reason: string;
}

interface OpBase<Name extends string, I extends OpInputs, A extends Attributes, O extends OpOutputs> {
  readonly name: Name;
  /** Names of the inputs in order; optional ones end in "?". "..." takes any number. */
  readonly inputs: readonly string[] | "...";
  /** Floating-point operations for bound inputs; a multiply-add counts two. Default: one per output element. */
  flops?(inputs: I, attributes: A, outputs: OutputSpecs<O>): Dim;
  /** Where the formula comes from. */
  readonly source?: string;
  /**
   * An input that backends may overwrite with the output, unless it is a constant or an input that is not state.
   * Whatever else reads it must be something that this operation needs.
   */
  readonly inPlace?: string;
}

/** An operation that is defined by plain loops. A backend needs a rule of its own for it. */
export interface PrimitiveDefinition<Name extends string, I extends OpInputs, A extends Attributes, O extends OpOutputs>
  extends OpBase<Name, I, A, O> {
  /** True where each output element depends only on the input elements at the same (broadcast) place. */
  readonly elementwise?: boolean;
  /** True where the result depends on the shapes of the inputs alone, so that it is known once those are bound. */
  readonly shapeOnly?: boolean;
  /** dtype and shape of the outputs. @throws ShapeError, DTypeError for inputs that it cannot take */
  infer(inputs: I, attributes: A): OutputSpecs<O>;
  /** The meaning of the operation. Fills `outputs`, which arrive allocated and zero. Sizes are bound. */
  reference(
    inputs: { readonly [N in keyof I]: NdArray },
    attributes: A,
    outputs: { readonly [N in keyof O]: NdArray },
  ): void;
  /** Gradients by the inputs, in operations; or why there are none. */
  readonly vjp: NotDifferentiable | ((args: VjpArguments<I, A, O>) => Gradients<I>);
}

/** An operation that is defined by others. It runs wherever those do. */
export interface CompositeDefinition<Name extends string, I extends OpInputs, A extends Attributes, O extends OpOutputs>
  extends OpBase<Name, I, A, O> {
  /** Complains about wrong inputs in the user's terms, before the composition is tried. */
  check?(inputs: I, attributes: A): void;
  /** The meaning of the operation, by other operations. */
  compose(inputs: I, attributes: A): O;
  /** Own backward; without it the composition is differentiated. */
  readonly vjp?: NotDifferentiable | ((args: VjpArguments<I, A, O>) => Gradients<I>);
}

/** Not part of the types, which would otherwise differ between two copies of the package. */
const opMark = Symbol.for("sisa.op");

/** Any operation. Its rules are typed for its own inputs, so they are reached through the functions of this file. */
export interface Op<Name extends string = string> {
  /** What defines it: loops of its own, or other operations. */
  readonly kind: "primitive" | "composite";
  /** Of third parties `scope/name`. */
  readonly name: Name;
  /** Names of the inputs in order; optional ones end in "?". "..." takes any number. */
  readonly inputs: readonly string[] | "...";
  /** True where each output element depends only on the input elements at the same (broadcast) place. */
  readonly elementwise?: boolean;
  /** True where the result depends on the shapes of the inputs alone. */
  readonly shapeOnly?: boolean;
  /** Where the formula comes from. */
  readonly source?: string;
  /** An input that backends may overwrite with the output. */
  readonly inPlace?: string;
  /** dtype and shape of a primitive's outputs. @throws ShapeError, DTypeError for inputs that it cannot take */
  infer?(inputs: OpInputs, attributes: Attributes): OutputSpecs<OpOutputs>;
  /** What a primitive means: fills `outputs`, which arrive allocated and zero. */
  reference?(
    inputs: { readonly [name: string]: NdArray },
    attributes: Attributes,
    outputs: { readonly [name: string]: NdArray },
  ): void;
  /** Refuses wrong inputs of a composite in the user's terms. */
  check?(inputs: OpInputs, attributes: Attributes): void;
  /** What a composite means, by other operations. */
  compose?(inputs: OpInputs, attributes: Attributes): OpOutputs;
  /** Gradients by the inputs; or why there are none. A composite without it is differentiated by its composition. */
  readonly vjp?: NotDifferentiable | VjpRule;
  /** Floating-point operations; a multiply-add counts two. */
  flops?(inputs: OpInputs, attributes: Attributes, outputs: OutputSpecs<OpOutputs>): Dim;
}

/** Gradients by the inputs, in operations, from those by the outputs. */
export type VjpRule = (args: VjpArguments<OpInputs, Attributes, OpOutputs>) => Gradients<OpInputs>;

/** True for operations made by any copy of this package. */
export function isOp(value: unknown): value is Op {
  return typeof value === "object" && value !== null && opMark in value;
}

/** Declares a primitive. Names of third parties are `scope/name`. */
export function definePrimitive<
  const Name extends string,
  I extends OpInputs,
  A extends Attributes,
  O extends OpOutputs = { value: Tensor },
>(definition: PrimitiveDefinition<Name, I, A, O>): DefinedOp<Name, I, A, O> {
  return seal("primitive", definition);
}

/** Declares a composite. Names of third parties are `scope/name`. */
export function defineComposite<
  const Name extends string,
  I extends OpInputs,
  A extends Attributes,
  O extends OpOutputs = { value: Tensor },
>(definition: CompositeDefinition<Name, I, A, O>): DefinedOp<Name, I, A, O> {
  return seal("composite", definition);
}

/** An operation together with the types of what it takes and gives. */
export interface DefinedOp<
  Name extends string = string,
  I extends OpInputs = OpInputs,
  A extends Attributes = Attributes,
  O extends OpOutputs = OpOutputs,
> extends Op<Name> {
  /** For the compiler alone: never set. */
  readonly types?: {
    /** Of the inputs. */
    readonly inputs: I;
    /** Of the settings. */
    readonly attributes: A;
    /** Of the outputs. */
    readonly outputs: O;
  };
}

function seal<Name extends string, I extends OpInputs, A extends Attributes, O extends OpOutputs>(
  kind: "primitive" | "composite",
  definition: PrimitiveDefinition<Name, I, A, O> | CompositeDefinition<Name, I, A, O>,
): DefinedOp<Name, I, A, O> {
  // The rules are only ever called with the inputs and attributes that `apply` took for the same operation.
  return Object.freeze({ ...definition, kind, [opMark]: true }) as unknown as DefinedOp<Name, I, A, O>;
}

/**
 * Applies an operation to tensors: checks them and adds a node.
 * @throws GraphError, ShapeError, DTypeError with the operation's name in front
 */
export function apply<Name extends string, I extends OpInputs, A extends Attributes, O extends OpOutputs>(
  op: DefinedOp<Name, I, A, O>,
  inputs: I,
  attributes: A,
): O {
  return applyOp(op, inputs, attributes) as O;
}

/** The tag of nodes that are given none. */
let commonTag: string | undefined;

/** Builds with a tag for all nodes that are given none of their own. */
export function withTag<T>(tag: string | undefined, build: () => T): T {
  const before = commonTag;
  commonTag = tag;
  try {
    return build();
  } finally {
    commonTag = before;
  }
}

/**
 * `apply` without types, for passes that rebuild nodes.
 * @param tag default that of `withTag` around the call, else none
 * @throws GraphError, ShapeError, DTypeError with the operation's name in front
 */
export function applyOp(op: Op, inputs: OpInputs, attributes: Attributes, tag = commonTag): OpOutputs {
  const given: Record<string, AnyTensor> = {};
  for (const [name, tensor] of Object.entries(inputs)) if (tensor !== undefined) given[name] = tensor;
  return new Node(op, given, attributes, inferOutputs(op, given, attributes), tag).outputs;
}

/**
 * dtype and shape of what an operation gives for these inputs.
 * @throws GraphError, ShapeError, DTypeError with the operation's name in front
 */
export function inferOutputs(op: Op, inputs: OpInputs, attributes: Attributes): OutputSpecs<OpOutputs> {
  try {
    checkInputs(op, inputs);
    op.check?.(inputs, attributes);
    const outputs = op.infer?.(inputs, attributes) ?? op.compose?.(inputs, attributes);
    if (outputs === undefined) throw new GraphError("has neither a shape rule nor a composition");
    for (const { shape } of Object.values(outputs)) checkSizes(shape);
    return outputs;
  } catch (error) {
    if (SisaError.isInstance(error) && !error.message.startsWith(`${op.name}: `)) {
      error.message = `${op.name}: ${error.message}`;
    }
    throw error;
  }
}

/** @throws GraphError where a needed input is missing, or one is unknown or not a tensor */
function checkInputs(op: Op, inputs: OpInputs): void {
  const names = op.inputs === "..." ? Object.keys(inputs) : op.inputs;
  const known = new Set<string>();
  for (const text of names) {
    const optional = text.endsWith("?");
    const name = optional ? text.slice(0, -1) : text;
    known.add(name);
    const tensor: unknown = inputs[name];
    if (tensor === undefined && !optional) throw new GraphError(`input "${name}" is missing`);
    if (tensor !== undefined && !isTensor(tensor)) throw new GraphError(`input "${name}" is not a tensor`);
  }
  for (const name of Object.keys(inputs)) if (!known.has(name)) throw new GraphError(`has no input "${name}"`);
}

/** Checks an input of an operation. @throws DTypeError unless the tensor is of one of the kinds */
export function expectKind(name: string, tensor: TensorSpec, ...expected: readonly Kind[]): void {
  const kind = kindOf(tensor.dtype);
  if (!expected.includes(kind)) {
    throw new DTypeError(`${name} must be ${expected.join(" or ")}, got ${specText(tensor)}`);
  }
}

/** Checks two inputs of an operation, and returns their dtype. @throws DTypeError unless both have one */
export function expectSameDType(a: TensorSpec, b: TensorSpec): DType {
  if (a.dtype !== b.dtype) {
    throw new DTypeError(`dtypes differ, got ${specText(a)} and ${specText(b)}; cast one of them`);
  }
  return a.dtype;
}

/**
 * Checks a shape against a pattern of sizes, axis names and "..." (any leading axes), and returns what the names stand
 * for. A name that stands twice must be one size; sizes passed in `known` must agree.
 * @throws ShapeError: `weight must be [D] = [64], got [32]`
 */
export function expectShape(
  name: string,
  tensor: TensorSpec,
  pattern: readonly (string | number)[],
  known: { readonly [axis: string]: Dim } = {},
): { readonly [axis: string]: Dim } {
  const open = pattern[0] === "...";
  const axes = open ? pattern.slice(1) : pattern;
  const offset = tensor.shape.length - axes.length;
  const found: Record<string, Dim> = { ...known };
  let fits = open ? offset >= 0 : offset === 0;
  axes.forEach((axis, index) => {
    const size = tensor.shape[offset + index];
    if (size === undefined) return;
    if (typeof axis === "number") fits &&= size.equals(axis);
    else {
      const seen = found[axis];
      if (seen === undefined) found[axis] = size;
      else fits &&= seen.equals(size);
    }
  });
  if (!fits) {
    const names = pattern.join(",");
    const sizes = pattern.map((axis) => (typeof axis === "string" && known[axis]) || axis).join(",");
    const meaning = sizes === names ? "" : ` = [${sizes}]`;
    throw new ShapeError(`${name} must be [${names}]${meaning}, got [${tensor.shape.join(",")}]`);
  }
  return found;
}

/**
 * Negative axes count from the end.
 * @param op named in the error where no rule of an operation is running, which would add it
 * @throws ShapeError for an axis that there is not
 */
export function normalAxis(axis: number, rank: number, op?: string): number {
  const normal = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || normal < 0 || normal >= rank) {
    const expected = rank === 0 ? "an axis, but a scalar has none;" : `an axis from ${-rank} to ${rank - 1},`;
    throw new ShapeError(`${op === undefined ? "" : `${op}: `}expected ${expected} got ${axis}`);
  }
  return normal;
}

/** Attributes with every size replaced by its binding; symbols that are not named stay. */
export function bindAttributes(attributes: Attributes, symbols: Readonly<Record<string, number | Dim>>): Attributes {
  const bindValue = (value: unknown): unknown => {
    if (Dim.is(value)) return value.bind(symbols);
    if (Array.isArray(value)) return value.map(bindValue);
    if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value)) {
      return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, bindValue(entry)]));
    }
    return value;
  };
  return bindValue(attributes) as Attributes;
}
