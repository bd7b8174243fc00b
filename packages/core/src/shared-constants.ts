// Constants of the programs of one backend. Programs that read the same array, or compute the same from constants alone, hold
// that once, however many they are.

import type { Backend, Executable } from "./backend.ts";
import { type BlockHost, BlockTensor, type DeviceBlock } from "./device-tensor.ts";
import type { TypedArray } from "./dtype.ts";
import type { Graph, GraphInputs, GraphOutputs } from "./graph/graph.ts";
import type { Hoisted } from "./graph/hoist-constants.ts";
import { attributesKey, identityOf, memoryKey } from "./graph/keys.ts";
import { pickOutputs } from "./graph/passes.ts";
import type { AnyTensor } from "./graph/tensor.ts";
import { specText, type TensorSpec } from "./spec.ts";

/** What shared constants need of their backend. */
export interface ConstantsHost<B extends DeviceBlock> extends BlockHost<B>, Pick<Backend, "tensor"> {
  /** A program of a graph of which no input is constant. */
  assemble(graph: Graph): Promise<Executable<GraphInputs, GraphOutputs>>;
}

/** Values of constants, by the names of the inputs that they are for, checked. */
export type GivenConstants = readonly (readonly [name: string, spec: TensorSpec, data: TypedArray])[];

/** The constants of all programs of a backend. Programs own them; what no program owns any more is given back. */
export class SharedConstants<B extends DeviceBlock> {
  readonly #host: ConstantsHost<B>;
  /** By what they are made of. Those that were given back are forgotten when something is held the next time. */
  readonly #blocks = new Map<string, B>();
  /** Settled when no constants are being made: what two programs need that are compiled at once is made for one of them. */
  #idle: Promise<unknown> = Promise.resolve();

  constructor(host: ConstantsHost<B>) {
    this.#host = host;
  }

  /**
   * The constants of one program: those that are held already, and others that are uploaded or computed now. An array that
   * has changed since is another constant.
   *
   * @returns a handle for each input of `main` that is constant, to be disposed of when the program is closed
   */
  hold(hoisted: Hoisted, given: GivenConstants): Promise<{ readonly [input: string]: BlockTensor<B> }> {
    const held = this.#idle.then(() => this.#hold(hoisted, given));
    this.#idle = held.catch(() => undefined);
    return held;
  }

  async #hold({ once, main }: Hoisted, given: GivenConstants): Promise<{ [input: string]: BlockTensor<B> }> {
    for (const [key, block] of this.#blocks) if (block.freed) this.#blocks.delete(key);
    const data = new Map(given.map(([name, , array]) => [name, array]));
    const keys = keysOf(once, given);
    const handles: { [name: string]: BlockTensor<B> } = {};
    /** Adds a handle of what is held already or can be uploaded. Returns whether it could. */
    const take = (name: string, spec: TensorSpec): boolean => {
      const block = this.#blocks.get(keys.get(name) ?? "");
      const array = data.get(name);
      if (block) handles[name] = new BlockTensor(this.#host, spec, block.retain(), true);
      else if (array) handles[name] = this.#host.tensor(spec, array) as BlockTensor<B>;
      return handles[name] !== undefined;
    };
    try {
      const constants = Object.entries(main.inputs).filter(([name]) => keys.has(name));
      const missing = constants.filter(([name, spec]) => !take(name, spec)).map(([name]) => name);
      if (once && missing.length > 0) {
        const graph = pickOutputs(once, missing);
        for (const [name, spec] of Object.entries(graph.inputs)) if (!handles[name]) take(name, spec);
        const program = await this.#host.assemble(graph);
        try {
          const operands = Object.keys(graph.inputs).map((name) => [name, handles[name]]);
          const results = program.run(Object.fromEntries(operands));
          for (const name of missing) handles[name] = results[name]?.keep() as BlockTensor<B>;
        } finally {
          program.close();
        }
      }
      for (const [name] of constants) {
        const [key, handle] = [keys.get(name), handles[name]];
        if (key !== undefined && handle) this.#blocks.set(key, handle.block);
      }
      const kept = constants.map(([name]) => [name, handles[name] as BlockTensor<B>] as const);
      for (const [name, handle] of Object.entries(handles)) if (!main.inputs[name]) handle.dispose();
      return Object.fromEntries(kept);
    } catch (error) {
      for (const handle of Object.values(handles)) handle.dispose();
      throw error;
    }
  }
}

/** What constants are made of, by name: equal for equal values of equal memory. */
function keysOf(once: Graph | undefined, given: GivenConstants): ReadonlyMap<string, string> {
  const keys = new Map(
    given.map(([name, spec, data]) => [name, [specText(spec), memoryKey(data), contentKey(data)].join(" ")]),
  );
  if (once) {
    for (const name of Object.keys(once.outputs)) keys.set(name, expressionKey(pickOutputs(once, [name]), keys));
  }
  return keys;
}

/** The structure of a graph with one output. @param keys of its inputs */
function expressionKey(graph: Graph, keys: ReadonlyMap<string, string>): string {
  const names = new Map<AnyTensor, string>();
  const inputs = Object.entries(graph.inputTensors).map(([name, tensor], index) => {
    names.set(tensor, `i${index}`);
    return keys.get(name);
  });
  const nodes = graph.nodes.map((node, index) => {
    for (const [output, tensor] of Object.entries(node.outputs)) names.set(tensor, `${index}.${output}`);
    const operands = Object.entries(node.inputs).map(([input, tensor]) => `${input}=${names.get(tensor)}`);
    return [identityOf(node.op), ...operands, attributesKey(node.attributes)].join(" ");
  });
  const outputs = Object.values(graph.outputTensors).map((tensor) => names.get(tensor));
  return [...inputs, ...nodes, ...outputs].join("\n");
}

/** 64 bits that tell the contents of an array, in less time than it takes to copy them; and the bytes that fill no word. */
function contentKey(data: TypedArray): string {
  const { buffer, byteOffset, byteLength } = data.byteOffset % 4 === 0 ? data : data.slice();
  const words = new Int32Array(buffer, byteOffset, byteLength >> 2);
  const rest = new Uint8Array(buffer, byteOffset + words.byteLength, byteLength & 3);
  let [first, second] = [0, 0];
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? 0;
    first = Math.imul(first ^ word, 0x9e3779b1);
    first = (first << 15) | (first >>> 17);
    second = Math.imul(second ^ word, 0x85ebca6b);
    second = (second << 13) | (second >>> 19);
  }
  return [first, second, ...rest].join();
}
