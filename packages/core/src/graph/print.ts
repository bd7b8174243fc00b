// The text form of graphs: readable, stable, one line per node. Scalars stand where they are used.

import { Dim } from "../dim.ts";
import { specText } from "../spec.ts";
import type { Graph } from "./graph.ts";
import type { AnyTensor, Node } from "./tensor.ts";

export function printGraph(graph: Graph): string {
  const names = new Map<AnyTensor, string>();
  for (const [name, tensor] of Object.entries(graph.inputTensors)) names.set(tensor, name);

  const lines: { readonly left: string; readonly right: string }[] = [];
  for (const node of graph.nodes) {
    const literal = scalarText(node);
    const own = literal ?? `%${lines.length}`;
    const outputs = Object.entries(node.outputs);
    for (const [name, tensor] of outputs) names.set(tensor, outputs.length === 1 ? own : `${own}.${name}`);
    if (literal !== undefined) continue;
    const text = (name: string, tensor: AnyTensor) => {
      const value = names.get(tensor) ?? "?";
      return node.op.inputs !== "..." && node.op.inputs.length > 2 ? `${name}=${value}` : value;
    };
    const inputs = Object.entries(node.inputs).map(([name, tensor]) => text(name, tensor));
    const attributes = Object.entries(node.attributes)
      .filter(([, value]) => value !== undefined && value !== false)
      .map(([name, value]) => `${name}=${attributeText(value)}`);
    const settings = attributes.length > 0 ? ` {${attributes.join(", ")}}` : "";
    const tag = node.tag === undefined ? "" : ` @${node.tag}`;
    const types = outputs.map(([name, tensor]) => (outputs.length === 1 ? "" : `${name} `) + specText(tensor));
    lines.push({
      left: `%${lines.length} = ${node.op.name}(${inputs.join(", ")})${settings}${tag}`,
      right: types.join(", "),
    });
  }

  const width = Math.min(72, Math.max(0, ...lines.map(({ left }) => left.length)));
  const list = (specs: Graph["inputs"]) => Object.entries(specs).map(([name, spec]) => `${name}: ${specText(spec)}`);
  const results = Object.entries(graph.outputTensors).map(([name, tensor]) => {
    const value = names.get(tensor) ?? "?";
    return `${name}: ${specText(tensor)} = ${value}`;
  });
  return [
    `graph(${list(graph.inputs).join(", ")}) {`,
    ...lines.map(({ left, right }) => `  ${left.padEnd(width)} : ${right}`),
    `} -> ${results.join(", ")}`,
  ].join("\n");
}

/** Constants with one element are written as their value. */
function scalarText(node: Node): string | undefined {
  const { data } = node.attributes;
  const { value } = node.outputs;
  if (Object.keys(node.inputs).length > 0 || !ArrayBuffer.isView(data) || value?.shape.length !== 0) return undefined;
  return attributeText(data);
}

function attributeText(value: unknown): string {
  if (value instanceof Dim) return value.toString();
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    const elements = value as Float64Array;
    if (elements.length === 1) return String(elements[0]);
    const shown = Array.from(elements.subarray(0, 4), String).join(",");
    return `[${shown}${elements.length > 4 ? `,... ${elements.length}` : ""}]`;
  }
  if (Array.isArray(value)) return `[${value.map(attributeText).join(",")}]`;
  if (typeof value === "string") return value;
  return String(value);
}
