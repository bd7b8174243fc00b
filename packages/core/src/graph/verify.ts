// An executable specification of what a well-formed graph is. Run after tracing and, in tests, after every pass.

import { sameShape } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { specText } from "../spec.ts";
import type { Graph } from "./graph.ts";
import { inferOutputs, isOp } from "./op.ts";
import type { AnyTensor } from "./tensor.ts";

/** @throws GraphError naming the first node that breaks a rule */
export function verify(graph: Graph): void {
  const defined = new Set<AnyTensor>(Object.values(graph.inputTensors));
  if (defined.size !== Object.keys(graph.inputTensors).length) {
    throw new GraphError("verify: two inputs of the graph are one tensor");
  }
  const readers = new Map<AnyTensor, number>();
  const read = (tensor: AnyTensor) => readers.set(tensor, (readers.get(tensor) ?? 0) + 1);

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
      read(tensor);
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
    read(tensor);
  }
  for (const node of graph.nodes) {
    const replaced = node.op.inPlace === undefined ? undefined : node.inputs[node.op.inPlace];
    if (replaced !== undefined && (readers.get(replaced) ?? 0) > 1) {
      throw new GraphError(
        `verify: ${node.op.name} overwrites "${node.op.inPlace}", so nothing else may read the old one`,
      );
    }
  }
}
