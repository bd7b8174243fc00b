// ONNX models as protobuf, built value by value. Knows the format, nothing about our operations or about runtimes.

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  type GraphProto,
  GraphProtoSchema,
  ModelProtoSchema,
  TypeProtoSchema,
  type ValueInfoProtoSchema,
} from "onnx-buf";

/** Name of a value inside a model. */
export type Value = string;

/** Element types of ONNX that are used here. */
export type ElementType = "float32" | "float64" | "float16" | "int32" | "int64" | "bool" | "uint8" | "int8" | "int4";

/** Element type codes of ONNX, also the `to` attribute of Cast. */
export const elementTypeCode = {
  float32: DataType.FLOAT,
  float64: DataType.DOUBLE,
  float16: DataType.FLOAT16,
  int32: DataType.INT32,
  int64: DataType.INT64,
  bool: DataType.BOOL,
  uint8: DataType.UINT8,
  int8: DataType.INT8,
  int4: DataType.INT4,
} as const satisfies Record<ElementType, DataType>;

/** A whole number, whole numbers, a string, or, marked as such, a float or a subgraph. */
export type Attribute =
  | number
  | string
  | readonly number[]
  | {
      /** Written as float32. */
      readonly float: number;
    }
  | {
      /** A branch of If. */
      readonly graph: GraphBuilder;
    };

/** What a node is called, and whose operator it is. */
export interface NodeOptions {
  /** What the node is called in errors and profiles. Default: nothing. */
  readonly name?: string;
  /** Operator set; default that of ONNX itself. */
  readonly domain?: string;
}

interface NodeMessage {
  readonly name: string;
  readonly opType: string;
  readonly domain: string;
  readonly input: readonly Value[];
  readonly output: readonly Value[];
  readonly attributes: { readonly [name: string]: Attribute | undefined };
}

interface Initializer {
  readonly name: Value;
  readonly type: ElementType;
  readonly dims: readonly number[];
  readonly bytes: Uint8Array;
}

/** Where a constant lies that is kept outside the protobuf. */
export interface ExternalPlace {
  /** File, by its path from the model's. */
  readonly location: string;
  /** Bytes in front of it. */
  readonly offset: number;
}

/** Finds a place outside for a constant, or undefined for one that stays inside. */
export type PlaceConstant = (name: Value, bytes: Uint8Array) => ExternalPlace | undefined;

/** Axes of inputs and outputs: a size, or the name of a size that may differ from run to run. */
export type Axes = readonly (number | string)[];

/** Names that are given once in a whole model, subgraphs included. */
class Names {
  readonly #taken = new Set<string>();
  /** Values that are written under another name in the end. */
  readonly final = new Map<Value, Value>();
  #count = 0;

