// How arguments of a kernel lie in memory: each at a multiple of its alignment, in the order in which they are declared.

import type { Parameter } from "./kernels.ts";

/** Bytes that are only known when the graph is about to run: an address. */
export interface AddressArgument {
  readonly storage: unknown;
  readonly offset: number;
}

/** A tensor of bfloat16, [B,T,H,W], as the copy engine of Hopper reads it: boxes of one head and at most 64 columns. */
export interface TensorMap {
  readonly sizes: readonly [batches: number, length: number, heads: number, width: number];
  /** Elements from one position to the next. */
  readonly pitch: number;
  /** Positions of a box, at most 256. */
  readonly rows: number;
}

/** A tensor map passed by value; it is written when the address is known. */
export interface TensorMapArgument extends AddressArgument {
  readonly map: TensorMap;
}

/** Bytes of a tensor map, and what they are aligned to. */
export const tensorMapBytes = 128;

/** A structure passed by value that holds addresses. */
export interface StructArgument {
  readonly bytes: Uint8Array;
  /** Where in it addresses go. */
  readonly addresses: readonly { readonly at: number; readonly argument: AddressArgument }[];
}

/** A member of a structure: an address or none, a whole number or a float of 4 bytes, or a structure that holds addresses. */
export type StructMember = AddressArgument | null | number | { readonly float: number } | StructArgument;

/** A structure of C with these members in order. */
export function packStruct(members: readonly StructMember[]): StructArgument {
  const parts = members.map((member): StructArgument => {
    if (member === null) return { bytes: new Uint8Array(8), addresses: [] };
    if (typeof member === "number") return { bytes: new Uint8Array(Int32Array.of(member).buffer), addresses: [] };
    if ("float" in member) return { bytes: new Uint8Array(Float32Array.of(member.float).buffer), addresses: [] };
    if ("addresses" in member) return member;
    return { bytes: new Uint8Array(8), addresses: [{ at: 0, argument: member }] };
  });
  let end = 0;
  const places = parts.map(({ bytes }) => {
    const at = aligned(end, Math.min(bytes.length, 8));
    end = at + bytes.length;
    return at;
  });
  const bytes = new Uint8Array(aligned(end, 8));
  const addresses = parts.flatMap((part, index) => {
    const start = places[index] ?? 0;
    bytes.set(part.bytes, start);
    return part.addresses.map(({ at, argument }) => ({ at: start + at, argument }));
  });
  return { bytes, addresses };
}

function aligned(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}

export type Argument = number | Uint8Array | AddressArgument | TensorMapArgument | StructArgument | null;

export interface PackedArguments {
  readonly bytes: Uint8Array;
  /** Where each argument begins. */
  readonly places: readonly number[];
  /** Where addresses and tensor maps go. */
  readonly addresses: readonly { readonly at: number; readonly argument: AddressArgument | TensorMapArgument }[];
}

const sizes: { readonly [type: string]: number } = { u64: 8, s64: 8, b64: 8, f64: 8, u32: 4, s32: 4, b32: 4, f32: 4 };

