// Precision as a pass: layers are written for floats of any width, a policy says which widths they get.

import type { DType } from "../dtype.ts";
import { kindOf } from "../dtype.ts";
import { cacheWriteOp } from "../ops/cache-write.ts";
import { cast, castOp } from "../ops/cast.ts";
import { constantOp } from "../ops/constant.ts";
import { gatherOp } from "../ops/gather.ts";
import { matmulOp } from "../ops/matmul.ts";
import { reshapeOp } from "../ops/reshape.ts";
import { ropeOp } from "../ops/rope.ts";
import { alignGates } from "./align-gates.ts";
import { Graph, type GraphInputs, type GraphOutputs, inputOp, inputTensor, rebuild, rewrite } from "./graph.ts";
import { applyOp, type OpInputs, type OpOutputs } from "./op.ts";
import { pickOutputs } from "./passes.ts";
import type { AnyTensor, Node, Tensor } from "./tensor.ts";

/**
 * `float32`: everything. `bfloat16`: products and what flows between them are bfloat16; norms, softmax, running sums,
 * decays, phases, lambda and losses are float32, and so are parameters and their gradients. `float16`: the same with
 * float16, whose range is so small that a loss is scaled before it is differentiated. `paper`: as `bfloat16`, with
 * tables of positions rounded too; in training, parameters, gradients and moments are rounded as well, as in the code of
 * the paper, so that small updates are lost.
 */
export type Precision = "float32" | "bfloat16" | "float16" | "paper";

/** Names of all precisions. */
export const precisions = ["float32", "bfloat16", "float16", "paper"] as const satisfies readonly Precision[];

/** What a precision narrows to; undefined where it narrows nothing. */
export function narrowDType(precision: Precision): "bfloat16" | "float16" | undefined {
  if (precision === "float32") return undefined;
  return precision === "float16" ? "float16" : "bfloat16";
}

/** Inputs that are narrowed, by operation. Products are as wide as what they multiply; their sums are float32. */
const narrowed: { readonly [op: string]: readonly string[] } = {
  attention: ["q", "k", "v"],
  decayAttention: ["q", "k", "v", "cRotated", "bRotated"],
  gather: ["table"],
  linearCrossEntropy: ["x", "weight"],
  matmul: ["a", "b"],
  rope: ["x"],
  rotate: ["x"],
  sisaAttention: ["q", "k", "v", "c", "b"],
  ssmPrepare: ["c", "b"],
  swiglu: ["gate", "up"],
};

/** Operations that take what comes as it is: they move elements, or widen by themselves where they compute. */
const asGiven: ReadonlySet<string> = new Set([
  "broadcastTo",
  "chunk",
  "pad",
  "reshape",
  "rmsNorm",
  "slice",
  "split",
  "takeRow",
  "transpose",
  "unchunk",
]);

/** Operations that stay narrow where all of their floats are, and widen all of them where one is wide. */
const joined: ReadonlySet<string> = new Set(["add", "concat", "maximum", "minimum", "mul", "sub", "where"]);

/**
 * Gives a graph the widths of a policy; to be applied to the forward pass, before it is differentiated. Inputs and
 * outputs keep their dtypes, but for caches that nothing reads wide: those are kept narrow. Operations that no rule
 * names are computed in float32, so that an operation that is new is slow and not wrong.
 */
export function applyPrecision<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  precision: Precision,
): Graph<I, O> {
  const narrow = narrowDType(precision);
  if (narrow === undefined) return graph;
  const roundsTables = precision === "paper";
  const caches = narrowCaches(graph);
  // With inputs of its own, since only then may what takes a node's place have another dtype.
  const changed = rewrite(graph, (node, inputs) => narrowNode(node, inputs, narrow, roundsTables), {
    mapInput: (spec, name) => (caches.has(graph.inputTensors[name]) ? { ...spec, dtype: narrow } : spec),
  });
  const outputs = Object.fromEntries(
    Object.entries(changed.outputTensors).map(([name, tensor]) => {
      const old = graph.outputTensors[name];
      if (old?.node.op === cacheWriteOp && caches.has(old.node.inputs.cache)) return [name, tensor];
      const dtype = old?.dtype ?? tensor.dtype;
      return [name, dtype === "float32" ? widened(tensor) : (cast(tensor, dtype) as AnyTensor)];
    }),
  );
  return new Graph(
    changed.inputTensors as { readonly [N in keyof I]: AnyTensor },
    outputs as { readonly [N in keyof O]: AnyTensor },
  );
}

/**
 * A forward graph in a precision, with even gates where products are narrow: those are for GPUs, whose speed depends on
 * even widths.
 */
export function inPrecision<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  precision: Precision,
): Graph<I, O> {
  return precision === "float32" ? graph : applyPrecision(alignGates(graph), precision);
}

