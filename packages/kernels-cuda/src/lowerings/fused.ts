// Composites that have a kernel of their own: norms, rotation, gates, the optimizer, and the loss.

import { bytesOf, type DType, type Node, sizesOf } from "@sisa/core";
import { broadcastStrides, denseStrides, packAxes } from "../device/arguments.ts";
import type { Product, ProductType } from "../device/cublas-lt.ts";
import { elementType } from "../device/element-type.ts";
import type { Context, View } from "../plan.ts";
import { blocksFor } from "./elementwise.ts";
import type { Lowering } from "./index.ts";
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

export const rmsNormBackward: Lowering = {
  declines: normDeclines,
  lower(context) {
    const [x, weight, gradient] = [context.input("x"), context.input("weight"), context.input("gradient")];
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
    const args = [x, weight, gradient, dx, parts, rows, width, epsilon];
    context.kernel(normKernel(context, "rmsNormBackward"), blocks, threads, args);
    sumColumns(context, parts, blocks, dWeight);
  },
};

export const rope: Lowering = {
  declines: ({ inputs }) => Object.values(inputs).some(({ dtype }) => dtype === "float64"),
  lower(context) {
    const [x, cos, sin] = [context.input("x"), context.input("cos"), context.input("sin")];
    if (x.count > 0 && byFours(context)) return;
    const value = context.output("value", ["x"]);
    if (value.count === 0) return;
    const pairs = [...x.sizes.slice(0, -1), (x.sizes.at(-1) ?? 0) / 2];
    const strides = denseStrides(x.sizes).with(-1, 2);
    const table = ({ spec, sizes }: typeof cos) => ({
      type: elementType[spec.dtype],
      strides: broadcastStrides(sizes, pairs),
    });
    const axes = packAxes(pairs, [
      { type: elementType[value.spec.dtype], strides },
      { type: elementType[x.spec.dtype], strides },
      table(cos),
      table(sin),
    ]);
    context.kernel("rope", blocksFor(context, value.count / 2), 256, [x, cos, sin, value, axes]);
  },
};

/** Four pairs at a time, where rows of x and of both tables are made of such. */
function byFours(context: Context): boolean {
  const [x, cos, sin] = [context.input("x"), context.input("cos"), context.input("sin")];
  const half = (x.sizes.at(-1) ?? 0) / 2;
  const type = x.spec.dtype;
  const tables = [cos, sin].every(({ spec, sizes, offset }) => {
    return spec.dtype === "float32" && sizes.at(-1) === half && offset % 16 === 0;
  });
  if (half % 4 !== 0 || !tables || !gateTypes.includes(type) || x.offset % 16 !== 0) return false;
  const value = context.output("value", ["x"]);
  const groups = [...x.sizes.slice(0, -1), half / 4];
  const own = { type: elementType[type], strides: denseStrides(x.sizes).with(-1, 8) };
  const table = ({ sizes }: typeof cos) => {
    const strides = broadcastStrides(sizes, [...x.sizes.slice(0, -1), half]);
    return { type: elementType.float32, strides: strides.with(-1, 4) };
  };
  const axes = packAxes(groups, [own, own, table(cos), table(sin)]);
  context.kernel(`ropeFours_${type}`, blocksFor(context, value.count / 8), 256, [x, cos, sin, value, axes]);
  return true;
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
    const [gate, up] = [context.input("gate"), context.input("up")];
    const value = context.output("value", ["gate", "up"]);
    if (value.count === 0) return;
    const blocks = blocksFor(context, value.count / 8);
    context.kernel(`swiglu_${gate.spec.dtype}`, blocks, 256, [gate, up, value, value.count]);
  },
};

export const swigluBackward: Lowering = {
  declines: gateDeclines,
  lower(context) {
    const [gate, up, gradient] = [context.input("gate"), context.input("up"), context.input("gradient")];
    const dGate = context.output("gate", ["gate"]);
    const dUp = context.output("up", ["up"]);
    if (dGate.count === 0) return;
    const args = [gate, up, gradient, dGate, dUp, gate.count];
    context.kernel(`swigluBackward_${gate.spec.dtype}`, blocksFor(context, gate.count / 8), 256, args);
  },
};

