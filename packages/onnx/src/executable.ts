// A compiled graph: decides for each run which memory it reads and writes, and enqueues it.

import {
  BlockTensor,
  boundSymbols,
  checkState,
  DeviceError,
  type DeviceTensor,
  DisposedError,
  type Executable,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  type SisaError,
  type TensorSpec,
} from "@sisa/core";
import type { Block, OnnxTensor, TensorHost } from "./device-tensor.ts";
import { messageOf, type Session } from "./runtime.ts";

export interface ExecutableHost extends TensorHost {
  /** @throws GraphError for a tensor of another backend */
  own(tensor: DeviceTensor): OnnxTensor;
  checkOpen(): void;
  enqueue(task: () => Promise<void>): void;
}

export interface ExecutableParts {
  readonly graph: Graph;
  readonly session: Session;
  readonly state: { readonly [input: string]: string | undefined };
  /** Inputs that are part of the session. */
  readonly constants: ReadonlySet<string>;
  /** Pairs of an input and the output that may overwrite it. */
  readonly inPlace: ReadonlyMap<string, string>;
  /** Called once, when the session is closed. */
  readonly closed: () => void;
}

/** What an input and an output are called in the model, apart from each other even where they share a name. */
export const inputName = (name: string) => `in ${name}`;
export const outputName = (name: string) => `out ${name}`;

interface Output {
  readonly name: string;
  /** The input whose handle this output becomes the value of. */
  readonly state: string | undefined;
  block: Block | undefined;
  view: OnnxTensor | undefined;
}

/** Specs of the outputs for inputs of certain shapes. */
interface Plan {
  readonly specs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

export class OnnxExecutable<I extends GraphInputs, O extends GraphOutputs> implements Executable<I, O> {
  readonly #host: ExecutableHost;
  readonly #parts: ExecutableParts;
  readonly #inputs: readonly string[];
  readonly #outputs: readonly Output[];
  #plan: Plan | undefined;
  #closed = false;

