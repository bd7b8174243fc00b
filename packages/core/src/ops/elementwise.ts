// What elementwise operations share: broadcasting, its gradient, and the loops of the reference.

import { Dim, type Shape, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import {
  type Attributes,
  apply,
  type DefinedOp,
  definePrimitive,
  expectKind,
  expectSameDType,
  type Gradients,
  type NdArray,
  type NotDifferentiable,
  type VjpArguments,
} from "../graph/op.ts";
import type { AnyTensor, Tensor } from "../graph/tensor.ts";
import type { TensorSpec } from "../spec.ts";
import { gradientDType } from "./cast.ts";
import { constant } from "./constant.ts";
import { reshape } from "./reshape.ts";
import { sum } from "./sum.ts";

/** A tensor, or a number that takes the dtype of the other operand. */
export type Operand<K extends Kind> = Tensor<K> | number;

/** No value is one; the compiler names it where the kinds of two operands differ. */
interface DifferentKinds {
  readonly kindsOfOperandsDiffer: never;
}

/** An operand beside another of the same kind; where the kinds differ, nothing is assignable to it. */
export type SecondOperand<K extends Kind> = Operand<K> & (OneKind<K> extends true ? unknown : DifferentKinds);

/** True also for tensors whose kind is not in their type. */
type OneKind<K extends Kind> = [K] extends ["float"]
  ? true
  : [K] extends ["int"]
    ? true
    : [K] extends ["bool"]
      ? true
      : [Kind] extends [K]
        ? true
        : false;

/** The shape that two shapes broadcast to: sizes are equal, or one of them is 1 or absent. @throws ShapeError */
export function broadcastShapes(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const x = a[axis - rank + a.length] ?? Dim.of(1);
    const y = b[axis - rank + b.length] ?? Dim.of(1);
    if (x.equals(y) || y.equals(1)) return x;
    if (x.equals(1)) return y;
    throw new ShapeError(`shapes do not broadcast, got ${shapeText(a)} and ${shapeText(b)}`);
  });
}

/** True where a shape broadcasts to another without changing it. */
export function broadcastsTo(shape: Shape, target: Shape): boolean {
  const extra = target.length - shape.length;
  return extra >= 0 && shape.every((size, axis) => size.equals(1) || size.equals(target[axis + extra] ?? -1));
}

/**
 * Sums a gradient over the axes along which its tensor was broadcast.
 * @param dtype of the sums; default that of the gradient
 */
export function sumTo(gradient: Tensor, shape: Shape, dtype?: Tensor["dtype"]): Tensor {
  const extra = gradient.shape.length - shape.length;
  const axes = gradient.shape.flatMap((size, axis) => {
    const target = axis < extra ? undefined : shape[axis - extra];
    return target === undefined || (target.equals(1) && !size.equals(1)) ? [axis] : [];
  });
  if (axes.length === 0) return gradient;
  return reshape(sum(gradient, { axes, keepDims: true, dtype }), shape);
}

/** For each element of `output` in order, the place to read in an input that broadcasts to it. */
export function broadcastIndex(input: readonly number[], output: readonly number[]): (flat: number) => number {
  if (input.length === output.length && input.every((size, axis) => size === output[axis])) return (flat) => flat;
  if (input.every((size) => size === 1)) return () => 0;
  const strides = new Array<number>(output.length).fill(0);
  let stride = 1;
  for (let axis = input.length - 1; axis >= 0; axis--) {
    const size = input[axis] ?? 1;
    if (size !== 1) strides[axis + output.length - input.length] = stride;
    stride *= size;
  }
  return (flat) => {
    let rest = flat;
    let index = 0;
    for (let axis = output.length - 1; axis >= 0; axis--) {
      const size = output[axis] ?? 1;
      index += (rest % size) * (strides[axis] ?? 0);
      rest = Math.floor(rest / size);
    }
    return index;
  };
}

interface Unary<X extends Kind, Y extends Kind> {
  readonly kinds: readonly X[];
  apply(x: number): number;
  /** dtype of the result; that of the input where it is left out. */
  readonly dtype?: (x: TensorSpec<X>) => TensorSpec<Y>["dtype"];
  readonly vjp: NotDifferentiable | ((x: Tensor, y: Tensor, gradient: Tensor) => Tensor);
}

type UnaryInputs<X extends Kind> = { readonly x: Tensor<X> };
type Value<Y extends Kind> = { readonly value: Tensor<Y> };

