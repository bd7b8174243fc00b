// The optimizer: norms of, and steps for, all tensors in a few launches. Kernels get a table of tensors with their arguments.

import { type DType, type Node, sizesOf } from "@sisa/core";
import type { StructArgument } from "../device/arguments.ts";
import { elementType } from "../device/element-type.ts";
import type { AdamwManyAttributes } from "../fusion/operations.ts";
import type { Context, Value } from "../plan.ts";
import type { Lowering } from "./index.ts";

/** Elements that a block of threads takes; ELEMENTS in kernels/optimizer.cu. */
const blockElements = 4096;
/** Entries of the tables in kernels/optimizer.cu. */
const mostSteps = 56;
const mostNorms = 128;

const blocksOf = ({ count }: Value) => Math.ceil(count / blockElements);

function tablesOf<T>(entries: readonly T[], most: number): readonly (readonly T[])[] {
  return Array.from({ length: Math.ceil(entries.length / most) }, (_, i) => entries.slice(i * most, (i + 1) * most));
}

interface StepEntry {
  readonly parameter: Value;
  readonly gradient: Value;
  readonly firstMoment: Value;
  readonly secondMoment: Value;
  readonly learningRate: Value;
  readonly narrow: Value | null;
  readonly weightDecay: number;
}

/** The structure AdamwTable. */
function packSteps(entries: readonly StepEntry[]): StructArgument {
  const entryBytes = 64;
  const bytes = new Uint8Array(8 + mostSteps * entryBytes);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, entries.length, true);
  let block = 0;
  const addresses = entries.flatMap((entry, index) => {
    const at = 8 + index * entryBytes;
    const { parameter, gradient, firstMoment, secondMoment, learningRate, narrow } = entry;
    view.setUint32(at + 48, parameter.count, true);
    view.setFloat32(at + 52, entry.weightDecay, true);
    view.setInt32(at + 56, block, true);
    block += blocksOf(parameter);
    return [parameter, gradient, firstMoment, secondMoment, learningRate, narrow].flatMap((argument, place) =>
      argument ? [{ at: at + 8 * place, argument }] : [],
    );
  });
  return { bytes, addresses };
}

function stepAll(context: Context, entries: readonly StepEntry[]): void {
  const { beta1 = 0, beta2 = 0, epsilon = 0 } = context.attributes<{ readonly [name: string]: number }>();
  const scalars = ["firstCorrection", "secondCorrection", "gradientScale", "proceed"].map((name) =>
    context.input(name),
  );
  for (const table of tablesOf(entries, mostSteps)) {
    const blocks = table.reduce((total, { parameter }) => total + blocksOf(parameter), 0);
    context.kernel("adamw", blocks, 256, [packSteps(table), ...scalars, beta1, beta2, epsilon]);
  }
}

/** One tensor's part of the step; its results are where the old values were, or copies of those are made first. */
function stepEntry(context: Context, prefix: string, weightDecay: number, isNarrow: boolean): StepEntry {
  const [parameter, firstMoment, secondMoment] = ["parameter", "firstMoment", "secondMoment"].map((name) => {
    const own = `${prefix}${name}`;
    const input = context.input(own);
    const output = context.output(own, [own]);
    context.copy(input, output, output.bytes);
    return output;
  }) as [Value, Value, Value];
  const gradient = context.input(`${prefix}gradient`);
  const learningRate = context.input(`${prefix}learningRate`);
  const narrow = isNarrow ? context.output(`${prefix}narrow`) : null;
  return { parameter, gradient, firstMoment, secondMoment, learningRate, narrow, weightDecay };
}

export const adamw: Lowering = {
  declines: ({ inputs }) =>
    Object.entries(inputs).some(([name, { dtype }]) => name !== "proceed" && dtype !== "float32"),
  lower(context) {
    const { weightDecay } = context.attributes<{ readonly weightDecay: number }>();
    const entry = stepEntry(context, "", weightDecay, false);
    if (entry.parameter.count > 0) stepAll(context, [entry]);
  },
};

export const adamwMany: Lowering = {
  lower(context) {
    const { weightDecays, narrow } = context.attributes<AdamwManyAttributes>();
    const entries = weightDecays.map((decay, i) => stepEntry(context, `${i}.`, decay, narrow[i] === true));
    stepAll(
      context,
      entries.filter(({ parameter }) => parameter.count > 0),
    );
  },
};

const normTypes: readonly DType[] = ["float32", "bfloat16", "float16"];

function normDeclines({ inputs }: Node): boolean {
  return Object.values(inputs).some(({ dtype, shape }) => {
    return !normTypes.includes(dtype) || sizesOf(shape).reduce((a, b) => a * b, 1) >= 2 ** 32;
  });
}

/** The structure NormTable. */
function packNorms(values: readonly Value[]): StructArgument {
  const entryBytes = 24;
  const bytes = new Uint8Array(8 + mostNorms * entryBytes);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, values.length, true);
  let block = 0;
  const addresses = values.map((value, index) => {
    const at = 8 + index * entryBytes;
    view.setUint32(at + 8, value.count, true);
    view.setInt32(at + 12, elementType[value.spec.dtype], true);
    view.setInt32(at + 16, block, true);
    block += blocksOf(value);
    return { at, argument: value };
  });
  return { bytes, addresses };
}

export const globalNorm: Lowering = {
  declines: normDeclines,
  lower(context) {
    const value = context.output();
    const tensors = context.inputs.filter(({ count }) => count > 0);
    const total = tensors.reduce((sum, tensor) => sum + blocksOf(tensor), 0);
    const parts = context.scratch(4 * Math.max(total, 1));
    let place = 0;
    for (const table of tablesOf(tensors, mostNorms)) {
      const blocks = table.reduce((sum, tensor) => sum + blocksOf(tensor), 0);
      const target = { storage: parts.storage, offset: parts.offset + 4 * place };
      context.kernel("squareSums", blocks, 256, [packNorms(table), target]);
      place += blocks;
    }
    context.kernel("rootOfSum", 1, 1024, [parts, total, value]);
  },
};
