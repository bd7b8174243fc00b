// That wrong definitions are found wrong: operations here have one fault each.

import {
  apply,
  type DefinedOp,
  DTypeError,
  defineComposite,
  definePrimitive,
  f32,
  mul,
  ShapeError,
  type Tensor,
  tanh,
} from "@sisa/core";
import { expect, test } from "vitest";
import { floats, refusal, testCase } from "./case.ts";
import { checkCase, checkExpected, checkGradients, checkRefusal } from "./definition.ts";

type UnaryOp = DefinedOp<string, { readonly x: Tensor }, Record<string, never>, { value: Tensor }>;

const use = (op: UnaryOp) =>
  testCase({ name: "use", inputs: { x: floats([7]) }, program: ({ x }) => apply(op, { x }, {}).value });

function square(factorOfGradient: number): UnaryOp {
  return definePrimitive<string, { readonly x: Tensor }, Record<string, never>>({
    name: "test/square",
    inputs: ["x"],
    infer: ({ x }) => ({ value: { dtype: x.dtype, shape: x.shape } }),
    reference({ x }, _attributes, { value }) {
      x.data.forEach((number, index) => {
        value.data[index] = number * number;
      });
    },
    vjp: ({ inputs: { x }, gradients }) => ({
      x: gradients.value && mul(mul(gradients.value, x), factorOfGradient),
    }),
  });
}

test("a gradient that is off by a thousandth is found by differences", () => {
  expect(checkGradients("test/square", use(square(2)))).toBeUndefined();
  expect(checkGradients("test/square", use(square(2.002)))).toMatch(
    /^grad\.x along a random direction is .*, by differences/,
  );
});

test("a composite's own gradient must be that of its composition", () => {
  const composite = (factor: number): UnaryOp =>
    defineComposite<string, { readonly x: Tensor }, Record<string, never>>({
      name: "test/twice",
      inputs: ["x"],
      compose: ({ x }) => ({ value: tanh(mul(x, 2)) }),
      vjp({ outputs, gradients }) {
        const gradient = gradients.value;
        if (gradient === undefined) return {};
        return { x: mul(gradient, mul(mul(outputs.value, outputs.value), factor)) };
      },
    });
  expect(checkGradients("test/twice", use(composite(-2)))).toMatch(/^grad\.x differs from that of the composition/);
});

test("values that are not those of the formula are found", () => {
  const item = { ...use(square(2)), expected: () => ({ value: new Float64Array(7) }) };
  expect(checkExpected("test/square", item)).toMatch(/^value: NMSE Infinity/);
});

test("a case that does not use its operation, or lacks sizes, is found", () => {
  const item = testCase({ name: "other", inputs: { x: floats(["T"]) }, program: ({ x }) => tanh(x) });
  expect(checkCase("tanh", { ...item, sizes: [{ T: 3 }] })).toBeUndefined();
  expect(checkCase("silu", { ...item, sizes: [{ T: 3 }] })).toBe("its graph holds no silu");
  expect(checkCase("tanh", item)).toBe("sizes of T are missing");
});

test("a refusal needs its error and its words", () => {
  const item = refusal({
    name: "shapes",
    inputs: { a: f32(2), b: f32(3) },
    program: ({ a, b }) => mul(a, b),
    error: ShapeError,
    message: "mul: shapes do not broadcast, got [2] and [3]",
  });
  expect(checkRefusal(item)).toBeUndefined();
  expect(checkRefusal({ ...item, message: "shapes differ" })).toContain('expected "shapes differ", got "mul: shapes');
  expect(checkRefusal({ ...item, error: DTypeError })).toContain("expected DTypeError, got ShapeError");
  expect(checkRefusal({ ...item, inputs: { a: f32(3), b: f32(3) } })).toContain("but it was accepted");
});
