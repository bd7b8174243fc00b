// An executable specification of what a well-formed graph is. Run after tracing and, in tests, after every pass.

import { sameShape } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { specText } from "../spec.ts";
import type { Graph } from "./graph.ts";
import { inferOutputs, isOp } from "./op.ts";
import type { AnyTensor, Node } from "./tensor.ts";

/** @throws GraphError naming the first node that breaks a rule */
export function verify(graph: Graph): void {
  const defined = new Set<AnyTensor>(Object.values(graph.inputTensors));
  if (defined.size !== Object.keys(graph.inputTensors).length) {
    throw new GraphError("verify: two inputs of the graph are one tensor");
  }

  for (const node of graph.nodes) {
    const { op } = node;
    const fail = (what: string): never => {
      throw new GraphError(`verify: node ${op.name}: ${what}`);
    };
    if (!isOp(op)) fail("its op was not made by definePrimitive or defineComposite");
    if (op.kind === "primitive" ? !op.infer || !op.reference || !op.vjp : !op.compose) fail("its op lacks rules");
    if (op.inputs !== "...") {
      const known = op.inputs.map((name) => name.replace("?", ""));
      for (const name of Object.keys(node.inputs)) if (!known.includes(name)) fail(`unknown input "${name}"`);
      for (const name of op.inputs) {
        if (!name.endsWith("?") && node.inputs[name] === undefined) fail(`input "${name}" is missing`);
      }
    }
    for (const [name, tensor] of Object.entries(node.inputs)) {
      if (!defined.has(tensor)) fail(`input "${name}" is used before it is computed`);
    }
    const expected = inferOutputs(op, node.inputs, node.attributes);
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const spec = expected[name];
      if (spec === undefined) fail(`has an output "${name}" that its rules do not give`);
      else if (spec.dtype !== tensor.dtype || !sameShape(spec.shape, tensor.shape)) {
        fail(`output "${name}" is ${specText(tensor)}, its rules give ${specText(spec)}`);
      }
      if (tensor.node !== node || tensor.output !== name) fail(`output "${name}" belongs to another node`);
      defined.add(tensor);
    }
  }
  for (const tensor of Object.values(graph.outputTensors)) {
    if (!defined.has(tensor)) throw new GraphError(`verify: an output of ${tensor.node.op.name} is never computed`);
  }
  for (const node of graph.nodes) {
    const replaced = node.op.inPlace === undefined ? undefined : node.inputs[node.op.inPlace];
    if (replaced !== undefined && !readEarlier(graph, node, replaced)) {
      throw new GraphError(
        `verify: ${node.op.name} overwrites "${node.op.inPlace}", so whatever else reads it must come before by need`,
      );
    }
  }
}

/** True where every other reader of a tensor is something that the node itself waits for. */
function readEarlier(graph: Graph, node: Node, tensor: AnyTensor): boolean {
  const reads = (other: Node) => Object.values(other.inputs).includes(tensor);
  const others = graph.nodes.filter((other) => other !== node && reads(other));
  if (Object.values(graph.outputTensors).includes(tensor)) return false;
  if (others.length === 0) return true;
  const waitsFor = new Set<Node>();
  const pending: Node[] = Object.values(node.inputs).map((input) => input.node);
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (waitsFor.has(next)) continue;
    waitsFor.add(next);
    pending.push(...Object.values(next.inputs).map((input) => input.node));
  }
  return others.every((other) => waitsFor.has(other));
}
