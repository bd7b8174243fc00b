// Sums that the operation before them can take along: a product's addend, the gradient that passes by a norm, and what rows are
// added to.

import {
  type AnyTensor,
  addOp,
  applyOp,
  castOp,
  constantOp,
  type Graph,
  matmulOp,
  mulOp,
  type Node,
  rmsNormBackwardOp,
  scatterAddOp,
  sizesOf,
} from "@sisa/core";
import { addRowsOp, productAddOp, rmsNormBackwardAddOp } from "./operations.ts";
import { type Lookup, mapped, once, readersOf, replaceTensors } from "./replace.ts";

export function joinSums(graph: Graph): Graph {
  const readers = readersOf(graph);
  const replacements = new Map<AnyTensor, (lookup: Lookup) => AnyTensor>();
  const position = new Map(graph.nodes.map((node, index) => [node, index]));
  for (const node of graph.nodes) {
    const { value } = node.outputs;
    if (value && isTimesOne(node)) replacements.set(value, (lookup) => lookup(node.inputs.a as AnyTensor));
    const { a, b } = node.inputs;
    if (node.op !== addOp || !value || !a || !b || a === b || !isAlike(a, value) || !isAlike(b, value)) continue;
    // The later of the two takes the earlier one along.
    const [first, last] = (position.get(a.node) ?? -1) < (position.get(b.node) ?? -1) ? [a, b] : [b, a];
    if (readers.get(last)?.length !== 1 || replacements.has(last)) continue;
    if (last.node.op === matmulOp) replacements.set(value, withAddend(last.node, first));
    if (last.node.op === scatterAddOp) {
      const { updates, ids } = last.node.inputs as { readonly updates: AnyTensor; readonly ids: AnyTensor };
      replacements.set(value, (lookup) => {
        const inputs = { addend: lookup(first), updates: lookup(updates), ids: lookup(ids) };
        return applyOp(addRowsOp, inputs, {}, last.node.tag).value as AnyTensor;
      });
    }
    if (last.node.op === rmsNormBackwardOp && last.output === "x") {
      const together = once((lookup) => {
        const inputs = { ...mapped(last.node.inputs, lookup), addend: lookup(first) };
        return applyOp(rmsNormBackwardAddOp, inputs, last.node.attributes, last.node.tag);
      });
      replacements.set(value, (lookup) => together(lookup).x as AnyTensor);
      const { weight } = last.node.outputs;
      if (weight) replacements.set(weight, (lookup) => together(lookup).weight as AnyTensor);
    }
  }
  return replaceTensors(graph, replacements);
}

function withAddend({ inputs, attributes, tag }: Node, addend: AnyTensor) {
  const { transposeA, transposeB } = attributes;
  return (lookup: Lookup): AnyTensor => {
    const { a, b } = inputs as { readonly a: AnyTensor; readonly b: AnyTensor };
    const operands = { a: lookup(a), b: lookup(b), addend: lookup(addend) };
    return applyOp(productAddOp, operands, { transposeA, transposeB }, tag).value as AnyTensor;
  };
}

function isAlike(a: AnyTensor, b: AnyTensor): boolean {
  const narrow = a.node.op !== matmulOp || a.dtype === a.node.inputs.a?.dtype;
  return narrow && a.dtype === b.dtype && sizesOf(a.shape).join() === sizesOf(b.shape).join();
}

/** A product with the constant 1, such as the gradient of a loss by itself, in whatever dtype. */
function isTimesOne({ op, inputs: { a, b }, outputs: { value } }: Node): boolean {
  if (op !== mulOp || !a || !b || b.shape.length > 0 || a.dtype !== value?.dtype) return false;
  const source = b.node.op === castOp ? b.node.inputs.x?.node : b.node;
  const { data } = (source?.op === constantOp ? source.attributes : {}) as { readonly data?: ArrayLike<number> };
  return data?.[0] === 1;
}
