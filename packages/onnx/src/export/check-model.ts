// Whether an ONNX file is what the format says, as far as its structure goes: the official checker without Python.

import { fromBinary } from "@bufbuild/protobuf";
import { type GraphProto, ModelProtoSchema, type TensorProto, TensorProto_DataLocation } from "onnx-buf";

/** Bits of one element by ONNX's type codes. */
const elementBits: ReadonlyMap<number, number> = new Map([
  [1, 32],
  [2, 8],
  [3, 8],
  [6, 32],
  [7, 64],
  [9, 8],
  [10, 16],
  [11, 64],
  [22, 4],
]);

/**
 * Everything that is wrong with a model, in sentences; nothing where all is well.
 *
 * @param bytes   the model
 * @param outside files beside it, by their names
 */
export function problemsOf(bytes: Uint8Array, outside: { readonly [location: string]: Uint8Array } = {}): string[] {
  const { graph, opsetImport, irVersion } = fromBinary(ModelProtoSchema, bytes);
  if (graph === undefined) return ["there is no graph"];
  const problems: string[] = [];
  const opset = opsetImport.find(({ domain }) => domain === "")?.version ?? 0n;
  // ONNX 1.18 came with opset 23 and IR version 11, 1.19 with 24 and 12.
  if (irVersion !== opset - 12n) problems.push(`opset ${opset} does not belong to IR version ${irVersion}`);
  const imported = new Set(opsetImport.map(({ domain }) => domain));
  if (imported.size !== opsetImport.length) problems.push("an operator set is imported twice");
  for (const { domain } of graph.node) {
    if (!imported.has(domain)) problems.push(`operator set "${domain}" is not imported`);
  }
  return [
    ...problems,
    ...valueProblems(graph),
    ...graph.initializer.flatMap((tensor) => dataProblems(tensor, outside)),
  ];
}

/** Values are defined once, before they are read, and all are of use. */
function valueProblems(graph: GraphProto): string[] {
  const problems: string[] = [];
  const defined = new Set<string>();
  const read = new Set(graph.output.map(({ name }) => name));
  const define = (name: string, what: string) => {
    if (name === "") return;
    if (defined.has(name)) problems.push(`${what} "${name}" is defined twice`);
    defined.add(name);
  };
  for (const { name, type } of [...graph.input, ...graph.output]) {
    const value = type?.value;
    const isTyped = value?.case === "tensorType" ? value.value.shape !== undefined : value?.case === "sequenceType";
    if (name === "" || !isTyped) problems.push(`"${name}" has no name or no shape`);
  }
  for (const { name } of graph.input) define(name, "input");
  for (const { name } of graph.initializer) define(name, "constant");
  const names = new Set<string>();
  for (const node of graph.node) {
    const label = `${node.opType} "${node.name}"`;
    if (node.opType === "" || node.output.length === 0) problems.push(`${label} has no operator or no output`);
    if (node.name !== "" && names.has(node.name)) problems.push(`two nodes are called "${node.name}"`);
    names.add(node.name);
    for (const input of node.input) {
      if (input !== "" && !defined.has(input)) problems.push(`${label} reads "${input}", which is not defined before`);
      read.add(input);
    }
    for (const output of node.output) define(output, "output");
    if (["If", "Loop", "Scan"].includes(node.opType)) problems.push(`${label} is control flow`);
  }
  for (const { name } of graph.output) if (!defined.has(name)) problems.push(`output "${name}" is not defined`);
  for (const node of graph.node) {
    if (!node.output.some((output) => read.has(output))) problems.push(`nothing reads ${node.opType} "${node.name}"`);
  }
  for (const { name } of [...graph.input, ...graph.initializer]) {
    if (!read.has(name)) problems.push(`nothing reads "${name}"`);
  }
  return problems;
}

/** A constant has as many bytes as its shape and type say, where it says they are. */
function dataProblems(tensor: TensorProto, outside: { readonly [location: string]: Uint8Array }): string[] {
  const bits = elementBits.get(tensor.dataType);
  if (bits === undefined) return [`"${tensor.name}" has type ${tensor.dataType}, which is not known`];
  const expected = Math.ceil((tensor.dims.reduce((a, b) => a * Number(b), 1) * bits) / 8);
  if (tensor.dataLocation !== TensorProto_DataLocation.EXTERNAL) {
    const { length } = tensor.rawData;
    return length === expected ? [] : [`"${tensor.name}" should have ${expected} bytes, has ${length}`];
  }
  const entries = Object.fromEntries(tensor.externalData.map(({ key, value }) => [key, value]));
  const file = outside[entries.location ?? ""];
  const [offset, length] = [Number(entries.offset), Number(entries.length)];
  if (file === undefined) return [`"${tensor.name}" lies in "${entries.location}", which is not there`];
  if (length !== expected) return [`"${tensor.name}" should have ${expected} bytes, has ${length}`];
  return offset + length <= file.length ? [] : [`"${tensor.name}" ends after its file`];
}