/** @throws Error where count or size of the arguments is not what the kernel declares: a fault of the lowering */
export function packArguments(
  kernel: string,
  parameters: readonly Parameter[],
  args: readonly Argument[],
): PackedArguments {
  if (args.length !== parameters.length) {
    throw new Error(`${kernel} takes ${parameters.length} arguments, got ${args.length}`);
  }
  const { places, end } = placesOf(kernel, parameters);
  const bytes = new Uint8Array(end);
  const view = new DataView(bytes.buffer);
  const addresses: { at: number; argument: AddressArgument | TensorMapArgument }[] = [];
  args.forEach((argument, index) => {
    const parameter = parameters[index] ?? "";
    const at = places[index] ?? 0;
    const wrong = () => new Error(`${kernel}: argument ${index} does not fit ${JSON.stringify(parameter)}`);
    if (
      argument instanceof Uint8Array ||
      (argument !== null && typeof argument === "object" && "addresses" in argument)
    ) {
      const structure = argument instanceof Uint8Array ? { bytes: argument, addresses: [] } : argument;
      if (typeof parameter === "string" || parameter.size !== structure.bytes.length) throw wrong();
      bytes.set(structure.bytes, at);
      for (const inside of structure.addresses) addresses.push({ at: at + inside.at, argument: inside.argument });
    } else if (typeof argument === "number") {
      if (typeof parameter !== "string") throw wrong();
      if (parameter === "f32") view.setFloat32(at, argument, true);
      else if (parameter === "f64") view.setFloat64(at, argument, true);
      else if (!Number.isInteger(argument)) throw wrong();
      else if (sizes[parameter] === 8) view.setBigInt64(at, BigInt(argument), true);
      else view.setInt32(at, argument, true);
    } else if (argument !== null && "map" in argument) {
      if (typeof parameter === "string" || parameter.size !== tensorMapBytes) throw wrong();
      addresses.push({ at, argument });
    } else {
      if (parameter !== "u64") throw wrong();
      if (argument !== null) addresses.push({ at, argument });
    }
  });
  return { bytes, places, addresses };
}

/** Where parameters begin, and where the last one ends. */
function placesOf(kernel: string, parameters: readonly Parameter[]) {
  let end = 0;
  const places = parameters.map((parameter) => {
    const size = typeof parameter === "string" ? sizes[parameter] : parameter.size;
    const align = typeof parameter === "string" ? size : parameter.align;
    if (size === undefined || align === undefined) throw new Error(`${kernel} has a parameter of unknown type`);
    const at = aligned(end, align);
    end = at + size;
    return at;
  });
  return { places, end };
}

/** Largest rank that kernels with axes take; must be maximumRank in kernels/common.cuh. */
export const maximumRank = 8;

/** A tensor as kernels with axes see it: its element type, and its stride along each axis. */
export interface Operand {
  readonly type: number;
  readonly strides: readonly number[];
}

/** The structure Axes of kernels/common.cuh. Neighbouring axes are joined where every operand allows it. */
export function packAxes(sizes: readonly number[], operands: readonly Operand[]): Uint8Array {
  const joined = joinAxes(
    sizes,
    operands.map(({ strides }) => strides),
  );
  if (joined.sizes.length > maximumRank) {
    throw new Error(`at most ${maximumRank} axes that cannot be joined are supported, got ${joined.sizes.length}`);
  }
  const bytes = new Uint8Array(320);
  const view = new DataView(bytes.buffer);
  view.setBigInt64(0, BigInt(joined.sizes.reduce((a, b) => a * b, 1)), true);
  view.setInt32(8, joined.sizes.length, true);
  operands.forEach(({ type }, index) => {
    view.setInt32(12 + 4 * index, type, true);
  });
  joined.sizes.forEach((size, axis) => {
    view.setUint32(28 + 4 * axis, size, true);
  });
  joined.strides.forEach((strides, operand) => {
    strides.forEach((stride, axis) => {
      view.setBigInt64(64 + 8 * (operand * maximumRank + axis), BigInt(stride), true);
    });
  });
  return bytes;
}

/** The same elements with as few axes as possible, at least one. */
export function joinAxes(
  sizes: readonly number[],
  strides: readonly (readonly number[])[],
): { readonly sizes: readonly number[]; readonly strides: readonly (readonly number[])[] } {
  const kept: { size: number; strides: number[] }[] = [];
  sizes.forEach((size, axis) => {
    if (size === 1) return;
    const own = strides.map((list) => list[axis] ?? 0);
    const last = kept.at(-1);
    if (last?.strides.every((stride, operand) => stride === (own[operand] ?? 0) * size)) {
      last.size *= size;
      last.strides = own;
    } else {
      kept.push({ size, strides: own });
    }
  });
  if (kept.length === 0) kept.push({ size: 1, strides: strides.map(() => 0) });
  return {
    sizes: kept.map(({ size }) => size),
    strides: strides.map((_, operand) => kept.map((axis) => axis.strides[operand] ?? 0)),
  };
}
