// From a graph to a list of steps over storages: which memory every value lives in, what is written in place, and where
// temporary values lie in one arena.

import {
  type AnyTensor,
  bytesOf,
  constantOp,
  DeviceError,
  type Graph,
  GraphError,
  type Node,
  sizesOf,
  specText,
  type TensorSpec,
  UnsupportedOpError,
} from "@sisa/core";
import { type Argument, type PackedArguments, packArguments } from "./device/arguments.ts";
import type { PreparedProduct, Product } from "./device/cublas-lt.ts";
import { kernelEntry } from "./device/kernels.ts";
import { joinPhases, type Phase, viewsOf } from "./join-phases.ts";
import { copyElements } from "./lowerings/copy.ts";
import { areOrdered, type Move, moveSteps } from "./moves.ts";
import { denseStrides, isDense, reshapeStrides, type Strides } from "./views.ts";

/** Memory that is given an address before a run. Temporary storages share an arena; the others have blocks of their own. */
export class Storage {
  readonly bytes: number;
  origin: "temporary" | "input" | "output" | "constant";
  address = 0;
  /** First and last step that uses it. */
  first = Number.POSITIVE_INFINITY;
  last = -1;

  constructor(bytes: number, origin: Storage["origin"]) {
    this.bytes = bytes;
    this.origin = origin;
  }
}

/** A place inside a storage. */
export interface View {
  readonly storage: Storage;
  /** In bytes. */
  readonly offset: number;
}

/** A place whose elements lie at some distances from each other. */
export interface Region extends View {
  readonly strides: Strides;
}

/** A tensor at a place; dense and row-major where nothing else is said. */
export interface Value extends Region {
  readonly spec: TensorSpec;
  readonly sizes: readonly number[];
  readonly count: number;
  readonly bytes: number;
}

/**
 * How a kernel is launched: by itself; so that it may begin before the kernel before it ends, on GPUs that can, since it waits
 * for that by itself; or with all blocks at work at once.
 */
export type LaunchMode = "alone" | "overlapping" | "cooperative";

export type Step = { readonly op: string } & (
  | {
      readonly kind: "kernel";
      readonly kernel: string;
      readonly grid: readonly [number, number, number];
      readonly block: number;
      readonly sharedBytes: number;
      readonly mode: LaunchMode;
      readonly packed: PackedArguments;
      /** What it is as a part of a launch that does several steps. */
      readonly phase?: Phase;
    }
  | {
      readonly kind: "product";
      readonly product: PreparedProduct;
      readonly a: View;
      readonly b: View;
      readonly c: View;
      /** What is added to the product; nothing where left out. */
      readonly addend: View | undefined;
    }
  | { readonly kind: "zero"; readonly target: View; readonly bytes: number }
  | { readonly kind: "copy"; readonly source: View; readonly target: View; readonly bytes: number }
);

export interface Plan {
  readonly steps: readonly Step[];
  readonly inputs: { readonly [name: string]: Storage };
  /** Where the outputs are that are not state; several may have places in one storage, apart from each other. */
  readonly outputs: { readonly [name: string]: View };
  readonly constants: readonly { readonly storage: Storage; readonly node: Node }[];
  /** Their addresses are offsets in the arena. */
  readonly temporaries: readonly Storage[];
  /** Nodes that may report a fault, by the number that they report. */
  readonly faults: ReadonlyMap<number, FaultSite>;
  readonly arenaBytes: number;
  /** Holds zeros before the first run. Addresses are offsets in memory of their own. */
  readonly zeros: readonly Storage[];
  readonly zeroBytes: number;
}

/** What a bad value that a kernel found means. */
export interface FaultSite {
  readonly op: string;
  describe(value: number): string;
}

/** What the planner needs of the device. */
export interface PlanTarget {
  /** Compute capability whose kernels may be used, such as 90 for 9.0. */
  readonly capability: number;
  readonly multiprocessors: number;
  /** Shared memory that a block may have, at most. */
  readonly sharedBytes: number;
  /** How many clusters of a kernel's blocks can be at work at once. */
  readonly clusters: (kernel: string, block: number, sharedBytes: number) => number;
  /** Whether every run gives the same bits. */
  readonly deterministic: boolean;
  /** Where kernels report bad values. */
  readonly fault: Storage;
  /** A number for a node that may report, not used before. */
  nextFaultNumber(): number;
  prepare(product: Product): PreparedProduct;
}