  constructor(host: ExecutableHost, parts: ExecutableParts) {
    this.#host = host;
    this.#parts = parts;
    const { graph, constants } = parts;
    this.#inputs = Object.keys(graph.inputs).filter((name) => !constants.has(name));
    const states = new Map(checkState(graph, parts.state).map(([input, output]) => [output, input]));
    this.#outputs = Object.keys(graph.outputs).map((name) => ({
      name,
      state: states.get(name),
      block: undefined,
      view: undefined,
    }));
  }

  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor } {
    const host = this.#host;
    host.checkOpen();
    if (this.#closed) throw new DisposedError("onnxruntime: the executable is closed");
    const given: { readonly [name: string]: DeviceTensor | undefined } = inputs;
    const tensors = this.#inputs.map((name) => {
      const tensor = given[name];
      if (tensor === undefined) throw new GraphError(`run: input "${name}" is missing`);
      return host.own(tensor);
    });
    const tensorOf = new Map(this.#inputs.map((name, index) => [name, tensors[index]]));
    const plan = this.#planFor(tensors);
    this.#checkStates(tensorOf);

    const feeds: Record<string, Block> = {};
    tensors.forEach((tensor, index) => {
      feeds[inputName(this.#inputs[index] ?? "")] = tensor.block;
    });
    for (const output of this.#outputs) this.#expire(output);
    const fetches: Record<string, Block> = {};
    const results = this.#outputs.map((output, index) => {
      const state = output.state === undefined ? undefined : tensorOf.get(output.state);
      const spec = plan.outputs[index];
      if (spec === undefined) throw new GraphError(`run: output "${output.name}" has no spec`);
      const block = state ? this.#nextBlock(output, state, feeds) : this.#outputBlock(output, spec);
      fetches[outputName(output.name)] = block;
      if (state) return [output.name, state] as const;
      output.view = new BlockTensor(host, spec, block, false);
      return [output.name, output.view] as const;
    });
    for (const output of this.#outputs) {
      const state = output.state === undefined ? undefined : tensorOf.get(output.state);
      const block = fetches[outputName(output.name)];
      if (state && block) state.advance(block);
    }
    host.enqueue(() => this.#execute(feeds, fetches));
    return Object.fromEntries(results) as unknown as { [N in keyof O]: DeviceTensor };
  }

  /** Shapes of the outputs; computed again only when an input's shape is not the one of the last run. */
  #planFor(tensors: readonly OnnxTensor[]): Plan {
    const known = this.#plan;
    if (known && tensors.every(({ spec }, index) => spec === known.specs[index])) return known;
    const { graph } = this.#parts;
    const specs = tensors.map(({ spec }) => spec);
    const byName = new Map(this.#inputs.map((name, index) => [name, specs[index]]));
    for (const [name, spec] of byName) {
      const expected = graph.inputs[name];
      if (spec && expected && spec.dtype !== expected.dtype) {
        throw new GraphError(`run: input "${name}" must be ${expected.dtype}, got ${spec.dtype}`);
      }
    }
    const symbols = boundSymbols(graph, (name) => byName.get(name)?.shape);
    const outputs = Object.values(graph.outputs).map(({ dtype, shape }) => ({
      dtype,
      shape: shape.map((size) => size.bind(symbols)),
    }));
    this.#plan = { specs, outputs };
    return this.#plan;
  }

  #checkStates(tensorOf: ReadonlyMap<string, OnnxTensor | undefined>): void {
    const seen = new Set<OnnxTensor>();
    for (const { state } of this.#outputs) {
      const tensor = state === undefined ? undefined : tensorOf.get(state);
      if (tensor === undefined) continue;
      if (!tensor.owned) {
        throw new GraphError(
          `run: state "${state}" is an output of an executable; keep() it, or make it with tensor()`,
        );
      }
      if (seen.has(tensor)) throw new GraphError(`run: one tensor is passed for two states, "${state}" among them`);
      seen.add(tensor);
    }
  }

  /** Where the next value of a state goes: over the present one where that is safe, else into the tensor's other array. */
  #nextBlock({ name, state: input }: Output, state: OnnxTensor, feeds: { readonly [name: string]: Block }): Block {
    const present = state.block;
    const overwrites = input !== undefined && this.#parts.inPlace.get(input) === name;
    const readers = Object.values(feeds).filter((block) => block === present).length;
    if (overwrites && readers === 1 && !present.shared) return present;
    return state.takeSpare();
  }

  #outputBlock(output: Output, spec: TensorSpec): Block {
    const { block } = output;
    const fits = block && !block.shared && sameSizes(block.dims, spec);
    if (fits) return block;
    block?.release();
    output.block = this.#host.allocate(spec);
    return output.block;
  }

  #expire(output: Output): void {
    output.view?.expire();
    output.view = undefined;
  }

  async #execute(
    feeds: { readonly [name: string]: Block },
    fetches: { readonly [name: string]: Block },
  ): Promise<void> {
    let failure: SisaError | undefined = Object.values(feeds).find((block) => block.error !== undefined)?.error;
    if (failure === undefined) {
      try {
        await this.#parts.session.run(feeds, fetches);
      } catch (error) {
        failure = runError(error);
      }
    }
    for (const block of Object.values(fetches)) block.error = failure;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const output of this.#outputs) {
      this.#expire(output);
      output.block?.release();
      output.block = undefined;
    }
    this.#host.enqueue(async () => {
      await this.#parts.session.release();
      this.#parts.closed();
    });
  }
}

function sameSizes(dims: readonly number[], { shape }: TensorSpec): boolean {
  return dims.length === shape.length && dims.every((size, axis) => shape[axis]?.value === size);
}

/** Names the operation that failed: nodes are called `<op>#<number>.<part>`. */
function runError(error: unknown): DeviceError {
  const message = messageOf(error);
  const node = /Name:'([^'#]+)#[^']*'/.exec(message);
  const status = /Status Message: ([\s\S]*)/.exec(message)?.[1] ?? message;
  return new DeviceError(node ? `${node[1]}: ${status}` : `onnxruntime: ${message}`, { cause: error });
}
