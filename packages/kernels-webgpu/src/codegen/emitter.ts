// The text that computes one element of a tensor at a place, through all operations that are not kept in memory.

import { type AnyTensor, constantOp, kindOf, sizesOf } from "@sisa/core";
import { originOf } from "../fuse.ts";
import type { Lowering } from "../lowering.ts";
import type { Value } from "../program.ts";
import type { Place, Scope } from "./index-space.ts";
import { floatLiteral, type Slot } from "./shader.ts";

export interface EmitterHost {
  /** Where a tensor lies in memory; undefined for one that is computed where it is read. */
  valueOf(tensor: AnyTensor): Value | undefined;
  loweringOf(tensor: AnyTensor): Lowering;
}

export class Emitter implements Scope {
  readonly lines: string[] = [];
  readonly #host: EmitterHost;
  readonly #names = new Map<string, string>();
  readonly #prefix: string;
  readonly #aliases: ReadonlyMap<Value, string>;
  readonly #given: ReadonlyMap<AnyTensor, string>;
  readonly #slots = new Map<Value, string>();
  /** Every place that each value was read at. */
  readonly reads = new Map<Value, Set<string>>();

  /**
   * @param prefix  in front of all names that it makes
   * @param aliases names of values that are bound already
   * @param given   names of tensors' elements, wherever they are read
   */
  constructor(
    host: EmitterHost,
    prefix = "v",
    aliases: ReadonlyMap<Value, string> = new Map(),
    given: ReadonlyMap<AnyTensor, string> = new Map(),
  ) {
    this.#host = host;
    this.#prefix = prefix;
    this.#aliases = aliases;
    this.#given = given;
  }

  get slots(): { readonly [name: string]: Slot } {
    return Object.fromEntries([...this.#slots].map(([value, name]) => [name, { value, access: "read" as const }]));
  }

  define(expression: string): string {
    if (/^[\w.]+$/.test(expression)) return expression;
    const known = this.#names.get(expression);
    if (known !== undefined) return known;
    const name = `${this.#prefix}${this.#names.size}`;
    this.#names.set(expression, name);
    this.lines.push(`let ${name} = ${expression};`);
    return name;
  }

  /** The element of a tensor at a place: a name or a literal, of type f32, i32 or bool. */
  read(tensor: AnyTensor, place: Place): string {
    const given = this.#given.get(originOf(tensor));
    if (given !== undefined) return given;
    const value = this.#host.valueOf(tensor);
    if (value) return this.#load(value, place.flat);
    const { node } = tensor;
    if (node.op === constantOp) return literal(tensor);
    const lowering = this.#host.loweringOf(tensor);
    const sizes = (input: string) => sizesOf(node.inputs[input]?.shape ?? []);
    switch (lowering.kind) {
      case "pointwise": {
        const operands = Object.entries(node.inputs).map(([name, input]) =>
          this.read(input, place.broadcastFrom(sizes(name))),
        );
        return this.define(lowering.expression(operands, node));
      }
      case "view": {
        const first = Object.keys(node.inputs)[0] ?? "";
        const text = lowering.read({
          node,
          attributes: node.attributes,
          place,
          scope: this,
          sizes: (input = first) => sizes(input),
          read: (there, input = first) => this.read(node.inputs[input] as AnyTensor, there),
        });
        return this.define(text);
      }
      case "kernel":
        throw new Error(`${node.op.name}: is computed by a kernel, so its result must lie in memory`);
    }
  }

  #load(value: Value, flat: string): string {
    const places = this.reads.get(value) ?? new Set();
    this.reads.set(value, places.add(flat));
    const name = this.#aliases.get(value) ?? this.#slots.get(value) ?? `x${this.#slots.size}`;
    if (!this.#aliases.has(value)) this.#slots.set(value, name);
    switch (value.type) {
      case "f16":
        return this.define(`f32(${name}[${flat}])`);
      case "u32":
        return this.define(`(${name}[${flat}] != 0u)`);
      default:
        return this.define(`${name}[${flat}]`);
    }
  }
}

/** Constants of one element are part of the text. */
function literal({ node, dtype }: AnyTensor): string {
  const value = (node.attributes.data as ArrayLike<number>)[0] ?? 0;
  const kind = kindOf(dtype);
  if (kind === "bool") return value ? "true" : "false";
  if (kind === "int") return value < 0 ? `(${value})` : String(value);
  return floatLiteral(value);
}

/** A value of f32, i32 or bool as its array holds it. */
export function stored(type: Value["type"], expression: string): string {
  if (type === "u32") return `select(0u, 1u, ${expression})`;
  return type === "f16" ? `f16(${expression})` : expression;
}