  fresh(): Value {
    let name: Value;
    do name = `v${this.#count++}`;
    while (this.#taken.has(name));
    return this.take(name);
  }

  take(name: Value): Value {
    if (this.#taken.has(name)) throw new Error(`onnx: value "${name}" is defined twice`);
    this.#taken.add(name);
    return name;
  }
}

/** A graph under construction: nodes in the order in which they are added. */
export class GraphBuilder {
  /** The outermost graph, which holds all constants; subgraphs see them there. */
  readonly #root: GraphBuilder;
  readonly #names: Names;
  readonly #nodes: NodeMessage[] = [];
  readonly #inputs: MessageInitShape<typeof ValueInfoProtoSchema>[] = [];
  readonly #outputs: MessageInitShape<typeof ValueInfoProtoSchema>[] = [];
  readonly #initializers: Initializer[] = [];
  readonly #shared = new Map<string, Value>();
  readonly #domains = new Set<string>();
  /** Values that nodes of this graph give. */
  readonly #computed = new Set<Value>();

  constructor(parent?: GraphBuilder) {
    this.#root = parent ? parent.#root : this;
    this.#names = parent ? parent.#names : new Names();
  }

  /** A builder for a subgraph; it may read values of this graph. */
  subgraph(): GraphBuilder {
    return new GraphBuilder(this);
  }

  /** Declares an input. */
  input(name: Value, type: ElementType, axes: Axes): Value {
    this.#inputs.push(valueInfo(name, type, axes));
    return this.#names.take(name);
  }

  /** Declares a value as output. */
  output(name: Value, type: ElementType, axes: Axes): void {
    this.#outputs.push(valueInfo(name, type, axes));
  }

  /** Declares a value as output of a subgraph; what comes from outside is passed through a node. */
  branchOutput(value: Value, type: ElementType, axes: Axes): void {
    this.output(this.#computed.has(value) ? value : this.node("Identity", [value]), type, axes);
  }

  /** Declares a value as output under a name. What a node gives is renamed; anything else is passed through a node. */
  namedOutput(value: Value, name: Value, type: ElementType, axes: Axes): void {
    const { final } = this.#names;
    if (this.#computed.has(value) && !final.has(value)) final.set(value, this.#names.take(name));
    else this.node("Identity", [value], {}, { name: `output ${name}`, output: name });
    this.output(name, type, axes);
  }

  /** Declares a sequence of tensors as the first output. */
  sequenceOutput(name: Value, type: ElementType): void {
    const tensorType = { elemType: elementTypeCode[type] };
    const elemType = create(TypeProtoSchema, { value: { case: "tensorType", value: tensorType } });
    this.#outputs.unshift({ name, type: { value: { case: "sequenceType", value: { elemType } } } });
  }

  /**
   * Adds a node and returns its only output.
   * @param options.output its name; default one of its own
   */
  node(
    operator: string,
    inputs: readonly (Value | undefined)[],
    attributes: { readonly [name: string]: Attribute | undefined } = {},
    options: NodeOptions & { readonly output?: Value } = {},
  ): Value {
    const output = options.output === undefined ? this.#names.fresh() : this.#names.take(options.output);
    this.#addNode(operator, inputs, [output], attributes, options);
    return output;
  }

  /** Adds a node with several outputs. */
  nodes(
    count: number,
    operator: string,
    inputs: readonly (Value | undefined)[],
    attributes: { readonly [name: string]: Attribute | undefined } = {},
    options: NodeOptions = {},
  ): readonly Value[] {
    const outputs = Array.from({ length: count }, () => this.#names.fresh());
    this.#addNode(operator, inputs, outputs, attributes, options);
    return outputs;
  }

  #addNode(
    operator: string,
    inputs: readonly (Value | undefined)[],
    outputs: readonly Value[],
    attributes: { readonly [name: string]: Attribute | undefined },
    { name = "", domain = "" }: NodeOptions,
  ): void {
    this.#domains.add(domain);
    for (const output of outputs) this.#computed.add(output);
    this.#nodes.push({
      name,
      opType: operator,
      domain,
      input: inputs.map((input) => input ?? ""),
      output: [...outputs],
      attributes,
    });
  }

  /** A constant tensor; small equal ones are stored once. */
  constant(
    data: Float32Array | Float64Array | Int32Array | Uint8Array,
    dims: readonly number[],
    type?: ElementType,
  ): Value {
    return this.#initializer(data, dims, type ?? elementTypeOf(data));
  }

  /** int64 constant of one axis, the form in which ONNX takes shapes and axes. */
  int64(...values: readonly number[]): Value {
    return this.#initializer(BigInt64Array.from(values, BigInt), [values.length], "int64");
  }

  /** int64 constant without axes. */
  int64Scalar(value: number): Value {
    return this.#initializer(BigInt64Array.of(BigInt(value)), [], "int64");
  }

  /** float32 constant without axes. */
  float(value: number): Value {
    return this.#initializer(Float32Array.of(value), [], "float32");
  }

  /** float64 constant without axes. */
  double(value: number): Value {
    return this.#initializer(Float64Array.of(value), [], "float64");
  }

  /** int32 constant without axes. */
  int32(value: number): Value {
    return this.#initializer(Int32Array.of(value), [], "int32");
  }

  /** A constant under a given name, such as a weight. */
  namedConstant(name: Value, data: ArrayBufferView, dims: readonly number[], type: ElementType): Value {
    this.#initializers.push({ name: this.#names.take(name), type, dims, bytes: bytesOf(data) });
    return name;
  }

  #initializer(data: ArrayBufferView, dims: readonly number[], type: ElementType): Value {
    if (this.#root !== this) return this.#root.#initializer(data, dims, type);
    const bytes = bytesOf(data);
    const key = bytes.length <= 64 ? `${type}[${dims}]${bytes.join()}` : undefined;
    const known = key === undefined ? undefined : this.#shared.get(key);
    if (known !== undefined) return known;
    const name = this.#names.fresh();
    this.#initializers.push({ name, type, dims, bytes });
    if (key !== undefined) this.#shared.set(key, name);
    return name;
  }

  /** Leaves out nodes and constants that no output needs. */
  removeUnused(): void {
    const needed = new Set<Value>(this.#outputs.map(({ name }) => name ?? ""));
    const { final } = this.#names;
    const kept: NodeMessage[] = [];
    // What reads a value stands behind it.
    for (const node of this.#nodes.toReversed()) {
      if (!node.output.some((value) => needed.has(final.get(value) ?? value) || needed.has(value))) continue;
      kept.push(node);
      for (const value of readsOf(node)) needed.add(value);
    }
    this.#nodes.splice(0, this.#nodes.length, ...kept.reverse());
    const constants = this.#initializers.filter(({ name }) => needed.has(name));
    this.#initializers.splice(0, this.#initializers.length, ...constants);
  }

  /** Values that nodes and outputs of this graph read, those of its subgraphs among them. */
  get reads(): readonly Value[] {
    return [...this.#nodes.flatMap(readsOf), ...this.#outputs.map(({ name }) => name ?? "")];
  }

  /** Bytes of all constants. */
  get constantBytes(): number {
    return this.#initializers.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** The graph as a message. */
  toProto(name: string, place: PlaceConstant = () => undefined): GraphProto {
    const initializer = this.#initializers.map(({ name: tensor, type, dims, bytes }) => {
      const common = { name: tensor, dataType: elementTypeCode[type], dims: dims.map(BigInt) };
      const outside = place(tensor, bytes);
      if (outside === undefined) return { ...common, rawData: bytes as Uint8Array<ArrayBuffer> };
      const { location, offset } = outside;
      const entries = { location, offset: String(offset), length: String(bytes.length) };
      const externalData = Object.entries(entries).map(([key, value]) => ({ key, value }));
      return { ...common, dataLocation: DataLocation.EXTERNAL, externalData };
    });
    const { final } = this.#names;
    const rename = (values: readonly Value[]) => values.map((value) => final.get(value) ?? value);
    return create(GraphProtoSchema, {
      name,
      node: this.#nodes.map(({ attributes, input, output, ...node }) => ({
        ...node,
        input: rename(input),
        output: rename(output),
        // Subgraphs are written last, when all names are known.
        attribute: Object.entries(attributes).flatMap(([key, value]) =>
          value === undefined ? [] : [attributeProto(key, value)],
        ),
      })),
      input: this.#inputs,
      output: this.#outputs,
      initializer,
    });
  }