export function defineUnary<const Name extends string, X extends Kind = "float", Y extends Kind = X>(
  name: Name,
  unary: Unary<X, Y>,
): DefinedOp<Name, UnaryInputs<X>, Attributes, Value<Y>> {
  const { vjp } = unary;
  return definePrimitive<Name, UnaryInputs<X>, Attributes, Value<Y>>({
    name,
    inputs: ["x"],
    elementwise: true,
    infer({ x }) {
      expectKind("x", x, ...unary.kinds);
      return { value: { dtype: unary.dtype?.(x) ?? x.dtype, shape: x.shape } as TensorSpec<Y> };
    },
    reference({ x }, _attributes, { value }) {
      for (let i = 0; i < value.data.length; i++) value.data[i] = unary.apply(x.data[i] ?? 0);
    },
    vjp:
      typeof vjp === "function"
        ? ({ inputs, outputs, gradients }) => ({
            x: gradients.value && vjp(asFloat(inputs.x), asFloat(outputs.value), gradients.value),
          })
        : vjp,
  });
}

interface Binary<X extends Kind, Y extends Kind> {
  readonly kinds: readonly X[];
  apply(a: number, b: number): number;
  /** For whole numbers, where `apply` would lose digits. Results wrap around at 32 bits. */
  applyWhole?(a: number, b: number): number;
  readonly dtype?: TensorSpec<Y>["dtype"];
  readonly vjp: NotDifferentiable | BinaryVjp;
}

/** Gradients before they are summed over broadcast axes. */
type BinaryVjp = (args: {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly value: Tensor;
  readonly gradient: Tensor;
}) => { readonly a: () => Tensor; readonly b: () => Tensor };

type BinaryInputs<X extends Kind> = { readonly a: Tensor<X>; readonly b: Tensor<X> };

export function defineBinary<const Name extends string, X extends Kind = "float", Y extends Kind = X>(
  name: Name,
  binary: Binary<X, Y>,
): DefinedOp<Name, BinaryInputs<X>, Attributes, Value<Y>> {
  const { vjp } = binary;
  const differentiate =
    typeof vjp === "function"
      ? ({ inputs, outputs, gradients, needs }: VjpArguments<BinaryInputs<X>, Attributes, Value<Y>>) => {
          const gradient = gradients.value;
          if (gradient === undefined) return {};
          const a = asFloat(inputs.a);
          const b = asFloat(inputs.b);
          const rules = vjp({ a, b, value: asFloat(outputs.value), gradient });
          const result: Gradients<BinaryInputs<X>> = {
            a: needs.a ? sumTo(rules.a(), a.shape, gradientDType(a)) : undefined,
            b: needs.b ? sumTo(rules.b(), b.shape, gradientDType(b)) : undefined,
          };
          return result;
        }
      : vjp;
  return definePrimitive<Name, BinaryInputs<X>, Attributes, Value<Y>>({
    name,
    inputs: ["a", "b"],
    elementwise: true,
    infer({ a, b }) {
      expectKind("a", a, ...binary.kinds);
      const dtype = binary.dtype ?? expectSameDType(a, b);
      expectSameDType(a, b);
      return { value: { dtype, shape: broadcastShapes(a.shape, b.shape) } as TensorSpec<Y> };
    },
    reference({ a, b }, _attributes, { value }) {
      const whole = a.data instanceof Int32Array ? binary.applyWhole : undefined;
      applyBinary(whole ?? binary.apply, a, b, value);
    },
    vjp: differentiate,
  });
}

function applyBinary(rule: (a: number, b: number) => number, a: NdArray, b: NdArray, value: NdArray): void {
  const indexA = broadcastIndex(a.shape, value.shape);
  const indexB = broadcastIndex(b.shape, value.shape);
  for (let i = 0; i < value.data.length; i++) {
    value.data[i] = rule(a.data[indexA(i)] ?? 0, b.data[indexB(i)] ?? 0);
  }
}

/** Applies a binary operation; a number becomes a constant of the tensor's dtype. */
export function applyOperands<const Name extends string, X extends Kind, Y extends Kind>(
  op: DefinedOp<Name, BinaryInputs<X>, Attributes, Value<Y>>,
  a: Operand<X>,
  b: Operand<X>,
): Tensor<Y> {
  if (typeof a === "number") {
    if (typeof b === "number") throw new ShapeError(`${op.name}: expected at least one tensor, got two numbers`);
    return apply(op, { a: like(b, a), b }, {}).value;
  }
  return apply(op, { a, b: typeof b === "number" ? like(a, b) : b }, {}).value;
}

/** A constant of a tensor's dtype, and so of its kind. */
function like<K extends Kind>(tensor: Tensor<K>, value: number): Tensor<K> {
  return constant(value, tensor.dtype) as AnyTensor as Tensor<K>;
}

/** Rules of gradients are only ever called for floats, since nothing else has a gradient. */
function asFloat(tensor: AnyTensor): Tensor {
  return tensor as Tensor;
}
