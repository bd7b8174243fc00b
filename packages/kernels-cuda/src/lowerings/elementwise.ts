// Operations on each element, with broadcasting.

import { packAxes } from "../device/arguments.ts";
import { elementType, suffixOf } from "../device/element-type.ts";
import type { Context, LoweringRule, Value } from "../plan.ts";
import { broadcastStrides, isDense } from "../views.ts";

/** Blocks for work on `count` elements, each thread taking some. */
export function blocksFor({ multiprocessors }: Context, count: number, threads = 256): number {
  return Math.max(1, Math.min(Math.ceil(count / threads), multiprocessors * 32));
}

/** The axes of a result and of operands that broadcast to it. */
export function axesOf(result: Value, operands: readonly Value[]): Uint8Array {
  return packAxes(result.sizes, [
    { type: elementType[result.spec.dtype], strides: result.strides },
    ...operands.map(({ spec, sizes, strides }) => ({
      type: elementType[spec.dtype],
      strides: broadcastStrides(sizes, result.sizes, strides),
    })),
  ]);
}

function elementwise(kernel: string, names: readonly string[]): LoweringRule {
  return (context) => {
    const operands = names.map((name) => context.strided(name));
    const value = context.stridedOutput("value", names);
    if (value.count === 0) return;
    // Conditions say nothing of the type in which the others are computed.
    const suffix = suffixOf((operands.at(-1) ?? value).spec.dtype);
    context.kernel(`${kernel}_${suffix}`, blocksFor(context, value.count), 256, [
      ...operands,
      value,
      axesOf(value, operands),
    ]);
  };
}

const unary = (kernel: string) => elementwise(kernel, ["x"]);
const binary = (kernel: string) => elementwise(kernel, ["a", "b"]);

/** Whole numbers that floats of the other side may not hold go through double, as does float64. */
export const cast: LoweringRule = (context) => {
  const x = context.strided("x");
  const value = context.stridedOutput("value", ["x"]);
  if (value.count === 0) return;
  const types = [x.spec.dtype, value.spec.dtype];
  const dense = [x, value].every(({ sizes, strides, offset }) => isDense(sizes, strides) && offset % 16 === 0);
  if (types[0] === "bfloat16" && types[1] === "float32" && dense && value.count % 4 === 0) {
    const fours = value.count / 4;
    context.kernel("castWide", Math.min(Math.ceil(fours / 256), 2 ** 20), 256, [x, value, fours]);
    return;
  }
  const whole = types.every((dtype) => dtype === "int32" || dtype === "bool");
  const exact = types.includes("float64") || types.includes("int32");
  const suffix = whole ? "i" : exact ? "d" : "f";
  context.kernel(`cast_${suffix}`, blocksFor(context, value.count), 256, [x, value, axesOf(value, [x])]);
};

export const abs = unary("abs");
export const add = binary("add");
export const and = binary("and");
export const cos = unary("cos");
export const div = binary("div");
export const equal = binary("equal");
export const exp = unary("exp");
export const finite = unary("finite");
export const floor = unary("floor");
export const floorDiv = binary("floorDiv");
export const less = binary("less");
export const lessEqual = binary("lessEqual");
export const log = unary("log");
export const log1p = unary("log1p");
export const maximum = binary("maximum");
export const minimum = binary("minimum");
export const mul = binary("mul");
export const neg = unary("neg");
export const not = unary("not");
export const or = binary("or");
export const sigmoid = unary("sigmoid");
export const silu = unary("silu");
export const sin = unary("sin");
export const softplus = unary("softplus");
export const sqrt = unary("sqrt");
export const sub = binary("sub");
export const tanh = unary("tanh");
export const where = elementwise("where", ["condition", "a", "b"]);
