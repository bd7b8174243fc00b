// A compiled graph: decides for each run which memory it reads and writes, and enqueues it.

import {
  BlockTensor,
  boundSymbols,
  checkInputs,
  type DeviceTensor,
  DisposedError,
  type Executable,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  sameShape,
} from "@sisa/core";
import type { Device } from "./device/device.ts";
import { Block, type CudaTensor, type TensorHost } from "./device-tensor.ts";
import { Launcher } from "./launcher.ts";
import { joinOutcomes, type Outcomes } from "./outcomes.ts";
import { bytesOfSpec, movedBytes, type Plan, type Step, type Storage } from "./plan.ts";

export interface ExecutableHost extends TensorHost {
  readonly device: Device;
  readonly outcomes: Outcomes;
  /** @throws GraphError for a tensor of another backend */
  own(tensor: DeviceTensor): CudaTensor;
  checkOpen(): void;
}

export interface ExecutableParts {
  readonly graph: Graph;
  readonly plan: Plan;
  readonly state: readonly (readonly [input: string, output: string])[];
  readonly constants: { readonly [name: string]: CudaTensor };
  /** Addresses of the plan's own memory. */
  readonly held: readonly number[];
  readonly closed: () => void;
}

/** Milliseconds of a run, and of each of its steps. */
export interface Profile {
  readonly milliseconds: number;
  readonly steps: readonly { readonly step: Step; readonly milliseconds: number }[];
}

/** An input of the graph that is no constant. */
interface Place {
  readonly name: string;
  readonly storage: Storage | undefined;
  /** The output whose value it has after a run, where it is state. */
  readonly output: string | undefined;
}

interface Output {
  readonly name: string;
  readonly spec: DeviceTensor["spec"];
  /** Of its block in the storage. */
  readonly offset: number;
  block: Block | undefined;
  view: CudaTensor | undefined;
}

/** Outputs that lie in one memory. */
interface Outputs {
  readonly storage: Storage;
  readonly members: readonly Output[];
}

export class CudaExecutable<I extends GraphInputs, O extends GraphOutputs> implements Executable<I, O> {
  readonly #host: ExecutableHost;
  readonly #parts: ExecutableParts;
  readonly #launcher: Launcher;
  readonly #outputs: readonly Outputs[];
  /** Those of states first. */
  readonly #places: readonly Place[];
  readonly #states: number;
  /** The tensors of the last run, and how many were passed to it. */
  #last: { readonly tensors: readonly CudaTensor[]; readonly given: number } | undefined;
  /** The names of all outputs in their order, as `run` gives them. */
  readonly #results: { readonly [name: string]: undefined };
  /** Enqueues a copy of what is kept elsewhere. */
  readonly #copy: (from: Block, to: Block) => void;
  readonly #constants: readonly Block[];
  #closed = false;

