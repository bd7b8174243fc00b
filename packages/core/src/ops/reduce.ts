// What reductions share: shapes, and the walk from elements to the sums they belong to.

import { Dim, type Shape } from "../dim.ts";
import { normalAxis } from "../graph/op.ts";

export interface ReduceAttributes {
  readonly [name: string]: unknown;
  /** Sorted, not negative. */
  readonly axes: readonly number[];
  readonly keepDims: boolean;
}

/** Over which axes, and what becomes of them. */
export interface ReduceOptions {
  /** Which axes; negative ones count from the end. Default: all. */
  readonly axes?: readonly number[];
  /** Keep reduced axes with size 1. Default false. */
  readonly keepDims?: boolean;
}

export function reduceAttributes(op: string, rank: number, options: ReduceOptions): ReduceAttributes {
  const { axes, keepDims = false } = options;
  const all = Array.from({ length: rank }, (_, axis) => axis);
  const normal = axes?.map((axis) => normalAxis(axis, rank, op)) ?? all;
  return { axes: [...new Set(normal)].sort((a, b) => a - b), keepDims };
}

export function reducedShape(shape: Shape, { axes, keepDims }: ReduceAttributes): Shape {
  return shape.flatMap((size, axis) => (axes.includes(axis) ? (keepDims ? [Dim.of(1)] : []) : [size]));
}

/** The reduced shape with size 1 on every reduced axis, so that it broadcasts against what was reduced. */
export function keptShape(shape: Shape, { axes }: ReduceAttributes): Shape {
  return shape.map((size, axis) => (axes.includes(axis) ? Dim.of(1) : size));
}

/** For each element of the input in order, the element of the result it belongs to. */
export function reduceIndex(shape: readonly number[], { axes }: ReduceAttributes): (flat: number) => number {
  const strides = new Array<number>(shape.length).fill(0);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (axes.includes(axis)) continue;
    strides[axis] = stride;
    stride *= shape[axis] ?? 1;
  }
  return (flat) => {
    let rest = flat;
    let index = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const size = shape[axis] ?? 1;
      index += (rest % size) * (strides[axis] ?? 0);
      rest = Math.floor(rest / size);
    }
    return index;
  };
}
