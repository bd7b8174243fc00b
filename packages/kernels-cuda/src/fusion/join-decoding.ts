// What a step of decoding does between its products: attention to a cache with all that belongs to it, and products of few
// rows with the norm before them.

import {
  type AnyTensor,
  attentionOp,
  constantOp,
  decayAttentionOp,
  type Graph,
  matmulOp,
  maximumOp,
  type Node,
  rmsNormOp,
  sameShape,
  sizesOf,
  swigluOp,
  type TensorSpec,
  takeRowOp,
} from "@sisa/core";
import { decodeStepOp, normGatesOp, normProductOp } from "./decoding-operations.ts";
import { type Candidate, joinComposites } from "./match.ts";
import { readersOf } from "./replace.ts";

/** Rows of x up to which a product is bound by reading W; mostRows in kernels/few-rows.cuh. */
export const mostRows = 8;

/** Attention of tokens to caches, and gates of few rows: in the graph as it is given, of composites. */
export function joinDecoding(graph: Graph): Graph {
  return joinComposites(graph, (node) => stepAt(node) ?? gatesAt(node));
}

/** Products of few rows with the norm before them, once those of one x are one. */
export function joinNorms(graph: Graph): Graph {
  const readers = readersOf(graph);
  return joinComposites(graph, (node) => {
    const { a, b } = node.inputs;
    const taken = a?.node.op === takeRowOp ? a.node.inputs.x : undefined;
    const normed = taken ?? a;
    if (!isProjection(node) || !b || !normed || !isNorm(normed)) return undefined;
    const { x, weight: norm } = normed.node.inputs;
    const others = (readers.get(normed) ?? []).filter(
      (reader) => reader && reader !== node && isProjection(reader) && reader.outputs.value?.dtype === "float32",
    );
    const isWide = node.outputs.value?.dtype !== x?.dtype;
    const [wide] = taken || isWide || others.length > 1 ? [] : others;
    const row = taken && a?.node.inputs.row;
    const unclamped = row && fromZero(row);
    const isFromZero = unclamped !== undefined;
    return {
      op: normProductOp,
      inputs: { x, norm, weight: b, wideWeight: wide?.inputs.b, row: unclamped ?? row },
      attributes: { epsilon: normed.node.attributes.epsilon, dtype: node.outputs.value?.dtype, isFromZero },
      output: "value",
    };
  });
}

/** What a tensor is the larger of, it or 0; undefined where it is something else. */
function fromZero({ shape, node: { op, inputs } }: AnyTensor): AnyTensor | undefined {
  const { a, b } = inputs;
  if (op !== maximumOp || !a || !b || !sameShape(a.shape, shape)) return undefined;
  const { data } = b.node.attributes as { readonly data?: ArrayLike<number> };
  return b.node.op === constantOp && data && Array.from(data).every((x) => x === 0) ? a : undefined;
}

/** x W^T of few rows. */
function isProjection({ op, inputs: { a, b }, attributes }: Node): boolean {
  return (
    op === matmulOp &&
    a !== undefined &&
    b?.shape.length === 2 &&
    attributes.transposeB === true &&
    !attributes.transposeA &&
    hasFewRows(a)
  );
}

function hasFewRows({ shape }: TensorSpec): boolean {
  const rows = sizesOf(shape.slice(0, -1)).reduce((a, b) => a * b, 1);
  return rows > 0 && rows <= mostRows;
}

function isNorm(tensor: AnyTensor | undefined): boolean {
  return tensor?.node.op === rmsNormOp;
}

function gatesAt({ op, inputs: { gate, up } }: Node): Candidate | undefined {
  if (op !== swigluOp || !gate || !up || !isProjection(gate.node) || !isProjection(up.node)) return undefined;
  const normed = gate.node.inputs.a;
  if (!normed || !isNorm(normed)) return undefined;
  const { x, weight: norm } = normed.node.inputs;
  return {
    op: normGatesOp,
    inputs: { x, norm, gate: gate.node.inputs.b, up: up.node.inputs.b },
    attributes: { epsilon: normed.node.attributes.epsilon },
    output: "value",
  };
}

function stepAt({ op, inputs, attributes }: Node): Candidate | undefined {
  const { q, k, v, gKey, bRotated, cRotated, lambda, queryStart: start, pages } = inputs;
  if ((op !== attentionOp && op !== decayAttentionOp) || !q || !k || !v || !start) return undefined;
  const [B, T, H] = q.shape;
  if (!B || !H || T?.value === undefined) return undefined;
  const table = (name: string): TensorSpec | undefined => {
    const rows = q.node.inputs[name]?.node.inputs.x?.node;
    return rows?.inputs.table;
  };
  const float = (...shape: TensorSpec["shape"]): TensorSpec => ({ dtype: "float32", shape });
  const half = bRotated?.shape[3]?.ceilDiv(2);
  const newest = (cache: TensorSpec): TensorSpec => ({ dtype: cache.dtype, shape: [B, T, ...cache.shape.slice(2)] });
  const states = gKey &&
    bRotated &&
    half && {
      c: cRotated,
      b: newest(bRotated),
      strength: float(B, T, H),
      bias: float(H),
      phase: float(B, T, H, half),
      lambda,
      importances: bRotated,
      decays: gKey,
      phases: float(...gKey.shape, half),
    };
  return {
    op: decodeStepOp,
    inputs: {
      q,
      k: newest(k),
      v: newest(v),
      start,
      pages,
      keys: k,
      values: v,
      cosine: table("cos"),
      sine: table("sin"),
      ...states,
    },
    attributes: { scale: attributes.scale },
    output: "value",
    given: [
      "start",
      ...(pages ? ["pages"] : []),
      "keys",
      "values",
      ...(states ? ["importances", "decays", "phases"] : []),
    ],
  };
}
