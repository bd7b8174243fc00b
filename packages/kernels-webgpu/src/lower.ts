// From a graph to kernels: composites without a kernel are expanded, expressions joined, and each result that is kept
// gets its place.

import {
  type AnyTensor,
  concat,
  concatOp,
  constantOp,
  type DType,
  type Graph,
  type Hoisted,
  hoistConstants,
  inputOp,
  type Node,
  rebuild,
  reshapeOp,
  rewrite,
  simplify,
  sizesOf,
  type Tensor,
  type TensorSpec,
  UnsupportedOpError,
} from "@sisa/core";
import { Emitter, type EmitterHost, stored } from "./codegen/emitter.ts";
import { count, Place } from "./codegen/index-space.ts";
import { flatGroup, gridOf, type ShaderParts, type Slot, shader } from "./codegen/shader.ts";
import type { Capabilities } from "./device.ts";
import { allocatedData, countOf, type StorageType, storageBytes, storageType, toDevice } from "./element-type.ts";
import { type Fusion, fuse, isLiteral, originOf } from "./fuse.ts";
import type { Finish, KernelContext, KernelLowering, Lowering } from "./lowering.ts";
import { lowerings } from "./lowerings/index.ts";
import type { Kernel, OutputPlace, Program, Role, Value } from "./program.ts";
import { type Check, wordsPerCheck } from "./run-status.ts";
import { type Schedule, schedule } from "./schedule.ts";

/** Rules by the names of operations. */
export type Lowerings = { readonly [op: string]: Lowering };

/** What decides how operations are computed. */
export interface LookupOptions {
  readonly device: Capabilities;
  /** Lowerings of third parties, by name. */
  readonly lowerings?: Lowerings | undefined;
}

export interface LowerOptions extends LookupOptions {
  /** State pairs: input, and the output that is its next value. */
  readonly state: readonly (readonly [input: string, output: string])[];
}

/** Threads of a workgroup that computes expressions. */
const threads = 256;

/** @throws UnsupportedOpError for operations and dtypes that have no lowering here */
export function lower(graph: Graph, options: LowerOptions): Program {
  const lowering = lookup(options);
  return new Lowerer(schedule(computable(graph, lowering), lowering), options, lowering).program();
}

/**
 * Takes out of a graph what kernels read in memory and what depends on constants alone. Expressions of constants that are
 * computed where they are read stay there.
 * @throws UnsupportedOpError as `lower`
 */
export function hoist(graph: Graph, constants: readonly string[], options: LookupOptions): Hoisted {
  const lowering = lookup(options);
  const kernelOf = (node?: Node) => {
    const found = node && lowering(node);
    return found?.kind === "kernel" ? found : undefined;
  };
  return hoistConstants(computable(graph, lowering), constants, (node, reader, input) => {
    if (node.op === reshapeOp) return true;
    const kernel = kernelOf(reader);
    return kernelOf(node) === undefined && (kernel === undefined || kernel.absorbs === input);
  });
}

/** The graph of operations that have a lowering, with as many operands as a kernel can read. */
function computable(graph: Graph, lowering: (node: Node) => Lowering | undefined): Graph {
  return splitConcats(simplify(expand(graph, lowering)), 6);
}

/** The lowering of a node; undefined for a composite that runs by its composition, and for what needs none. */
function lookup({ device, lowerings: others = {} }: LookupOptions): (node: Node) => Lowering | undefined {
  const ours: { readonly [name: string]: Lowering | "compose" | "place" } = lowerings;
  return (node) => {
    const { name, kind } = node.op;
    const found = Object.hasOwn(ours, name) ? ours[name] : Object.hasOwn(others, name) ? others[name] : undefined;
    if (found === "compose" || found === "place") return undefined;
    if (found && (found.kind !== "kernel" || found.supports === undefined || found.supports(node, device)))
      return found;
    if (kind === "composite") return undefined;
    throw new UnsupportedOpError(name, "webgpu", "it is a primitive without a lowering; pass one in `lowerings`");
  };
}