export type LoweringRule = (context: Context) => void;

/** An output that is some or all elements of an input, in its memory, with no work to do. */
export interface Alias {
  readonly input: string;
  /** Where the elements lie: the first, in elements from that of the input, and from there; undefined where no strides tell. */
  place(strides: Strides): { readonly first: number; readonly strides: Strides } | undefined;
}

/** An input that an output holds from some index of an axis on: whoever makes it may write it there. */
export interface Part {
  readonly input: string;
  readonly axis: number;
  readonly start: number;
}

export interface PlanRules {
  ruleOf(node: Node): LoweringRule | undefined;
  aliasOf(node: Node): Alias | undefined;
  /** The parts of an output that does nothing but hold them. */
  gatheringOf(node: Node): readonly Part[] | undefined;
}

/** @throws UnsupportedOpError for an operation without a kernel; DeviceError where one needs more than the device has */
export function makePlan(
  graph: Graph,
  state: readonly (readonly [input: string, output: string])[],
  rules: PlanRules,
  target: PlanTarget,
): Plan {
  return new Planner(graph, state, rules, target).plan();
}

const alignment = 256;
/** Share of a storage that outputs must have to be left there: the rest is held for as long as they are. */
const leastFilled = 0.9;
/** A kept output of at most so many bytes is moved before the next run, so that this one is launched as it was captured. */
export const movedBytes = 2 ** 16;
/** What kernels read and write at once, at most. */
const vectorBytes = 16;

class Planner {
  readonly #graph: Graph;
  readonly #rules: PlanRules;
  readonly target: PlanTarget;
  /** Moves that follow each other stand together where their order does not matter. */
  readonly #steps: (Step | { readonly kind: "moves"; readonly op: string; readonly moves: Move[] })[] = [];
  readonly faults = new Map<number, FaultSite>();
  readonly #temporaries = new Set<Storage>();
  /** Memory that holds zeros before the first run, with the places in it that nothing writes to. */
  readonly #zeros = new Map<Storage, string[]>();
  /** What a run begins with: zeros, and inputs that are put together. */
  readonly #firstMoves: Move[] = [];
  readonly #views = new Map<AnyTensor, Region>();
  /** Dense copies of tensors that lie otherwise. */
  readonly #copies = new Map<AnyTensor, Region>();
  readonly #inputs: { [name: string]: Storage } = {};
  /** Memory of inputs that are no states: nothing writes there. */
  readonly #lasting = new Set<Storage>();
  readonly #outputs: { [name: string]: View } = {};
  readonly #constants: { storage: Storage; node: Node }[] = [];
  /** The tensor whose memory a tensor lies in. */
  readonly #bases = new Map<AnyTensor, AnyTensor>();
  /** Index of the last node that reads a tensor's memory; the number of nodes where the end of the run does. */
  readonly #lastRead = new Map<AnyTensor, number>();
  /** Memory of a whole and its parts, each of which may be read after the other: nothing may be written over them. */
  readonly #shared = new Set<Storage>();
  /** Where a tensor's memory is decided by an output that it is, or by what it is a part of. */
  readonly #claims = new Map<AnyTensor, Region>();
  /** For claims on the memory of a state: the input whose old value must have been read. */
  readonly #claimedState = new Map<AnyTensor, AnyTensor>();
  readonly #ends: End[] = [];

  constructor(
    graph: Graph,
    state: readonly (readonly [input: string, output: string])[],
    rules: PlanRules,
    target: PlanTarget,
  ) {
    this.#graph = graph;
    this.#rules = rules;
    this.target = target;
    for (const [name, tensor] of Object.entries(graph.inputTensors)) {
      const storage = new Storage(bytesOfSpec(tensor), "input");
      this.#inputs[name] = storage;
      if (!state.some(([input]) => input === name)) this.#lasting.add(storage);
      this.#views.set(tensor, wholeOf(storage, tensor));
    }
    this.#findBases();
    this.#findReads();
    this.#claimOutputs(state);
    this.#claimParts();
  }

