// An executable specification of what a well-formed graph is. Run after tracing and, in tests, after every pass.

import { Dim, sameShape } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { specText } from "../spec.ts";
import type { Graph } from "./graph.ts";
import { inferOutputs, isOp } from "./op.ts";
import type { AnyTensor, Node } from "./tensor.ts";

/** Checks that a graph is well formed. @throws GraphError naming the first node that breaks a rule */
export function verify(graph: Graph): void {
  const defined = new Set<AnyTensor>(Object.values(graph.inputTensors));
  if (defined.size !== Object.keys(graph.inputTensors).length) {
    throw new GraphError("verify: two inputs of the graph are one tensor");
  }
  const symbols = graph.symbols;

  for (const node of graph.nodes) {
    const { op } = node;
    const fail = (what: string): never => {
      throw new GraphError(`verify: node ${op.name}: ${what}`);
    };
    if (!isOp(op)) fail("its op was not made by definePrimitive or defineComposite");
    if (op.kind === "primitive" ? !op.infer || !op.reference || !op.vjp : !op.compose) fail("its op lacks rules");
    for (const [name, tensor] of Object.entries(node.inputs)) {
      if (!defined.has(tensor)) fail(`input "${name}" is used before it is computed`);
    }
    for (const [name, value] of Object.entries(node.attributes)) {
      if (!isPlain(value)) fail(`attribute "${name}" is not plain data`);
    }
    const expected = inferOutputs(op, node.inputs, node.attributes);
    for (const name of Object.keys(expected)) {
      if (node.outputs[name] === undefined) fail(`lacks an output "${name}" that its rules give`);
    }
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const spec = expected[name];
      if (spec === undefined) fail(`has an output "${name}" that its rules do not give`);
      else if (spec.dtype !== tensor.dtype || !sameShape(spec.shape, tensor.shape)) {
        fail(`output "${name}" is ${specText(tensor)}, its rules give ${specText(spec)}`);
      }
      if (tensor.node !== node || tensor.output !== name) fail(`output "${name}" belongs to another node`);
      for (const size of tensor.shape) {
        if (size.value !== undefined) continue;
        const unknown = [...size.symbols].find((symbol) => !symbols.has(symbol));
        if (unknown !== undefined) fail(`dim "${unknown}" is in the shape of no input, so nothing can bind it`);
      }
      defined.add(tensor);
    }
  }
  for (const tensor of Object.values(graph.outputTensors)) {
    if (!defined.has(tensor)) throw new GraphError(`verify: an output of ${tensor.node.op.name} is never computed`);
  }
  verifyInPlace(graph);
}

/** What can be compared, printed and bound. */
function isPlain(value: unknown): boolean {
  if (value === undefined || value === null || ["number", "string", "boolean"].includes(typeof value)) return true;
  if (typeof value !== "object") return false;
  if (Dim.is(value) || ArrayBuffer.isView(value)) return true;
  if (Array.isArray(value)) return value.every(isPlain);
  return Object.getPrototypeOf(value) === Object.prototype && Object.values(value).every(isPlain);
}

/** Where a node overwrites a tensor, every other reader of that must be something that the node itself waits for. */
function verifyInPlace(graph: Graph): void {
  const writers = graph.nodes.filter((node) => node.overwrites !== undefined);
  if (writers.length === 0) return;
  const results = new Set(Object.values(graph.outputTensors));
  const readers = new Map<AnyTensor, Node[]>();
  for (const node of graph.nodes) {
    for (const tensor of Object.values(node.inputs)) {
      const known = readers.get(tensor);
      if (known) known.push(node);
      else readers.set(tensor, [node]);
    }
  }
  for (const node of writers) {
    const tensor = node.overwrites;
    if (tensor === undefined) continue;
    const all = readers.get(tensor) ?? [];
    const others = all.toSpliced(all.indexOf(node), 1);
    const waitsFor = others.length > 0 ? ancestors(node) : new Set<Node>();
    if (results.has(tensor) || !others.every((other) => waitsFor.has(other))) {
      throw new GraphError(
        `verify: ${node.op.name} overwrites "${node.op.inPlace}", so whatever else reads it must come before by need`,
      );
    }
  }
}

function ancestors(node: Node): ReadonlySet<Node> {
  const found = new Set<Node>();
  const pending = [node];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    for (const input of Object.values(next.inputs)) {
      if (found.has(input.node)) continue;
      found.add(input.node);
      pending.push(input.node);
    }
  }
  return found;
}