/** Composites without a kernel, or that must give what their kernel leaves out, replaced by their compositions. */
function expand(graph: Graph, lowering: (node: Node) => Lowering | undefined): Graph {
  const needed = new Set<AnyTensor>(Object.values(graph.outputTensors));
  for (const { inputs } of graph.nodes) for (const tensor of Object.values(inputs)) needed.add(tensor);
  const composed = new Set(
    graph.nodes.filter((node) => {
      if (node.op.kind !== "composite") return false;
      const found = lowering(node);
      const omits = found?.kind === "kernel" ? (found.omits ?? []) : [];
      return found === undefined || omits.some((name) => needed.has(node.outputs[name] as AnyTensor));
    }),
  );
  if (composed.size === 0) return graph;
  const next = rewrite(graph, (node, inputs) =>
    composed.has(node) && node.op.compose ? node.op.compose(inputs, node.attributes) : rebuild(node, inputs),
  );
  return expand(next, lowering);
}

/** Joins of many tensors in several steps, since a kernel can read only so many arrays. */
function splitConcats(graph: Graph, most: number): Graph {
  return rewrite(graph, (node, inputs) => {
    const parts = Object.values(inputs);
    if (node.op !== concatOp || parts.length <= most) return rebuild(node, inputs);
    const axis = node.attributes.axis as number;
    let level = parts as Tensor[];
    while (level.length > 1) {
      const groups = Array.from({ length: Math.ceil(level.length / most) }, (_, i) =>
        level.slice(i * most, (i + 1) * most),
      );
      level = groups.map((group) => concat(group, { axis }));
    }
    return { value: level[0] as AnyTensor };
  });
}

class Lowerer implements EmitterHost {
  readonly #graph: Graph;
  readonly #options: LowerOptions;
  readonly #lookup: (node: Node) => Lowering | undefined;
  readonly #kernels: Kernel[] = [];
  readonly #checks: Check[] = [];
  readonly #values = new Map<AnyTensor, Value>();
  readonly #inputs = new Map<string, Value>();
  readonly #outputs = new Map<string, OutputPlace>();
  readonly #groups: Schedule["groups"];
  readonly #kept: Fusion["kept"];
  readonly #finished: Fusion["finished"];
  readonly #needed: ReadonlySet<AnyTensor>;
  /** For each tensor that is a state's next value: the input's origin, and its name. */
  readonly #nextOf = new Map<AnyTensor, { readonly input: AnyTensor; readonly name: string }>();
  readonly #isGrouped: ReadonlySet<Node>;
  readonly #isFinished: ReadonlySet<Node>;
  readonly #status: Value;
  #nextId = 0;

  constructor({ graph, groups }: Schedule, options: LowerOptions, lookup: (node: Node) => Lowering | undefined) {
    this.#graph = graph;
    this.#groups = groups;
    this.#options = options;
    this.#lookup = lookup;
    this.#status = this.#value("u32", 0, { kind: "status" });
    for (const [name, tensor] of Object.entries(graph.inputTensors)) {
      const value = this.#value(this.#type(tensor.dtype, `input "${name}"`), countOf(tensor), { kind: "input", name });
      this.#inputs.set(name, value);
      this.#values.set(tensor, value);
    }
    // Also of what never lies in memory: it would not be rounded to the width that it has.
    for (const node of graph.nodes)
      for (const { dtype } of Object.values(node.outputs)) this.#type(dtype, node.op.name);
    for (const [input, output] of options.state) {
      const [from, to] = [graph.inputTensors[input], graph.outputTensors[output]];
      if (from && to) this.#nextOf.set(originOf(to), { input: from, name: input });
    }
    const { kept, finished } = fuse(graph, {
      loweringOf: (node) => this.#loweringOf(node),
      maximumReads: Math.min(options.device.limits.maxStorageBuffersPerShaderStage, 16) - 2,
      isState: (tensor) => this.#nextOf.has(originOf(tensor)),
    });
    this.#kept = kept;
    this.#finished = finished;
    this.#isGrouped = new Set([...groups.values()].flat());
    this.#isFinished = new Set(finished.values());
    const read = graph.nodes.flatMap(({ inputs }) => Object.values(inputs));
    this.#needed = new Set([...read, ...Object.values(graph.outputTensors)].map(originOf));
  }