  constructor(host: ExecutableHost, parts: ExecutableParts) {
    this.#host = host;
    this.#parts = parts;
    this.#results = Object.fromEntries(Object.keys(parts.graph.outputs).map((name) => [name, undefined]));
    this.#copy = host.copy.bind(host);
    this.#launcher = new Launcher(host.device, parts.plan.steps);
    const outputOf = new Map(parts.state);
    const places = Object.keys(parts.graph.inputs).flatMap((name) => {
      const [storage, constant] = [parts.plan.inputs[name], parts.constants[name]];
      if (storage && constant) storage.address = constant.block.address;
      return constant ? [] : [{ name, storage, output: outputOf.get(name) }];
    });
    this.#constants = Object.values(parts.constants).map(({ block }) => block);
    this.#outputs = groupOutputs(parts);
    const states = places.filter(({ output }) => output !== undefined);
    this.#places = [...states, ...places.filter(({ output }) => output === undefined)];
    this.#states = states.length;
  }

  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor } {
    const host = this.#host;
    host.checkOpen();
    if (this.#closed) throw new DisposedError("cuda: the executable is closed");
    // Plain loops over locals: a token has some sixty inputs, and code that has run a few hundred times is not yet compiled.
    const [places, states, copy] = [this.#places, this.#states, this.#copy];
    const tensors = this.#tensorsOf(inputs);
    const results: { [name: string]: DeviceTensor | undefined } = { ...this.#results };
    const written: Block[] = [];
    for (let i = 0; i < states; i++) {
      const tensor = tensors[i] as CudaTensor;
      written.push(tensor.exclusive(copy));
      results[(places[i] as Place).output as string] = tensor;
    }
    /** Read by this run, and given back once it is enqueued. */
    const held: Block[] = [];
    try {
      const blocks = this.#blocksOf(tensors, written, held);
      const outcomes = joinOutcomes(host.outcomes.ofRun(this.#parts.plan.faults), blocks, this.#constants);
      const addresses: number[] = [];
      for (const outputs of this.#outputs) {
        this.#prepare(outputs);
        for (const output of outputs.members) {
          const { name, spec } = output;
          const block = output.block as Block;
          addresses.push(block.address);
          written.push(block);
          output.view = new BlockTensor(host, spec, block, false);
          results[name] = output.view;
        }
      }
      // Outputs that somebody keeps may have moved, and be read again.
      for (let i = 0; i < blocks.length; i++) {
        const { address } = blocks[i] as Block;
        const { storage } = places[i] as Place;
        if (storage) storage.address = address;
        addresses.push(address);
      }
      this.#launcher.run(addresses);
      for (const block of written) block.outcomes = outcomes;
    } finally {
      for (const block of held) block.release();
    }
    return results as { readonly [N in keyof O]: DeviceTensor };
  }

  /**
   * The block that each input is read from. What is overwritten as state must not be read as something else: a copy is. An
   * output of the run before is held, so that this run's is written elsewhere.
   */
  #blocksOf(tensors: readonly CudaTensor[], states: readonly Block[], held: Block[]): readonly Block[] {
    const blocks: Block[] = [];
    for (let i = 0; i < tensors.length; i++) {
      const { block, spec, owned } = tensors[i] as CudaTensor;
      if (i >= states.length && states.includes(block)) {
        const copy = this.#host.allocate(spec);
        held.push(copy);
        this.#host.copy(block, copy);
        blocks.push(copy);
      } else {
        if (!owned) held.push(block.retain());
        blocks.push(block);
      }
    }
    return blocks;
  }

  /** What stands for each input of the graph. What is alike in the last run was checked there. */
  #tensorsOf(inputs: { readonly [N in keyof I]?: DeviceTensor }): readonly CudaTensor[] {
    const { graph, constants, state } = this.#parts;
    const given: { readonly [name: string]: DeviceTensor | undefined } = inputs;
    const known = this.#alike(given);
    if (known) return known;
    const checked = checkInputs<DeviceTensor>(graph, given, constants, state);
    const tensors = this.#places.map(({ name, output }) => {
      const tensor = this.#host.own(checked[name] as DeviceTensor);
      if (output !== undefined && !tensor.owned) {
        throw new GraphError(`run: state "${name}" is an output of an executable; keep() it, or make it with tensor()`);
      }
      return tensor;
    });
    boundSymbols(graph, (name) => checked[name]?.spec.shape);
    this.#last = { tensors, given: Object.keys(given).length };
    return tensors;
  }

  /** The tensors where they have the names and specs of those of the last run; undefined elsewhere. */
  #alike(given: { readonly [name: string]: DeviceTensor | undefined }): readonly CudaTensor[] | undefined {
    const last = this.#last;
    if (!last || Object.keys(given).length !== last.given) return undefined;
    const [places, known] = [this.#places, last.tensors];
    const tensors: CudaTensor[] = [];
    let changesState = false;
    for (let i = 0; i < places.length; i++) {
      const { name, output } = places[i] as Place;
      const tensor = given[name];
      const before = known[i];
      if (!tensor || !before) return undefined;
      if (tensor === before) {
        tensors.push(before);
        continue;
      }
      const own = this.#host.own(tensor);
      const isLike = own.spec.dtype === before.spec.dtype && sameShape(own.spec.shape, before.spec.shape);
      if (!isLike || (output !== undefined && !own.owned)) return undefined;
      changesState ||= output !== undefined;
      tensors.push(own);
    }
    // Each state needs a tensor of its own.
    if (changesState && new Set(tensors.slice(0, this.#states)).size < this.#states) return undefined;
    this.#last = { ...last, tensors };
    return tensors;
  }

  /** How long the last run takes on the device, and its steps; see Launcher. */
  async profile(): Promise<Profile> {
    const { milliseconds, steps } = await this.#launcher.profile();
    const all = this.#parts.plan.steps.map((step, index) => ({ step, milliseconds: steps[index] ?? 0 }));
    return { milliseconds, steps: all };
  }

  /** Blocks for the coming run: the last ones, unless somebody keeps the value of one. A small one keeps its address. */
  #prepare({ storage, members }: Outputs): void {
    for (const { view } of members) view?.expire();
    const [first] = members as readonly [Output];
    if (first.block && !members.some(({ block }) => block?.shared)) {
      storage.address = first.block.address - first.offset;
      return;
    }
    const last = members.map(({ block }) => block);
    const whole = this.#host.block(storage.bytes);
    if (members.length === 1 && bytesOfSpec(first.spec) === storage.bytes) {
      if (first.block && first.block.bytes <= movedBytes) {
        this.#host.copy(first.block, whole);
        first.block.exchange(whole);
      }
      first.block = whole;
    } else {
      for (const member of members) {
        const place = whole.retain().address + member.offset;
        member.block = new Block(place, bytesOfSpec(member.spec), () => whole.release());
      }
      whole.release();
    }
    for (const block of last) block?.release();
    storage.address = (first.block as Block).address - first.offset;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const output of this.#outputs.flatMap(({ members }) => members)) {
      output.view?.expire();
      output.block?.release();
      output.block = undefined;
    }
    const { device } = this.#host;
    // The steps of the last run may still be at work on this memory.
    device.driver.call("cuStreamSynchronize", device.stream);
    this.#launcher.close();
    for (const tensor of Object.values(this.#parts.constants)) tensor.dispose();
    for (const address of this.#parts.held) device.memory.free(address);
    this.#parts.closed();
  }
}

function groupOutputs({ graph, plan }: ExecutableParts): readonly Outputs[] {
  const groups = new Map<Storage, Output[]>();
  for (const [name, { storage, offset }] of Object.entries(plan.outputs)) {
    const spec = graph.outputs[name];
    if (spec === undefined) continue;
    const output = { name, spec, offset, block: undefined, view: undefined };
    groups.set(storage, [...(groups.get(storage) ?? []), output]);
  }
  return [...groups].map(([storage, members]) => ({ storage, members }));
}