  #findBases(): void {
    for (const node of this.#graph.nodes) {
      const alias = this.#rules.aliasOf(node);
      const [output] = Object.values(node.outputs);
      const input = alias && node.inputs[alias.input];
      if (!alias || !input || !output) continue;
      this.#bases.set(output, this.baseOf(input));
    }
  }

  baseOf(tensor: AnyTensor): AnyTensor {
    return this.#bases.get(tensor) ?? tensor;
  }

  #findReads(): void {
    this.#graph.nodes.forEach((node, index) => {
      if (this.#rules.aliasOf(node)) return;
      for (const tensor of Object.values(node.inputs)) this.#lastRead.set(this.baseOf(tensor), index);
    });
  }

  lastReadOf(base: AnyTensor): number {
    return this.#lastRead.get(base) ?? -1;
  }

  #claimOutputs(state: readonly (readonly [input: string, output: string])[]): void {
    const stateOf = new Map(state.map(([input, output]) => [output, input]));
    const isInput = new Set(Object.values(this.#graph.inputTensors));
    for (const [name, tensor] of Object.entries(this.#graph.outputTensors)) {
      const base = this.baseOf(tensor);
      const input = stateOf.get(name);
      const storage = input === undefined ? new Storage(bytesOfSpec(tensor), "output") : this.#inputs[input];
      if (storage === undefined) throw new GraphError(`state: no input is named "${input}"`);
      if (input === undefined) this.#outputs[name] = { storage, offset: 0 };
      const old = input === undefined ? undefined : this.#graph.inputTensors[input];
      if (base === old && bytesOfSpec(base) === bytesOfSpec(tensor)) continue;
      const whole = bytesOfSpec(base) === bytesOfSpec(tensor);
      const made = !isInput.has(base) && base.node.op !== constantOp;
      if (whole && made && !this.#claims.has(base) && !this.#isEnd(base)) {
        this.#claims.set(base, wholeOf(storage, base));
        if (old) this.#claimedState.set(base, old);
      } else {
        this.#ends.push({ tensor, target: storage });
        this.#lastRead.set(base, this.#graph.nodes.length);
      }
    }
  }

  /**
   * Outputs that nearly fill the memory that they are parts of, such as gradients that one product gives, stay there. Small
   * ones do not, since each is moved by itself.
   * @returns the other ends
   */
  #leaveOutputs(): readonly End[] {
    const names = new Map(Object.entries(this.#outputs).map(([name, { storage }]) => [storage, name]));
    const staying = new Map<Storage, { readonly end: End; readonly offset: number; readonly bytes: number }[]>();
    for (const end of this.#ends) {
      const { storage, offset, strides } = this.viewOf(end.tensor);
      const bytes = bytesOfSpec(end.tensor);
      const parts = staying.get(storage) ?? [];
      const isFree = parts.every((part) => offset >= part.offset + part.bytes || part.offset >= offset + bytes);
      const isWhole = isDense(sizesOf(end.tensor.shape), strides) && offset % alignment === 0;
      if (!names.has(end.target) || !this.#temporaries.has(storage) || !isFree || !isWhole) continue;
      staying.set(storage, [...parts, { end, offset, bytes }]);
    }
    const left = new Set<End>();
    for (const [storage, parts] of staying) {
      const filled = parts.reduce((sum, { bytes }) => sum + bytes, 0);
      if (filled < leastFilled * storage.bytes || storage.bytes <= movedBytes) continue;
      storage.origin = "output";
      this.#temporaries.delete(storage);
      for (const { end, offset } of parts) {
        this.#outputs[names.get(end.target) as string] = { storage, offset };
        left.add(end);
      }
    }
    return this.#ends.filter((end) => !left.has(end));
  }

  /** Lets the parts of what is put together be made in their places: those that are put together once. */
  #claimParts(): void {
    const isInput = new Set(Object.values(this.#graph.inputTensors));
    const outputs = new Set(this.#claims.keys());
    const wholes = this.#graph.nodes.flatMap((node) => {
      const parts = this.#rules.gatheringOf(node);
      const [whole] = Object.values(node.outputs);
      return parts && whole && !outputs.has(whole) ? [{ node, whole, parts }] : [];
    });
    const uses = new Map<AnyTensor, number>();
    for (const { node, parts } of wholes) {
      for (const { input } of parts) {
        const base = this.baseOf(node.inputs[input] as AnyTensor);
        uses.set(base, (uses.get(base) ?? 0) + 1);
      }
    }
    // What is put together of such wholes comes after them, and decides where they are.
    for (const { node, whole, parts } of wholes.toReversed()) {
      const region = this.#claims.get(whole) ?? wholeOf(this.temporary(bytesOfSpec(whole)), whole);
      const { storage, offset, strides } = region;
      this.#shared.add(storage);
      this.#claims.set(whole, region);
      for (const { input, axis, start } of parts) {
        const tensor = node.inputs[input] as AnyTensor;
        const base = this.baseOf(tensor);
        if (isInput.has(base) || base.node.op === constantOp || this.#claims.has(base)) continue;
        if (uses.get(base) !== 1 || bytesOfSpec(base) !== bytesOfSpec(tensor)) continue;
        const own = reshapeStrides(sizesOf(tensor.shape), strides, sizesOf(base.shape));
        const first = start * (strides[axis] ?? 0) * bytesOf(whole.dtype);
        if (own) this.#claims.set(base, { storage, offset: offset + first, strides: own });
      }
    }
  }

  #isEnd(base: AnyTensor): boolean {
    return this.lastReadOf(base) === this.#graph.nodes.length;
  }

  plan(): Plan {
    this.#graph.nodes.forEach((node, index) => {
      this.#lower(node, index);
    });
    this.#copyEnds();
    const single = [
      ...(this.#firstMoves.length > 0 ? moveSteps("concat", this.#firstMoves) : []),
      ...this.#steps.flatMap((step) => (step.kind === "moves" ? moveSteps(step.op, step.moves) : [step])),
    ];
    const { capability, clusters } = this.target;
    const steps = joinPhases(single, { capability, clusters, zeros: (count) => this.zeros(count) });
    steps.forEach((step, index) => {
      checkSharedMemory(step, this.target.sharedBytes);
      for (const { storage } of viewsOf(step)) {
        storage.first = Math.min(storage.first, index);
        storage.last = index;
      }
    });
    const arenaBytes = placeTemporaries([...this.#temporaries]);
    const zeroBytes = placeZeros(this.#zeros);
    return {
      steps,
      inputs: this.#inputs,
      outputs: this.#outputs,
      constants: this.#constants,
      temporaries: [...this.#temporaries],
      faults: this.faults,
      arenaBytes,
      zeros: [...this.#zeros.keys()],
      zeroBytes,
    };
  }

  #lower(node: Node, index: number): void {
    if (node.op === constantOp) {
      const [tensor] = Object.values(node.outputs);
      if (!tensor) return;
      const storage = new Storage(bytesOfSpec(tensor), "constant");
      this.#constants.push({ storage, node });
      this.#views.set(tensor, wholeOf(storage, tensor));
      return;
    }
    const alias = this.#rules.aliasOf(node);
    if (alias) {
      const input = node.inputs[alias.input];
      const [output] = Object.values(node.outputs);
      if (!input || !output) throw new GraphError(`${node.op.name}: has no input "${alias.input}"`);
      const view = this.viewOf(input);
      const there = alias.place(view.strides);
      const { storage, offset } = there ? view : this.denseOf(input, node.op.name);
      const { first, strides } = there ?? alias.place(denseStrides(sizesOf(input.shape))) ?? { first: 0, strides: [] };
      this.#views.set(output, { storage, offset: offset + first * bytesOf(input.dtype), strides });
      return;
    }
    const rule = this.#rules.ruleOf(node);
    if (rule === undefined) {
      throw new UnsupportedOpError(node.op.name, "cuda", "it is a primitive without a kernel");
    }
    rule(new Context(this, node, index));
  }

  viewOf(tensor: AnyTensor): Region {
    const view = this.#views.get(tensor);
    if (view === undefined) throw new GraphError(`cuda: ${specText(tensor)} of ${tensor.node.op.name} has no memory`);
    return view;
  }

  /** A tensor's elements without gaps, at an address that vector loads can read: in place where they lie so, else copied. */
  denseOf(tensor: AnyTensor, op: string): Region {
    const view = this.viewOf(tensor);
    const sizes = sizesOf(tensor.shape);
    if (isDense(sizes, view.strides) && view.offset % vectorBytes === 0) return view;
    const known = this.#copies.get(tensor);
    if (known) return known;
    const copy = wholeOf(this.temporary(bytesOfSpec(tensor)), tensor);
    this.#copies.set(tensor, copy);
    copyElements(this.#adder(op), bytesOf(tensor.dtype), sizes, view, copy);
    return copy;
  }

  #adder(op: string): KernelAdder {
    return {
      multiprocessors: this.target.multiprocessors,
      kernel: (kernel, grid, block, args) => this.addKernel(op, kernel, grid, block, args),
      copy: (source, target, bytes) => this.move(op, { source, target, bytes }),
    };
  }

  /** Memory for an output of the node at `index`; over an input that dies there, where one of `over` allows it. */
  place(node: Node, index: number, tensor: AnyTensor, over: readonly string[], fits: Fits): Region {
    const view = this.#regionFor(node, index, tensor, over, fits);
    this.#views.set(tensor, view);
    return view;
  }

  /** The same, there even where it belongs elsewhere. */
  placeOver(node: Node, index: number, tensor: AnyTensor, over: readonly string[]): Region {
    const view = this.#overwritten(node, index, tensor, over);
    if (!view) return this.place(node, index, tensor, [], () => false);
    return this.#placeApart(tensor, view);
  }

  /** Memory for an output at the beginning of more. */
  placeInMore(tensor: AnyTensor, bytes: number): Region {
    return this.#placeApart(tensor, wholeOf(this.temporary(bytes), tensor));
  }

  /** Where an output or a state is not made where it belongs, it goes there at the end. */
  #placeApart(tensor: AnyTensor, view: Region): Region {
    const claim = this.#claims.get(tensor);
    if (claim && claim.storage.origin !== "temporary") {
      this.#ends.push({ tensor, target: claim.storage });
      this.#lastRead.set(tensor, this.#graph.nodes.length);
    }
    this.#views.set(tensor, view);
    return view;
  }

  #regionFor(node: Node, index: number, tensor: AnyTensor, over: readonly string[], fits: Fits): Region {
    const claim = this.#claims.get(tensor);
    const old = this.#claimedState.get(tensor);
    if (claim && !old) {
      const dense = isDense(sizesOf(tensor.shape), claim.strides) && claim.offset % vectorBytes === 0;
      return dense || fits(claim) ? claim : wholeOf(this.temporary(bytesOfSpec(tensor)), tensor);
    }
    if (claim && old) {
      const last = this.lastReadOf(old);
      if (last < index || (last === index && this.#mayOverwrite(node, tensor, old, over))) return claim;
      this.#ends.push({ tensor, target: claim.storage });
      this.#lastRead.set(tensor, this.#graph.nodes.length);
    }
    return this.#overwritten(node, index, tensor, over) ?? wholeOf(this.temporary(bytesOfSpec(tensor)), tensor);
  }

  /** The memory of an input that dies at the node, and may be overwritten. */
  #overwritten(node: Node, index: number, tensor: AnyTensor, over: readonly string[]): Region | undefined {
    for (const name of over) {
      const input = node.inputs[name];
      const base = input && this.baseOf(input);
      if (!base || this.lastReadOf(base) !== index) continue;
      const view = this.viewOf(base);
      const whole = view.offset === 0 && isDense(sizesOf(base.shape), view.strides);
      const free = view.storage.origin === "temporary" && !this.#shared.has(view.storage);
      if (free && whole && this.#mayOverwrite(node, tensor, base, over)) return wholeOf(view.storage, tensor);
    }
    return undefined;
  }

  /** Every input of the node that lies in this memory is one that it may overwrite, and fills it like the output. */
  #mayOverwrite(node: Node, output: AnyTensor, base: AnyTensor, over: readonly string[]): boolean {
    return Object.entries(node.inputs).every(([name, tensor]) => {
      if (this.baseOf(tensor) !== base) return true;
      const alike = tensor.dtype === output.dtype && bytesOfSpec(tensor) === bytesOfSpec(output);
      return over.includes(name) && alike && bytesOfSpec(base) === bytesOfSpec(output);
    });
  }

  /** Memory of its own that holds zeros before the first run. */
  zeros(count: number): Storage {
    const storage = new Storage(4 * count, "constant");
    this.#zeros.set(storage, [`${this.#zeros.size}`]);
    return storage;
  }

  /** Memory that is zero when a run begins. */
  zeroAtFirst(bytes: number): Storage {
    const storage = this.temporary(bytes);
    this.#firstMoves.push({ source: undefined, target: { storage, offset: 0 }, bytes });
    return storage;
  }

  /**
   * Has zeros in a place before the first run, where nothing else is ever written there.
   * @param place one text for all such places of storages of one size
   * @returns false where something may be, so that zeros are to be written in every run
   */
  keepsZeros(storage: Storage, place: string): boolean {
    const places = this.#zeros.get(storage) ?? [];
    if (places.length === 0 && !(this.#temporaries.has(storage) && this.#shared.has(storage))) return false;
    this.#temporaries.delete(storage);
    this.#zeros.set(storage, [...places, place]);
    return true;
  }

  temporary(bytes: number): Storage {
    const storage = new Storage(Math.max(bytes, 1), "temporary");
    this.#temporaries.add(storage);
    return storage;
  }

  add(step: Step): void {
    this.#steps.push(step);
  }

  move(op: string, move: Move): void {
    const { source, target, bytes } = move;
    if (bytes === 0 || (source?.storage === target.storage && source.offset === target.offset)) return;
    const last = this.#steps.at(-1);
    // A whole has memory of its own, where only its parts are written: inputs can be there from the beginning.
    const isEarly = source && this.#lasting.has(source.storage) && this.#shared.has(target.storage);
    if (isEarly) this.#firstMoves.push(move);
    else if (last?.kind === "moves" && !last.moves.some((other) => areOrdered(other, move))) last.moves.push(move);
    else this.#steps.push({ kind: "moves", op, moves: [move] });
  }

  addKernel(
    op: string,
    kernel: string,
    grid: number | readonly [number, number, number],
    block: number,
    args: readonly Argument[],
    sharedBytes = 0,
    { overlaps = false, phase }: KernelOptions = {},
  ): void {
    const packed = packArguments(kernel, kernelEntry(kernel).parameters, args);
    const sizes: readonly [number, number, number] = typeof grid === "number" ? [grid, 1, 1] : grid;
    const mode = overlaps ? "overlapping" : "alone";
    const kernelStep = { op, kind: "kernel", kernel, grid: sizes, block, sharedBytes, mode, packed } as const;
    this.add(phase ? { ...kernelStep, phase } : kernelStep);
  }

  /** What outputs are that lie elsewhere. States are read before any of them is overwritten. */
  #copyEnds(): void {
    const moved = this.#leaveOutputs();
    const overwritten = new Set(moved.map(({ target }) => target));
    const adder = this.#adder("copy");
    const copy = (tensor: AnyTensor, from: Region, storage: Storage): Region => {
      const to = wholeOf(storage, tensor);
      copyElements(adder, bytesOf(tensor.dtype), sizesOf(tensor.shape), from, to);
      return to;
    };
    const ends = moved.map(({ tensor, target }) => {
      const view = this.viewOf(tensor);
      const staged = overwritten.has(view.storage);
      return { tensor, target, source: staged ? copy(tensor, view, this.temporary(bytesOfSpec(tensor))) : view };
    });
    const isWhole = ({ tensor, source }: (typeof ends)[number]) => isDense(sizesOf(tensor.shape), source.strides);
    // Those without gaps follow each other, so that they are one launch.
    for (const whole of [false, true]) {
      for (const end of ends) if (isWhole(end) === whole) copy(end.tensor, end.source, end.target);
    }
  }
}

/** What a lowering works with: one node, its values, and ways to add steps. */
export class Context {
  readonly node: Node;
  readonly #planner: Planner;
  readonly #index: number;

  constructor(planner: Planner, node: Node, index: number) {
    this.#planner = planner;
    this.node = node;
    this.#index = index;
  }

  get multiprocessors(): number {
    return this.#planner.target.multiprocessors;
  }

  get sharedBytes(): number {
    return this.#planner.target.sharedBytes;
  }

  get capability(): number {
    return this.#planner.target.capability;
  }

  get deterministic(): boolean {
    return this.#planner.target.deterministic;
  }

  attributes<A>(): A {
    // A rule is only ever called for nodes of its own operation, whose attributes have this type.
    return this.node.attributes as A;
  }

  input(name: string): Value {
    const found = this.optional(name);
    if (found === undefined) throw new GraphError(`${this.node.op.name}: input "${name}" is missing`);
    return found;
  }

  optional(name: string): Value | undefined {
    const tensor = this.node.inputs[name];
    return tensor && valueAt(tensor, this.#planner.denseOf(tensor, this.node.op.name));
  }

  /** An input wherever it lies: for kernels that are told the distances of elements. */
  strided(name: string): Value {
    const tensor = this.node.inputs[name];
    if (tensor === undefined) throw new GraphError(`${this.node.op.name}: input "${name}" is missing`);
    return valueAt(tensor, this.#planner.viewOf(tensor));
  }

  get inputs(): readonly Value[] {
    return Object.keys(this.node.inputs).map((name) => this.input(name));
  }

  /**
   * Memory for an output, to be asked for once.
   * @param over inputs that may be overwritten, since each element is read before, and by the thread that writes it
   */
  output(name = "value", over: readonly string[] = []): Value {
    return this.#output(name, over, () => false);
  }

  /**
   * The same for kernels that are told the distances of elements: what is a part of something is written there.
   * @param fits whether the kernel can write to a place; where it cannot, the output is dense
   */
  stridedOutput(name = "value", over: readonly string[] = [], fits: Fits = () => true): Value {
    return this.#output(name, over, fits);
  }

  /** The same in the memory of one of these inputs, if it can be there, wherever the output belongs. */
  outputOver(name: string, over: readonly string[]): Value {
    const tensor = this.#tensor(name);
    return valueAt(tensor, this.#planner.placeOver(this.node, this.#index, tensor, over));
  }

  /** The same at the beginning of so many bytes, all of which may be written. */
  outputInMore(name: string, bytes: number): Value {
    const tensor = this.#tensor(name);
    return valueAt(tensor, this.#planner.placeInMore(tensor, bytes));
  }

  #output(name: string, over: readonly string[], fits: Fits): Value {
    const tensor = this.#tensor(name);
    return valueAt(tensor, this.#planner.place(this.node, this.#index, tensor, over, fits));
  }

  #tensor(name: string): AnyTensor {
    const tensor = this.node.outputs[name];
    if (tensor === undefined) throw new GraphError(`${this.node.op.name}: has no output "${name}"`);
    return tensor;
  }

  scratch(bytes: number): View {
    return { storage: this.#planner.temporary(bytes), offset: 0 };
  }

  /** int32 counters that are zero before the first run, and that the kernel leaves so. */
  counters(count: number): View {
    return { storage: this.#planner.zeros(count), offset: 0 };
  }

  /** An int32 counter that is zero when a run begins. */
  counter(): View {
    return { storage: this.#planner.zeroAtFirst(4), offset: 0 };
  }

  /**
   * Whether an output that is given once has zeros before and behind what is written along an axis, without a step in any run.
   */
  keepsZeros({ storage, offset, sizes, strides }: Value, axis: number, first: number, count: number): boolean {
    return this.#planner.keepsZeros(storage, JSON.stringify([offset, sizes, strides, axis, first, count]));
  }

  /**
   * @param sharedBytes dynamic shared memory
   */
  kernel(
    kernel: string,
    grid: number | readonly [number, number, number],
    block: number,
    args: readonly Argument[],
    sharedBytes = 0,
    options: KernelOptions = {},
  ): void {
    this.#planner.addKernel(this.node.op.name, kernel, grid, block, args, sharedBytes, options);
  }

  /** @param addend what is added to the product, laid out like c; c itself adds to what is there */
  product(product: Omit<Product, "adds">, a: View, b: View, c: View, addend?: View): void {
    const prepared = this.#planner.target.prepare({ ...product, adds: addend !== undefined });
    this.#planner.add({ op: this.node.op.name, kind: "product", product: prepared, a, b, c, addend });
  }

  zero(target: View, bytes: number): void {
    this.#planner.move(this.node.op.name, { source: undefined, target, bytes });
  }

  copy(source: View, target: View, bytes: number): void {
    this.#planner.move(this.node.op.name, { source, target, bytes });
  }

  /** The two last arguments of kernels that may report a bad value. */
  fault(describe: (value: number) => string): readonly [View, number] {
    const number = this.#planner.target.nextFaultNumber();
    this.#planner.faults.set(number, { op: this.node.op.name, describe });
    return [{ storage: this.#planner.target.fault, offset: 0 }, number];
  }
}

type Fits = (region: Region) => boolean;

interface KernelOptions {
  /** Whether it waits by itself for the kernel before it; see LaunchMode. Default false. */
  readonly overlaps?: boolean;
  readonly phase?: Phase | undefined;
}

/** An output that is not made where it belongs. */
interface End {
  readonly tensor: AnyTensor;
  readonly target: Storage;
}

/** What adds kernels and copies to the steps. */
export interface KernelAdder {
  readonly multiprocessors: number;
  kernel(kernel: string, grid: number, block: number, args: readonly Argument[]): void;
  copy(source: View, target: View, bytes: number): void;
}

/** @throws DeviceError where a kernel asks for more than a block may have */
function checkSharedMemory(step: Step, most: number): void {
  if (step.kind !== "kernel" || step.sharedBytes <= most) return;
  const { op, kernel, sharedBytes } = step;
  throw new DeviceError(`${op}: ${kernel} needs ${sharedBytes} bytes of shared memory a block, the device has ${most}`);
}

function wholeOf(storage: Storage, tensor: AnyTensor): Region {
  return { storage, offset: 0, strides: denseStrides(sizesOf(tensor.shape)) };
}

function valueAt(tensor: AnyTensor, view: Region): Value {
  const sizes = sizesOf(tensor.shape);
  const count = sizes.reduce((a, b) => a * b, 1);
  const { dtype, shape } = tensor;
  return { ...view, spec: { dtype, shape }, sizes, count, bytes: count * bytesOf(dtype) };
}

export function bytesOfSpec({ dtype, shape }: TensorSpec): number {
  return sizesOf(shape).reduce((a, b) => a * b, 1) * bytesOf(dtype);
}

/**
 * Gives storages offsets so that those in use at once do not overlap, and those that do have the same places that stay zero.
 * Returns the size.
 */
function placeZeros(storages: ReadonlyMap<Storage, readonly string[]>): number {
  const alike = new Map<string, { readonly address: number; last: number }[]>();
  let end = 0;
  const inOrder = [...storages].toSorted(([a], [b]) => a.first - b.first);
  for (const [storage, places] of inOrder) {
    const key = `${storage.bytes}: ${places.join()}`;
    const known = alike.get(key) ?? [];
    let place = known.find(({ last }) => last < storage.first);
    if (!place) {
      place = { address: end, last: 0 };
      alike.set(key, [...known, place]);
      end = aligned(end + storage.bytes);
    }
    place.last = storage.last;
    storage.address = place.address;
  }
  return end;
}

/** Gives temporary storages offsets (as addresses from 0) so that those in use at once do not overlap. Returns the size. */
export function placeTemporaries(storages: readonly Storage[]): number {
  const placed: Storage[] = [];
  let end = 0;
  const used = storages.filter(({ last }) => last >= 0).sort((a, b) => b.bytes - a.bytes);
  for (const storage of used) {
    const rivals = placed
      .filter((other) => other.first <= storage.last && storage.first <= other.last)
      .sort((a, b) => a.address - b.address);
    let offset = 0;
    for (const rival of rivals) {
      if (offset + storage.bytes <= rival.address) break;
      offset = Math.max(offset, aligned(rival.address + rival.bytes));
    }
    storage.address = offset;
    placed.push(storage);
    end = Math.max(end, offset + storage.bytes);
  }
  return aligned(end);
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}