export const adamw: Lowering = {
  declines: ({ inputs }) =>
    Object.entries(inputs).some(([name, { dtype }]) => name !== "proceed" && dtype !== "float32"),
  lower(context) {
    const names = ["parameter", "firstMoment", "secondMoment"];
    const gradient = context.input("gradient");
    const inputs = names.map((name) => context.input(name));
    const outputs = names.map((name) => context.output(name, [name]));
    const [value, first, second] = outputs;
    if (!value || !first || !second || value.count === 0) return;
    inputs.forEach((input, index) => {
      context.copy(input, outputs[index] ?? value, value.bytes);
    });
    const { beta1, beta2, epsilon, weightDecay } = context.attributes<{ readonly [name: string]: number }>();
    const scalars = ["learningRate", "firstCorrection", "secondCorrection", "gradientScale", "proceed"];
    context.kernel("adamw", blocksFor(context, value.count), 256, [
      value,
      gradient,
      first,
      second,
      ...scalars.map((name) => context.input(name)),
      value.count,
      beta1 ?? 0,
      beta2 ?? 0,
      epsilon ?? 0,
      weightDecay ?? 0,
    ]);
  },
};

export const globalNorm: Lowering = {
  declines: ({ inputs }) => Object.values(inputs).some(({ dtype }) => dtype === "float64"),
  lower(context) {
    const value = context.output();
    const blocks = context.inputs.map(({ count }) => blocksFor(context, count, 1024));
    const total = blocks.reduce((a, b) => a + b, 0);
    const parts = context.scratch(4 * total);
    let place = 0;
    context.inputs.forEach((x, index) => {
      const target = { storage: parts.storage, offset: parts.offset + 4 * place };
      context.kernel("squareSums", blocks[index] ?? 1, 256, [x, elementType[x.spec.dtype], x.count, target]);
      place += blocks[index] ?? 0;
    });
    context.kernel("rootOfSum", 1, 1024, [parts, total, value]);
  },
};

/** Rows whose logits are held at a time. */
const lossRows = 8192;

/** Logits, loss and both gradients of some rows at a time; logits give way to their gradients in place. */
export const linearCrossEntropy: Lowering = {
  declines: ({ inputs }) => {
    const { x, weight } = inputs;
    return !x || !weight || x.dtype !== weight.dtype || !gateTypes.includes(x.dtype) || product(sizesOf(x.shape)) === 0;
  },
  lower(context) {
    const [x, weight, targets] = [context.input("x"), context.input("weight"), context.input("targets")];
    const [value, gradX, gradWeight] = [context.output("value"), context.output("gradX"), context.output("gradWeight")];
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
    const gradFilled = even ? gradWeight : context.scratch(stride * width * bytesOf(gradWeight.spec.dtype));
    const held = Math.min(rows, lossRows);
    const logits = context.scratch(held * stride * element);
    const losses = context.scratch(4 * rows);
    const fault = context.fault((id) => `linearCrossEntropy: expected targets from 0 to ${vocabulary - 1}, got ${id}`);
    const one = {
      batch: 1,
      strideA: 0,
      strideB: 0,
      strideC: 0,
      alignment: (width * element) % 16 === 0 ? 16 : element,
    };
    const multiply = (sizes: Partial<Product> & Pick<Product, "m" | "n" | "k">, a: View, b: View, c: View) =>
      context.product(
        { transposeA: false, transposeB: false, type, resultType: type, accumulate: false, ...one, ...sizes },
        a,
        b,
        c,
      );
    for (let first = 0; first < rows; first += held) {
      const count = Math.min(held, rows - first);
      const at = (view: View, bytes: number): View => ({ storage: view.storage, offset: view.offset + first * bytes });
      const part = at(x, width * element);
      multiply({ m: count, n: stride, k: width, transposeB: true }, part, filled, logits);
      context.kernel(`lossRows_${type}`, count, 512, [
        logits,
        at(targets, 4),
        at(losses, 4),
        vocabulary,
        stride,
        1 / rows,
        ...fault,
      ]);
      multiply({ m: count, n: width, k: stride }, logits, filled, at(gradX, width * element));
      multiply(
        {
          m: stride,
          n: width,
          k: count,
          transposeA: true,
          resultType: gradWeight.spec.dtype as ProductType,
          accumulate: first > 0,
        },
        logits,
        part,
        gradFilled,
      );
    }
    context.copy(gradFilled, gradWeight, gradWeight.bytes);
    context.kernel("meanOf", 1, 1024, [losses, rows, value]);
  },
};
