// The operations that core exports, found at run time, so that none can be forgotten.

import * as core from "@sisa/core";
import { type Graph, isOp, kindOf, type Op, type TensorSpec } from "@sisa/core";

/** By name, in alphabetical order. */
export const operations: ReadonlyMap<string, Op> = new Map(
  (Object.values(core) as readonly unknown[])
    .filter(isOp)
    .map((op): [string, Op] => [op.name, op])
    .sort(([a], [b]) => (a < b ? -1 : 1)),
);

/**
 * Why a graph cannot be differentiated because of this operation; undefined where it can be, which includes operations
 * that only take or only give whole numbers, truth values or sizes.
 */
export function noGradientReason(name: string, graph: Graph): string | undefined {
  const vjp = operations.get(name)?.vjp;
  if (typeof vjp !== "object") return undefined;
  const isFloat = ({ dtype }: TensorSpec) => kindOf(dtype) === "float";
  const inTheWay = graph.nodes.some(
    ({ op, inputs, outputs }) =>
      op.name === name && Object.values(inputs).some(isFloat) && Object.values(outputs).some(isFloat),
  );
  return inTheWay ? vjp.reason : undefined;
}