/** Inputs that are written to and then read by operations that narrow what they read, and not read before that. */
function narrowCaches(graph: Graph): ReadonlySet<AnyTensor | undefined> {
  const readers = new Map<AnyTensor, (readonly [node: Node, input: string])[]>();
  for (const node of graph.nodes) {
    for (const [input, tensor] of Object.entries(node.inputs)) {
      readers.set(tensor, [...(readers.get(tensor) ?? []), [node, input]]);
    }
  }
  const isReadNarrow = (tensor: AnyTensor): boolean => {
    const all = readers.get(tensor) ?? [];
    return all.length > 0 && all.every(([node, input]) => narrows(node, input));
  };
  const narrows = ({ op, outputs }: Node, input: string): boolean =>
    narrowed[op.name]?.includes(input) === true ||
    (asGiven.has(op.name) && Object.values(outputs).every((output) => isReadNarrow(output)));
  const caches = graph.nodes.flatMap((node) => {
    const { cache } = node.inputs;
    const { value } = node.outputs;
    if (node.op !== cacheWriteOp || cache?.node.op !== inputOp || cache.dtype !== "float32" || !value) return [];
    return readers.get(cache)?.length === 1 && isReadNarrow(value) ? [cache] : [];
  });
  return new Set(caches);
}

function narrowNode(
  node: Node,
  inputs: { readonly [name: string]: AnyTensor },
  narrow: DType,
  roundsTables: boolean,
): OpOutputs {
  const { name } = node.op;
  // A table that is no input is one of positions, or of pages: not of weights.
  const source = node.inputs.table?.node.op;
  const isTable = node.op === gatherOp && (source === constantOp || source === cacheWriteOp);
  if (asGiven.has(name) || isTable) return rebuild(node, inputs);
  if (node.op === cacheWriteOp && isNarrow(inputs.cache)) {
    return applyOp(node.op, { ...inputs, update: cast(inputs.update as Tensor, narrow) }, node.attributes, node.tag);
  }
  if (joined.has(name)) {
    const floats = Object.values(inputs).filter(isFloat);
    if (floats.every(({ dtype }) => dtype === narrow)) return rebuild(node, inputs);
  }
  const narrowInputs = narrowed[name] ?? [];
  const given: OpInputs = Object.fromEntries(
    Object.entries(inputs).map(([input, tensor]) => {
      if (!isFloat(tensor) || tensor.dtype === "float64") return [input, tensor];
      const isRotation = node.op === ropeOp && input !== "x";
      if (isRotation && roundsTables) return [input, inBfloat16(tensor as Tensor)];
      return [input, narrowInputs.includes(input) ? (cast(tensor, narrow) as AnyTensor) : widened(tensor)];
    }),
  );
  return applyOp(node.op, given, node.attributes, node.tag);
}

/** The values that bfloat16 has, as float32: [...] to [...]. */
export function inBfloat16(x: Tensor): Tensor {
  return cast(cast(x, "bfloat16"), "float32") as Tensor;
}

function isFloat({ dtype }: AnyTensor): boolean {
  return kindOf(dtype) === "float";
}

function isNarrow(tensor: AnyTensor | undefined): boolean {
  return tensor?.dtype === "bfloat16" || tensor?.dtype === "float16";
}

/** A value in float32. A product gives its sums as they are, instead of rounding them on the way. */
function widened(tensor: AnyTensor): AnyTensor {
  if (!isNarrow(tensor)) return tensor;
  const { node } = tensor;
  if (node.op === reshapeOp) {
    const [x] = Object.values(node.inputs);
    const { value } = x ? applyOp(node.op, { x: widened(x) }, node.attributes, node.tag) : {};
    if (value) return value;
  }
  if (node.op === matmulOp) {
    const { value } = applyOp(node.op, node.inputs, { ...node.attributes, dtype: "float32" }, node.tag);
    if (value) return value;
  }
  return cast(tensor, "float32") as AnyTensor;
}

/** What the narrow copy of an input is called. */
export const shadowName = (input: string): string => `shadow.${input}`;

/**
 * Takes the narrow copies of inputs from inputs of their own, `shadow.<input>`, instead of making them in every run:
 * whoever changes the input keeps its copy. Inputs that nothing else reads are left out.
 *
 * @param names inputs that have copies
 * @returns the graph, and the names of the inputs whose copies it takes
 */
export function takeShadows(
  graph: Graph,
  names: readonly string[],
): { readonly graph: Graph; readonly shadowed: readonly string[] } {
  const ofInput = new Map(names.map((name) => [graph.inputTensors[name], name] as const));
  const shadows = new Map<string, AnyTensor>();
  for (const node of graph.nodes) {
    const name = copiedInput(node, ofInput);
    if (name === undefined || shadows.has(name)) continue;
    const shape = graph.inputTensors[name]?.shape ?? [];
    shadows.set(name, inputTensor(shadowName(name), { dtype: node.outputs.value?.dtype, shape } as AnyTensor));
  }
  const inputs = Object.fromEntries([...shadows].map(([name, tensor]) => [shadowName(name), tensor]));
  const open = new Graph({ ...graph.inputTensors, ...inputs }, graph.outputTensors, graph.nodes);
  const taken = rewrite(open, (node, mapped) => {
    const name = copiedInput(node, ofInput);
    const shadow = name === undefined ? undefined : shadows.get(name);
    return shadow === undefined ? rebuild(node, mapped) : { value: shadow };
  });
  return { graph: pickOutputs(taken, Object.keys(taken.outputs)), shadowed: [...shadows.keys()] };
}

/** The input whose narrow copy a node makes. */
function copiedInput(node: Node, ofInput: ReadonlyMap<AnyTensor | undefined, string>): string | undefined {
  return node.op === castOp && isNarrow(node.outputs.value) ? ofInput.get(node.inputs.x) : undefined;
}
