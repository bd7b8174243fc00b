// The text form of graphs: readable, stable, one line per node. Scalars stand where they are used.

import { Dim, type Shape } from "../dim.ts";
import type { DType } from "../dtype.ts";
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

  const width = lines.reduce((widest, { left }) => Math.min(72, Math.max(widest, left.length)), 0);
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

/** Scalars are written as their value. */
function scalarText(node: Node): string | undefined {
  const { data } = node.attributes;
  const { value } = node.outputs;
  if (Object.keys(node.inputs).length > 0 || value?.shape.length !== 0) return undefined;
  if (!ArrayBuffer.isView(data) || data instanceof DataView) return undefined;
  const [element] = data as Float64Array;
  return element === undefined ? undefined : numberText(element, value.dtype === "float32");
}

function attributeText(value: unknown): string {
  if (Dim.is(value)) return value.text;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    const elements = value as Float64Array;
    const number = (element: number) => numberText(element, value instanceof Float32Array);
    if (elements.length === 1) return number(elements[0] ?? 0);
    const shown = Array.from(elements.subarray(0, 4), number).join(",");
    return `[${shown}${elements.length > 4 ? `,... ${elements.length}` : ""}]`;
  }
  if (typeof value === "number") return numberText(value, false);
  if (Array.isArray(value)) return `[${value.map(attributeText).join(",")}]`;
  if (isSpec(value)) return specText(value);
  if (typeof value === "object" && value !== null) {
    return `{${Object.entries(value).map(([name, entry]) => `${name}=${attributeText(entry)}`)}}`;
  }
  return String(value);
}

function isSpec(value: unknown): value is { readonly dtype: DType; readonly shape: Shape } {
  return typeof value === "object" && value !== null && "dtype" in value && "shape" in value;
}

/** The shortest decimal that is this number, or for a float32 that rounds to the same one. */
function numberText(value: number, float32: boolean): string {
  if (Object.is(value, -0)) return "-0";
  const single = Math.fround(value);
  if (!float32 || !Number.isFinite(single)) return String(value);
  let digits = 1;
  while (Math.fround(Number(single.toPrecision(digits))) !== single) digits++;
  return String(Number(single.toPrecision(digits)));
}