  program(): Program {
    this.#placeOutputs();
    for (const node of this.#graph.nodes) this.#lowerNode(node);
    this.#copyOutputs();
    return { kernels: this.#kernels, inputs: this.#inputs, outputs: this.#outputs, checks: this.#checks };
  }

  valueOf(tensor: AnyTensor): Value | undefined {
    return this.#values.get(originOf(tensor));
  }

  loweringOf(tensor: AnyTensor): Lowering {
    return this.#loweringOf(tensor.node);
  }

  #loweringOf(node: Node): Lowering {
    if (node.op === reshapeOp) return reshapeView;
    const lowering = this.#lookup(node);
    if (lowering === undefined) throw new UnsupportedOpError(node.op.name, "webgpu", "it was not expanded");
    return lowering;
  }

  #value(type: StorageType, elements: number, role: Role): Value {
    const bytes = Math.ceil((Math.max(elements, 1) * storageBytes(type)) / 4) * 4;
    return { id: this.#nextId++, type, elements, bytes, role };
  }

  #type(dtype: DType, what: string): StorageType {
    return storageType(dtype, this.#options.device.features.has("shader-f16"), what);
  }

  /** Results that are outputs are computed where the output lies. One that stands for several outputs is copied. */
  #placeOutputs(): void {
    for (const [name, tensor] of Object.entries(this.#graph.outputTensors)) {
      const origin = originOf(tensor);
      if (origin.node.op === inputOp || origin.node.op === constantOp || this.#values.has(origin)) continue;
      this.#values.set(origin, this.#place(name, tensor));
    }
    for (const node of this.#graph.nodes) {
      for (const tensor of Object.values(node.outputs)) {
        if (node.op === reshapeOp || this.#values.has(tensor)) continue;
        if (node.op === constantOp ? isLiteral(tensor) && !this.#kept.has(tensor) : !this.#kept.has(tensor)) continue;
        const role = node.op === constantOp ? constantRole(node, tensor) : ({ kind: "temporary" } as const);
        this.#values.set(tensor, this.#value(this.#type(tensor.dtype, node.op.name), countOf(tensor), role));
      }
    }
  }

  #place(name: string, tensor: TensorSpec): Value {
    const value = this.#value(this.#type(tensor.dtype, `output "${name}"`), countOf(tensor), { kind: "output", name });
    this.#outputs.set(name, { spec: tensor, value, overwrites: undefined });
    return value;
  }

  #copyOutputs(): void {
    for (const [name, tensor] of Object.entries(this.#graph.outputTensors)) {
      if (!this.#outputs.has(name)) this.#pushElements("copy", this.#emitElements(tensor), this.#place(name, tensor));
    }
  }

  #lowerNode(node: Node): void {
    if (node.op === reshapeOp || node.op === constantOp) return;
    const lowering = this.#loweringOf(node);
    if (lowering.kind === "kernel") {
      const group = this.#groups.get(node);
      if (group) this.#buildGroup(group, lowering);
      else if (!this.#isGrouped.has(node) && !this.#isFinished.has(node)) lowering.build(this.#context(node, lowering));
      return;
    }
    const tensor = Object.values(node.outputs)[0];
    const value = tensor && this.#values.get(tensor);
    const kernel = this.#finished.get(node);
    if (tensor && value && kernel) this.#finish(kernel, tensor, value);
    else if (tensor && value) this.#computeElements(node.op.name, tensor, value);
  }

  #buildGroup(group: readonly Node[], lowering: KernelLowering): void {
    const own = group.filter((node) => !this.#isFinished.has(node));
    const contexts = own.map((node) => this.#context(node, lowering));
    const [only] = contexts;
    if (contexts.length > 1) lowering.joint?.build(contexts);
    else if (only) lowering.build(only);
  }

  /** A kernel whose result is only read by an expression, which it computes before it stores anything. */
  #finish(kernel: Node, tensor: AnyTensor, target: Value): void {
    const lowering = this.#loweringOf(kernel) as KernelLowering;
    const result = Object.values(kernel.outputs)[0] as AnyTensor;
    this.#values.delete(tensor);
    const emitter = new Emitter(this, "v", new Map(), new Map([[result, "value"]]));
    const element = emitter.read(tensor, Place.flat(emitter, sizesOf(tensor.shape), "place"));
    this.#values.set(tensor, target);
    const declaration = `fn finish(place: u32, value: f32) -> f32 {
${emitter.lines.join("\n")}
return ${element};
}`;
    this.#values.set(result, target);
    lowering.build(this.#context(kernel, lowering, { declaration, slots: emitter.slots }));
    this.#values.delete(result);
  }

  /** A kernel that computes every element of a tensor by its expression. */
  #computeElements(label: string, tensor: AnyTensor, value: Value): void {
    this.#values.delete(tensor);
    let elements = this.#emitElements(tensor);
    let target = value;
    const state = this.#nextOf.get(tensor);
    const before = state && this.#overwritable(tensor.node, state);
    // What is read of the old value must be read at the very place that is written.
    if (state && before && [...(elements.reads.get(before) ?? [])].every((place) => place === "i")) {
      target = before;
      elements = this.#emitElements(tensor, new Map([[target, "out"]]));
      this.#settle(tensor, target, state.name);
    }
    this.#values.set(tensor, target);
    this.#pushElements(label, elements, target);
  }

  #emitElements(tensor: AnyTensor, aliases?: ReadonlyMap<Value, string>): ElementCode {
    const emitter = new Emitter(this, "v", aliases);
    const sizes = sizesOf(tensor.shape);
    if (count(sizes) === 0) return { lines: [], slots: {}, reads: new Map(), result: "", elements: 0 };
    const result = emitter.read(tensor, Place.flat(emitter, sizes, "i"));
    return { lines: emitter.lines, slots: emitter.slots, reads: emitter.reads, result, elements: count(sizes) };
  }

  #pushElements(label: string, { lines, slots, result, elements }: ElementCode, target: Value): void {
    if (elements === 0) return;
    const body = `let i = ${flatGroup} * ${threads}u + lane;
if (i >= ${elements}u) { return; }
${lines.join("\n")}
out[i] = ${stored(target.type, result)};`;
    this.#kernels.push(
      shader({
        label,
        slots: { ...slots, out: { value: target, access: "read_write" } },
        workgroupSize: [threads],
        body,
        workgroups: this.#grid(Math.ceil(elements / threads)),
      }),
    );
  }

  /** The input's buffer where nothing reads the old value after this node. */
  #overwritable(node: Node, { input }: { readonly input: AnyTensor }): Value | undefined {
    const value = this.#values.get(input);
    const position = this.#graph.nodes.indexOf(node);
    const readLater = this.#graph.nodes.some((other, index) => index > position && this.#readsInMemory(other, input));
    const isOutput = Object.values(this.#graph.outputTensors).some((tensor) => originOf(tensor) === input);
    return readLater || isOutput ? undefined : value;
  }

  /** Whether the kernel of a node reads an input, itself or through what is computed inside of it. */
  #readsInMemory(node: Node, input: AnyTensor): boolean {
    const own = Object.values(node.outputs).some((tensor) => this.#kept.has(tensor));
    if (!own) return false;
    const pending = Object.values(node.inputs).map(originOf);
    const seen = new Set<AnyTensor>();
    for (let tensor = pending.pop(); tensor !== undefined; tensor = pending.pop()) {
      if (tensor === input) return true;
      if (seen.has(tensor) || this.#kept.has(tensor)) continue;
      seen.add(tensor);
      pending.push(...Object.values(tensor.node.inputs).map(originOf));
    }
    return false;
  }

  /** Notes that an output is the input's own buffer. */
  #settle(tensor: AnyTensor, value: Value, input: string): void {
    for (const [name, { spec }] of this.#outputs) {
      const output = this.#graph.outputTensors[name];
      const isState = this.#options.state.some(([from, to]) => from === input && to === name);
      if (output && isState && originOf(output) === tensor) {
        this.#outputs.set(name, { spec, value, overwrites: input });
      }
    }
  }

  #grid(groups: number): readonly [number, number, number] {
    return gridOf(groups, this.#options.device.limits.maxComputeWorkgroupsPerDimension);
  }

  #context(node: Node, lowering: KernelLowering, finish?: Finish): KernelContext {
    const { device } = this.#options;
    const overwritten = new Set<string>();
    for (const [output, input] of Object.entries(lowering.overwrites ?? {})) {
      const [tensor, before] = [node.outputs[output], node.inputs[input]];
      const state = tensor && this.#nextOf.get(tensor);
      if (!tensor || !before || !state || originOf(before) !== state.input) continue;
      const value = this.#overwritable(node, state);
      if (value === undefined) continue;
      this.#values.set(tensor, value);
      this.#settle(tensor, value, state.name);
      overwritten.add(output);
    }
    const slotOf = (tensor: AnyTensor | undefined, access: Slot["access"], name: string): Slot => {
      const value = tensor && this.valueOf(tensor);
      if (value === undefined) throw new Error(`${node.op.name}: ${name} has no place in memory`);
      return { value, access };
    };
    return {
      node,
      attributes: node.attributes,
      device,
      sizes: (tensor) => sizesOf(tensor?.shape ?? []),
      has: (input) => node.inputs[input] !== undefined,
      input: (name) => slotOf(node.inputs[name], "read", name),
      output: (name = "value") => slotOf(node.outputs[name], "read_write", name),
      needs: (output) => this.#needed.has(node.outputs[output] as AnyTensor),
      finish,
      inPlace: (output) => overwritten.has(output),
      scratch: (type, elements) => this.#value(type, elements, { kind: "temporary" }),
      check: (check) => {
        const index = this.#checks.push(check) - 1;
        return {
          slot: { value: this.#status, access: "read_write" },
          fail: (value) =>
            `status[${index * wordsPerCheck}] = 1u; status[${index * wordsPerCheck + 1}] = bitcast<u32>(${value});`,
        };
      },
      grid: (groups) => this.#grid(groups),
      dispatch: (parts: ShaderParts) => {
        if (count(parts.workgroups) > 0)
          this.#kernels.push(shader({ ...parts, label: `${node.op.name}${parts.label}` }));
      },
      emit: (body) => {
        const emitter = new Emitter(this);
        const input = lowering.absorbs === undefined ? undefined : node.inputs[lowering.absorbs];
        if (input === undefined) throw new Error(`${node.op.name}: absorbs no input`);
        body(emitter, (place) => emitter.read(input, place));
        return { lines: emitter.lines, slots: emitter.slots };
      },
    };
  }
}

/** What computes the element `i` of a tensor. */
interface ElementCode {
  readonly lines: readonly string[];
  readonly slots: { readonly [name: string]: Slot };
  readonly reads: ReadonlyMap<Value, ReadonlySet<string>>;
  readonly result: string;
  readonly elements: number;
}

const reshapeView: Lowering = {
  kind: "view",
  read: ({ place, sizes, read }) => read(place.reshaped(sizes())),
};

function constantRole(node: Node, spec: TensorSpec): Role {
  return { kind: "constant", data: toDevice(spec, allocatedData(spec, node.attributes.data as ArrayLike<number>)) };
}