  /** Operator sets that its nodes are of; the empty name is ONNX's own. */
  get domains(): ReadonlySet<string> {
    return this.#domains;
  }
}

function readsOf({ input, attributes }: NodeMessage): readonly Value[] {
  const inside = Object.values(attributes).flatMap((value) =>
    typeof value === "object" && "graph" in value ? value.graph.reads : [],
  );
  return [...input, ...inside];
}

export interface ModelOptions {
  readonly name: string;
  /** Version of the ONNX operator set. */
  readonly opset: number;
  /** Default: all constants are inside. */
  readonly place?: PlaceConstant | undefined;
}

/** IR version that came with an operator set: https://onnx.ai/onnx/repo-docs/Versioning.html */
function irVersion(opset: number): bigint {
  return BigInt(opset - 12);
}

/** The bytes of a model. */
export function modelBytes(graph: GraphBuilder, { name, opset, place }: ModelOptions): Uint8Array {
  const domains = new Set(["", ...graph.domains]);
  const message = create(ModelProtoSchema, {
    irVersion: irVersion(opset),
    producerName: "@sisa/onnx",
    opsetImport: [...domains].map((domain) => ({ domain, version: BigInt(domain === "" ? opset : 1) })),
    graph: graph.toProto(name, place),
  });
  return toBinary(ModelProtoSchema, message);
}

function valueInfo(name: string, type: ElementType, axes: Axes): MessageInitShape<typeof ValueInfoProtoSchema> {
  const dim = axes.map((axis) => ({
    value:
      typeof axis === "number"
        ? { case: "dimValue" as const, value: BigInt(axis) }
        : { case: "dimParam" as const, value: axis },
  }));
  return { name, type: { value: { case: "tensorType", value: { elemType: elementTypeCode[type], shape: { dim } } } } };
}

function attributeProto(name: string, value: Attribute): AttributeProto {
  if (typeof value === "number")
    return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) });
  if (typeof value === "string") {
    return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) });
  }
  if ("float" in value) return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: value.float });
  if ("graph" in value) {
    return create(AttributeProtoSchema, { name, type: AttributeType.GRAPH, g: value.graph.toProto(name) });
  }
  return create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: value.map(BigInt) });
}

function elementTypeOf(data: ArrayBufferView): ElementType {
  if (data instanceof Float32Array) return "float32";
  if (data instanceof Float64Array) return "float64";
  return data instanceof Int32Array ? "int32" : "bool";
}

function bytesOf(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
