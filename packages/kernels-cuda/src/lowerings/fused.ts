// Composites that have a kernel of their own: norms, rotation, gates, the optimizer, and the loss.

import { bytesOf, type DType, type Node, sizesOf } from "@sisa/core";
import { packAxes } from "../device/arguments.ts";
import type { Product, ProductType } from "../device/cublas-lt.ts";
import { elementType } from "../device/element-type.ts";
import type { Context, Region, Value, View } from "../plan.ts";
import { broadcastStrides, type Rows, rowsOf } from "../views.ts";
import { blocksFor } from "./elementwise.ts";
import type { Lowering } from "./index.ts";
import { alignments } from "./matmul.ts";
import { sumColumns } from "./reduction.ts";

const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);

/** Kernels of rows read eight elements at a time; the backward one has a thread for each eight. */
const widestNorm = 8192;

function normDeclines({ inputs }: Node): boolean {
  const { x, weight } = inputs;
  if (!x || !weight) return true;
  const width = sizesOf(x.shape).at(-1) ?? 0;
  const types = `${x.dtype}_${weight.dtype}`;
  const known = ["float32_float32", "bfloat16_float32", "bfloat16_bfloat16"].includes(types);
  return !known || width === 0 || width % 8 !== 0 || width > widestNorm;
}

function normKernel(context: Context, name: string): string {
  return `${name}_${context.input("x").spec.dtype}_${context.input("weight").spec.dtype}`;
}

export const rmsNorm: Lowering = {
  declines: normDeclines,
  lower(context) {
    const [x, weight] = [context.input("x"), context.input("weight")];
    const value = context.output();
    if (value.count === 0) return;
    const { epsilon } = context.attributes<{ readonly epsilon: number }>();
    const width = x.sizes.at(-1) ?? 1;
    const rows = x.count / width;
    const blocks = Math.min(Math.ceil(rows / 4), context.multiprocessors * 32);
    context.kernel(normKernel(context, "rmsNorm"), blocks, 128, [x, weight, value, rows, width, epsilon]);
  },
};

/** With an `addend`, which stands for another path of the gradient around the norm. */
export const rmsNormBackward: Lowering = {
  declines: normDeclines,
  lower(context) {
    const [x, weight, gradient] = [context.input("x"), context.input("weight"), context.input("gradient")];
    const addend = context.optional("addend") ?? null;
    const [dx, dWeight] = [context.output("x"), context.output("weight")];
    if (dx.count === 0) {
      context.zero(dWeight, dWeight.bytes);
      return;
    }
    const { epsilon } = context.attributes<{ readonly epsilon: number }>();
    const width = x.sizes.at(-1) ?? 1;
    const rows = x.count / width;
    const blocks = Math.min(rows, context.multiprocessors * 8);
    const parts = context.scratch(4 * blocks * width);
    const threads = Math.ceil(width / 8 / 32) * 32;
    const args = [x, weight, gradient, addend, dx, parts, rows, width, epsilon];
    context.kernel(normKernel(context, "rmsNormBackward"), blocks, threads, args);
    sumColumns(context, parts, blocks, dWeight);
  },
};

export const rope: Lowering = {
  declines: ({ inputs }) => Object.values(inputs).some(({ dtype }) => dtype === "float64"),
  lower(context) {
    const [x, cos, sin] = [context.strided("x"), context.input("cos"), context.input("sin")];
    rotate(context, x, cos, sin, context.stridedOutput("value", ["x"]));
  },
};

