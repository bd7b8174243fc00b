// One step of several sequences at once, each with caches of its own: what all tokens go through alike is computed for
// all lanes together, what looks at a cache lane by lane, where that cache lies.
//
// A cache of all lanes in one tensor would have to be brought into another order for every product with it; caches of
// their own are read in place, and a sequence can join or leave without any being moved. Attention itself is one operation
// for all lanes where a compiler of open sizes tells that the caches lie apart; else it is one for each.
//
// There, what looks at a cache has a row more than there are tokens, which nobody reads: products of one row add in another
// order than those of several, and a token's result must not depend on how many come with it. Products with weights have
// one order for any number of rows, where a backend knows the weights when it compiles.

import {
  type AnyTensor,
  applyOp,
  attentionOp,
  bindAttributes,
  concat,
  constantOp,
  decayAttentionOp,
  Graph,
  inputTensor,
  type Node,
  pad,
  type StepGraph,
  simplify,
  slice,
  type Tensor,
  type TensorSpec,
  verify,
} from "@sisa/core";

/** Name of a lane's cache among the inputs and outputs. */
export function laneCache(lane: number, name: string): string {
  return `lane${lane}.${name}`;
}

/** A tensor of all lanes together, or one for each lane. */
type Placed = AnyTensor | readonly AnyTensor[];

/** Attention of which a compiler may do all but its products for all lanes at once. */
const attentions: ReadonlySet<unknown> = new Set([attentionOp, decayAttentionOp]);

/**
 * A model's step for a number of lanes.
 *
 * Inputs: `ids` int32 [lanes,T], `start` int32 [lanes], `places` int32 [R], and for each lane its caches [1,C,...] by
 * `laneCache`; the parameters. Outputs: `logits` [R,V], where form `sdpa` is used `decaySpan` [lanes], and the caches.
 *
 * @param graph          `model.stepGraph()`, in any precision
 * @param cacheNames     its inputs that are caches
 * @param isOpen         whether the sizes of runs stay open: then there is one attention for all lanes, of caches that are
 *                       put together in the graph, and a row more
 */
export function laneGraph(
  graph: StepGraph,
  cacheNames: readonly string[],
  { lanes, capacity }: { readonly lanes: number; readonly capacity: number },
  isOpen: boolean,
): Graph {
  const attendTogether = isOpen && lanes > 1;
  const caches = new Set(cacheNames);
  const together = { B: lanes, C: capacity };
  const alone = { B: 1, C: capacity };
  const placed = new Map<AnyTensor, Placed>();
  const padded = new Map<AnyTensor, AnyTensor>();
  const inputs: Record<string, AnyTensor> = {};

  for (const [name, tensor] of Object.entries(graph.inputTensors)) {
    if (!caches.has(name)) {
      inputs[name] = inputTensor(name, bound(tensor, together));
      placed.set(tensor, inputs[name]);
      continue;
    }
    const own = Array.from({ length: lanes }, (_, lane) => {
      const full = laneCache(lane, name);
      const input = inputTensor(full, bound(tensor, alone));
      inputs[full] = input;
      return input;
    });
    placed.set(tensor, own);
  }

  for (const node of graph.nodes) {
    const isTogether = attendTogether && attentions.has(node.op);
    const results = !isApart(node, placed) ? whole(node) : isTogether ? attended(node) : byLane(node);
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const result = results[name];
      if (result !== undefined) placed.set(tensor, result);
    }
  }

  const outputs: Record<string, AnyTensor> = {};
  for (const [name, tensor] of Object.entries(graph.outputTensors)) {
    const result = placed.get(tensor);
    if (result === undefined) continue;
    if (!caches.has(name)) outputs[name] = joined(result);
    else for (let lane = 0; lane < lanes; lane++) outputs[laneCache(lane, name)] = partOf(result, lane, lanes);
  }
  const result = new Graph(inputs, outputs);
  verify(result);
  return simplify(result);

  function whole(node: Node): Record<string, Placed> {
    const operands = Object.entries(node.inputs).map(([name, tensor]) => [name, joined(placed.get(tensor) ?? tensor)]);
    return { ...applyOp(node.op, Object.fromEntries(operands), bindAttributes(node.attributes, together), node.tag) };
  }

  /** The node once, with a row more where it has one for every token. */
  function attended(node: Node): Record<string, Placed> {
    const operands = Object.entries(node.inputs).map(([name, tensor]) => {
      const value = placed.get(tensor) ?? tensor;
      return [name, isPerToken(tensor) ? withRow(tensor, value) : joined(value)];
    });
    const results = applyOp(node.op, Object.fromEntries(operands), bindAttributes(node.attributes, together), node.tag);
    return { value: slice(results.value as Tensor, { axis: 1, end: "T" }) };
  }

  /** The node once for each lane. What it gives stays apart where it is as long as a cache. */
  function byLane(node: Node): Record<string, Placed> {
    const attributes = bindAttributes(node.attributes, alone);
    const looks = Object.values(node.outputs).some(isPerToken);
    const results = Array.from({ length: lanes }, (_, lane) => {
      const operands = Object.entries(node.inputs).map(([name, tensor]) => {
        const value = placed.get(tensor) ?? tensor;
        if (isOpen && looks && isPerToken(tensor)) return [name, partOf(withRow(tensor, value), lane, lanes)];
        return [name, hasLanes(tensor) ? partOf(value, lane, lanes) : joined(value)];
      });
      return applyOp(node.op, Object.fromEntries(operands), attributes, node.tag);
    });
    return Object.fromEntries(
      Object.entries(node.outputs).map(([name, tensor]) => {
        const parts = results.flatMap((result) => result[name] ?? []);
        if (isLong(tensor)) return [name, parts];
        const isLonger = isOpen && isPerToken(tensor);
        return [name, isLonger ? slice(joined(parts) as Tensor, { axis: 1, end: "T" }) : joined(parts)];
      }),
    );
  }

  /** A row of zeros more, once for all that look at a cache with it. */
  function withRow(tensor: AnyTensor, value: Placed): AnyTensor {
    const known = padded.get(tensor) ?? pad(joined(value) as Tensor, { axis: 1, after: 1 });
    padded.set(tensor, known);
    return known;
  }
}

/** True for a node that reads a value which each lane has for itself. */
function isApart(node: Node, placed: ReadonlyMap<AnyTensor, Placed>): boolean {
  return node.op !== constantOp && Object.values(node.inputs).some((tensor) => Array.isArray(placed.get(tensor)));
}

function hasLanes({ shape }: TensorSpec): boolean {
  return shape[0]?.text === "B";
}

/** True for what has a row for every token of a run. */
function isPerToken({ shape }: TensorSpec): boolean {
  return shape[0]?.text === "B" && shape[1]?.text === "T";
}

/** True for what has a row for every token of a sequence. */
function isLong({ shape }: TensorSpec): boolean {
  return shape.some((size) => size.symbols.has("C"));
}

function bound({ dtype, shape }: TensorSpec, symbols: Readonly<Record<string, number>>): TensorSpec {
  return { dtype, shape: shape.map((size) => size.bind(symbols)) };
}

function joined(value: Placed): AnyTensor {
  if (!Array.isArray(value)) return value as AnyTensor;
  const parts = value as readonly Tensor[];
  return parts.length === 1 && parts[0] ? parts[0] : concat(parts, { axis: 0 });
}

function partOf(value: Placed, lane: number, lanes: number): AnyTensor {
  if (Array.isArray(value)) return value[lane] as AnyTensor;
  if (lanes === 1) return value as AnyTensor;
  return slice(value as Tensor, { axis: 0, start: lane, end: lane + 1 });
}
