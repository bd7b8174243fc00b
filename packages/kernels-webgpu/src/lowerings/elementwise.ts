// Operations on single elements.

import { kindOf, type Node } from "@sisa/core";
import { pointwise } from "../lowering.ts";

const isWhole = (node: Node) => node.inputs.a?.dtype === "int32";
const infix = (operator: string) => pointwise(([a, b]) => `${a} ${operator} ${b}`);
const call = (name: string, options: { costly?: boolean } = {}) => pointwise(([x]) => `${name}(${x})`, options);
const costly = { costly: true };

export const abs = call("abs");
export const add = infix("+");
export const and = infix("&&");
export const cos = call("exact_cos", costly);
export const div = infix("/");
export const equal = infix("==");
export const exp = call("exact_exp", costly);
export const finite = call("isFinite");
export const floor = call("floor");
export const floorDiv = pointwise(([a, b]) => `floor_div(${a}, ${b})`);
export const less = infix("<");
export const lessEqual = infix("<=");
export const log = call("exact_log", costly);
export const log1p = call("exact_log1p", costly);
export const maximum = pointwise(([a, b], node) => `${isWhole(node) ? "max" : "maximum"}(${a}, ${b})`);
export const minimum = pointwise(([a, b], node) => `${isWhole(node) ? "min" : "minimum"}(${a}, ${b})`);
export const mul = infix("*");
export const neg = pointwise(([x]) => `-${x}`);
export const not = pointwise(([x]) => `!${x}`);
export const or = infix("||");
export const sigmoid = call("sigmoid", costly);
export const sin = call("exact_sin", costly);
export const softplus = call("softplus", costly);
export const sqrt = call("sqrt");
export const sub = infix("-");
export const tanh = call("exact_tanh", costly);
export const where = pointwise(([condition, a, b]) => `select(${b}, ${a}, ${condition})`);

export const cast = pointwise(([x = ""], { inputs, attributes }) => {
  const from = kindOf(inputs.x?.dtype ?? "float32");
  const dtype = attributes.dtype as Parameters<typeof kindOf>[0];
  switch (kindOf(dtype)) {
    case "float":
      // What is narrowed and widened again has lost its digits, also where it never leaves the kernel.
      return dtype === "float16" && from === "float" ? `to_half(${x})` : `f32(${x})`;
    case "int":
      return from === "bool" ? `select(0, 1, ${x})` : `i32(${x})`;
    case "bool":
      return from === "float" ? `${x} != 0.0` : `${x} != 0`;
  }
});