/** Rotates pairs of neighbours. */
export function rotate(context: Context, x: Value, cos: Value, sin: Value, value: Value): void {
  if (value.count === 0) return;
  const half = (x.sizes.at(-1) ?? 0) / 2;
  const pairs = [...x.sizes.slice(0, -1), half];
  const type = x.spec.dtype;
  const eights =
    half % 8 === 0 && gateTypes.includes(type) && [x, value].every(byEights) && [cos, sin].every(isTableOfEights);
  // Pairs of one row lie one after the other, eight of them in sixteen elements.
  const step = eights ? 8 : 1;
  const groups = pairs.with(-1, half / step);
  const own = (operand: Value) => ({
    type: elementType[type],
    strides: operand.strides.with(-1, 2 * step * (operand.strides.at(-1) ?? 1)),
  });
  const table = ({ spec, sizes }: Value) => {
    const strides = broadcastStrides(sizes, pairs);
    return { type: elementType[spec.dtype], strides: strides.with(-1, step * (strides.at(-1) ?? 0)) };
  };
  const second = x.strides.at(-1) ?? 1;
  const axes = packAxes(groups, [own(value), own(x), table(cos), table(sin)]);
  const blocks = blocksFor(context, value.count / 2 / step);
  if (eights) context.kernel(`ropeEights_${type}`, blocks, 256, [x, cos, sin, value, axes]);
  else context.kernel("rope", blocks, 256, [x, cos, sin, value, second, value.strides.at(-1) ?? 1, axes]);
}

/** Whether rows can be read eight elements, 16 bytes or twice that, at a time. */
function byEights({ spec, strides, offset }: Value): boolean {
  return (
    strides.at(-1) === 1 && strides.slice(0, -1).every((s) => (s * bytesOf(spec.dtype)) % 16 === 0) && offset % 16 === 0
  );
}

/** Whether a table has a number for each pair of a row, eight of which can be read at a time. */
function isTableOfEights({ spec, sizes }: Value): boolean {
  return spec.dtype === "float32" && (sizes.at(-1) ?? 0) % 8 === 0;
}

const gateTypes: readonly DType[] = ["float32", "bfloat16"];

function gateDeclines({ inputs }: Node): boolean {
  const { gate } = inputs;
  const alike = Object.values(inputs).every(({ dtype }) => dtype === gate?.dtype);
  return !gate || !alike || !gateTypes.includes(gate.dtype) || product(sizesOf(gate.shape)) % 8 !== 0;
}

export const swiglu: Lowering = {
  declines: gateDeclines,
  lower(context) {
    const [gate, up] = gateRows(context, ["gate", "up"]);
    const value = context.output("value", ["gate", "up"]);
    if (!gate || !up || value.count === 0) return;
    const blocks = blocksFor(context, value.count / 8);
    const args = [gate.value, up.value, value, gate.count, gate.width, gate.pitch, up.pitch];
    context.kernel(`swiglu_${value.spec.dtype}`, blocks, 256, args);
  },
};

export const swigluBackward: Lowering = {
  declines: gateDeclines,
  lower(context) {
    const [gate, up, gradient] = gateRows(context, ["gate", "up", "gradient"]);
    if (!gate || !up || !gradient) return;
    const { sizes, spec, count } = gate.value;
    const rowsFor = (region: Region) => gateRowsAt(sizes, bytesOf(spec.dtype), region);
    const [dGate, dUp] = ["gate", "up"].map((name) => {
      const fits = (region: Region) => gate.count > 1 && rowsFor(region) !== undefined;
      const value = context.stridedOutput(name, [name], fits);
      return { value, ...(gate.count > 1 ? rowsFor(value) : undefined) };
    });
    if (!dGate || !dUp || count === 0) return;
    const all = [gate, up, gradient, dGate, dUp];
    const values = all.map(({ value }) => value);
    const args = [...values, gate.count, gate.width, ...all.map(({ pitch }) => pitch ?? gate.width)];
    context.kernel(`swigluBackward_${spec.dtype}`, blocksFor(context, count / 8), 256, args);
  },
};

interface GateRows extends Rows {
  readonly value: Value;
}

/** Inputs as rows that are read eight elements at a time, where they lie; or dense, as one row, where that cannot be. */
function gateRows(context: Context, names: readonly string[]): readonly GateRows[] {
  const found = names.flatMap((name) => {
    const value = context.strided(name);
    const rows = gateRowsAt(value.sizes, bytesOf(value.spec.dtype), value);
    return rows ? [{ value, ...rows }] : [];
  });
  if (found.length === names.length) return found;
  return names.map((name) => {
    const value = context.input(name);
    return { value, count: 1, width: value.count, pitch: value.count };
  });
}

function gateRowsAt(sizes: readonly number[], element: number, region: Region): Rows | undefined {
  const width = sizes.at(-1) ?? 0;
  const rows = width > 0 && width % 8 === 0 ? rowsOf(sizes, region.strides) : undefined;
  return rows && (rows.pitch * element) % 16 === 0 && region.offset % 16 === 0 ? rows : undefined;
}

/** Rows whose logits are held at a time. */
const lossRows = 8192;
/** Shared memory for a row: two blocks have room on a multiprocessor of Hopper, one on any of compute capability 8. */
const mostKeptBytes = 101_000;

/** Logits, loss and both gradients of some rows at a time; logits give way to their gradients in place. */
export const linearCrossEntropy: Lowering = {
  declines: ({ inputs }) => {
    const { x, weight } = inputs;
    return !x || !weight || x.dtype !== weight.dtype || !gateTypes.includes(x.dtype) || product(sizesOf(x.shape)) === 0;
  },
  lower(context) {
    const [x, weight, targets] = [context.input("x"), context.input("weight"), context.input("targets")];
    const [value, gradX] = [context.output("value"), context.output("gradX")];
    const [vocabulary = 0, width = 0] = weight.sizes;
    const rows = targets.count;
    const type = x.spec.dtype as ProductType;
    const element = bytesOf(x.spec.dtype);
    // Products are several times faster where their sizes are multiples of 64, so what is missing is filled with zeros:
    // such tokens have logits of zero, which the loss does not look at, and so gradients of zero.
    const stride = Math.ceil(vocabulary / 64) * 64;
    const even = stride === vocabulary;
    const filled = even ? weight : context.scratch(stride * width * element);
    if (!even) {
      const rest = { storage: filled.storage, offset: weight.bytes };
      context.zero(rest, (stride - vocabulary) * width * element);
      context.copy(weight, filled, weight.bytes);
    }
    const gradType = context.node.outputs.gradWeight?.dtype as ProductType;
    const gradWeight = even
      ? context.output("gradWeight")
      : context.outputInMore("gradWeight", stride * width * bytesOf(gradType));
    const held = Math.min(rows, lossRows);
    const logits = context.scratch(held * stride * element);
    const losses = context.scratch(4 * rows);
    const rowBytes = stride * element;
    const kept = rowBytes <= mostKeptBytes ? rowBytes : 0;
    const fault = context.fault((id) => `linearCrossEntropy: expected targets from 0 to ${vocabulary - 1}, got ${id}`);
    const one = { batch: 1, strideA: 0, strideB: 0, strideC: 0 };
    const alignment = alignments.find((size) => (width * element) % size === 0) ?? 1;
    const kind = { transposeA: false, transposeB: false, type, resultType: type };
    const multiply = (
      sizes: Partial<Product> & Pick<Product, "m" | "n" | "k">,
      a: View,
      b: View,
      c: View,
      addend?: View,
    ) => {
      const { m, n, k, transposeA = false, transposeB = false } = sizes;
      const pitches = { pitchA: transposeA ? m : k, pitchB: transposeB ? k : n, pitchC: n };
      context.product({ ...kind, ...one, alignment, ...pitches, ...sizes }, a, b, c, addend);
    };
    for (let first = 0; first < rows; first += held) {
      const count = Math.min(held, rows - first);
      const at = (view: View, bytes: number): View => ({ storage: view.storage, offset: view.offset + first * bytes });
      const part = at(x, width * element);
      multiply({ m: count, n: stride, k: width, transposeB: true }, part, filled, logits);
      const places = [logits, at(targets, 4), at(losses, 4)];
      const args = [...places, vocabulary, stride, 1 / rows, kept > 0 ? 1 : 0, ...fault];
      context.kernel(`lossRows_${type}`, count, 512, args, kept);
      multiply({ m: count, n: width, k: stride }, logits, filled, at(gradX, width * element));
      multiply(
        {
          m: stride,
          n: width,
          k: count,
          transposeA: true,
          resultType: gradType,
        },
        logits,
        part,
        gradWeight,
        first > 0 ? gradWeight : undefined,
      );
    }
    context.kernel("meanOf", 1, 1024, [losses, rows, value]);
  },
};
