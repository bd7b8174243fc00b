import { describe, expect, test } from "vitest";
import { dim } from "../dim.ts";
import { DTypeError, GraphError, ShapeError } from "../errors.ts";
import { exp } from "../ops/exp.ts";
import { matmulOp } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { rmsNormOp } from "../ops/rms-norm.ts";
import { bool, f32, i32 } from "../spec.ts";
import { inputTensor, trace } from "./graph.ts";
import {
  apply,
  applyOp,
  bindAttributes,
  defineComposite,
  definePrimitive,
  expectKind,
  expectSameDType,
  expectShape,
  inferOutputs,
  isOp,
  normalAxis,
} from "./op.ts";
import type { Tensor } from "./tensor.ts";

const x = inputTensor("x", f32(2, 3)) as Tensor;

const doubleOp = definePrimitive<"acme/double", { readonly x: Tensor }, Record<string, never>>({
  name: "acme/double",
  inputs: ["x"],
  infer: (inputs) => ({ value: inputs.x }),
  reference: (inputs, _attributes, { value }) => value.data.set(inputs.x.data.map((element) => 2 * element)),
  vjp: ({ gradients }) => ({ x: gradients.value && mul(gradients.value, 2) }),
});

describe("applying an operation", () => {
  test("adds a node with what was given and what its rules say", () => {
    const { node, output } = apply(doubleOp, { x }, {}).value;
    expect(node.op).toBe(doubleOp);
    expect(node.inputs).toEqual({ x });
    expect(output).toBe("value");
    expect(node.tag).toBeUndefined();
    expect(applyOp(doubleOp, { x }, {}, "again").value?.node.tag).toBe("again");
    expect(String(node.outputs.value)).toBe("float32[2,3]");
  });

  test("leaves absent inputs out", () => {
    const optional = definePrimitive<
      "acme/optional",
      { readonly x: Tensor; readonly y?: Tensor | undefined },
      Record<string, never>
    >({
      name: "acme/optional",
      inputs: ["x", "y?"],
      infer: (inputs) => ({ value: inputs.x }),
      reference: () => {},
      vjp: { reason: "it is a test" },
    });
    expect(Object.keys(apply(optional, { x, y: undefined }, {}).value.node.inputs)).toEqual(["x"]);
    expect(Object.keys(apply(optional, { x, y: x }, {}).value.node.inputs)).toEqual(["x", "y"]);
  });

  test("rises with every node, above whatever it reads", () => {
    const first = exp(x);
    const second = exp(first);
    expect(first.node.id).toBeGreaterThan(x.node.id);
    expect(second.node.id).toBeGreaterThan(first.node.id);
  });

  test("names the operation in front of what is wrong, once", () => {
    expect(() => applyOp(matmulOp, { a: x, b: x }, { transposeA: false, transposeB: false })).toThrow(
      /^matmul: inner sizes differ/,
    );
    expect(() => applyOp(matmulOp, { a: x }, {})).toThrow(new GraphError('matmul: input "b" is missing'));
    expect(() => applyOp(doubleOp, { x, y: x }, {})).toThrow(new GraphError('acme/double: has no input "y"'));
    const notATensor = { x: { dtype: "float32" } } as unknown as { x: Tensor };
    expect(() => applyOp(doubleOp, notATensor, {})).toThrow(new GraphError('acme/double: input "x" is not a tensor'));
    const outer = defineComposite<"acme/outer", { readonly x: Tensor }, Record<string, never>>({
      name: "acme/outer",
      inputs: ["x"],
      compose: (inputs) => apply(rmsNormOp, { x: inputs.x, weight: inputs.x }, { epsilon: 0 }),
    });
    expect(() => apply(outer, { x }, {})).toThrow("acme/outer: rmsNorm: weight must be [M] = [3], got [2,3]");
  });

  test("an error that is not about the inputs keeps its message", () => {
    const broken = definePrimitive<"acme/broken", { readonly x: Tensor }, Record<string, never>>({
      name: "acme/broken",
      inputs: ["x"],
      infer: () => {
        throw new RangeError("a bug");
      },
      reference: () => {},
      vjp: { reason: "it is a test" },
    });
    expect(() => apply(broken, { x }, {})).toThrow(new RangeError("a bug"));
  });

  test("refuses sizes that come out negative", () => {
    const shrink = definePrimitive<"acme/shrink", { readonly x: Tensor }, Record<string, never>>({
      name: "acme/shrink",
      inputs: ["x"],
      infer: (inputs) => ({ value: { dtype: "float32", shape: inputs.x.shape.map((size) => size.minus(3)) } }),
      reference: () => {},
      vjp: { reason: "it is a test" },
    });
    expect(() => apply(shrink, { x }, {})).toThrow(new ShapeError("acme/shrink: sizes must be >= 0, got [-1,0]"));
  });

  test("a composite is checked in the user's terms before its composition is tried", () => {
    const order: string[] = [];
    const composite = defineComposite<"acme/composite", { readonly x: Tensor }, Record<string, never>>({
      name: "acme/composite",
      inputs: ["x"],
      check: () => void order.push("check"),
      compose(inputs) {
        order.push("compose");
        return { value: exp(inputs.x) };
      },
    });
    const { value } = apply(composite, { x }, {});
    expect(order).toEqual(["check", "compose"]);
    // Only the composite is in the graph; its composition is tried for the shape and forgotten.
    expect(trace({ x: f32(2) }, (inputs) => apply(composite, inputs, {})).nodes).toHaveLength(1);
    expect(value.node.inputs.x).toBe(x);
    expect(inferOutputs(composite, { x }, {}).value?.dtype).toBe("float32");
  });
});

test("operations are told from other values", () => {
  expect(isOp(doubleOp)).toBe(true);
  expect([{ name: "exp" }, undefined, null, "exp", exp].map(isOp)).toEqual([false, false, false, false, false]);
  expect(Object.isFrozen(doubleOp)).toBe(true);
});

describe("checks for rules of operations", () => {
  test("expectKind", () => {
    expect(() => expectKind("x", x, "float")).not.toThrow();
    expect(() => expectKind("x", i32(2), "float", "int")).not.toThrow();
    expect(() => expectKind("mask", bool("T"), "float", "int")).toThrow(
      new DTypeError("mask must be float or int, got bool[T]"),
    );
  });

  test("expectSameDType", () => {
    expect(expectSameDType(f32(2), f32(3))).toBe("float32");
    expect(() => expectSameDType(f32(2), { dtype: "bfloat16", shape: [] })).toThrow(
      new DTypeError("dtypes differ, got float32[2] and bfloat16[]; cast one of them"),
    );
  });

  test("expectShape finds what axis names stand for", () => {
    const sizes = expectShape("q", f32("B", "T", 4, 8), ["B", "T", "H", "D"]);
    expect(Object.entries(sizes).map(([name, size]) => `${name}=${size}`)).toEqual(["B=B", "T=T", "H=4", "D=8"]);
    expect(String(expectShape("x", f32(2, 3, 5), ["...", "M"]).M)).toBe("5");
    expect(String(expectShape("x", f32(5), ["...", "M"]).M)).toBe("5");
    expect(() => expectShape("x", f32("N", "N"), ["N", "N"])).not.toThrow();
    expect(() => expectShape("x", f32(), [])).not.toThrow();
    expect(() => expectShape("x", f32(2, 8), ["...", 8])).not.toThrow();
  });

  test.each([
    ["weight must be [D] = [64], got [32]", () => expectShape("weight", f32(32), ["D"], { D: dim(64) })],
    ["x must be [N,N], got [2,3]", () => expectShape("x", f32(2, 3), ["N", "N"])],
    ["x must be [B,T], got [2]", () => expectShape("x", f32(2), ["B", "T"])],
    ["x must be [B], got [2,3]", () => expectShape("x", f32(2, 3), ["B"])],
    ["x must be [...,4], got [3]", () => expectShape("x", f32(3), ["...", 4])],
    ["x must be [...,M], got []", () => expectShape("x", f32(), ["...", "M"])],
    ["scale must be [], got [1]", () => expectShape("scale", f32(1), [])],
    [
      "k must be [B,C] = [T + 1,C], got [T,C]",
      () => expectShape("k", f32("T", "C"), ["B", "C"], { B: dim("T").plus(1) }),
    ],
  ])("expectShape: %s", (message, run) => {
    expect(run).toThrow(new ShapeError(message));
  });

  test("normalAxis", () => {
    expect([0, 2, -1, -3].map((axis) => normalAxis(axis, 3))).toEqual([0, 2, 2, 0]);
    for (const axis of [3, -4, 0.5, Number.NaN]) {
      expect(() => normalAxis(axis, 3)).toThrow(new ShapeError(`expected an axis from -3 to 2, got ${axis}`));
    }
  });
});

test("attributes are bound wherever they hold sizes, and otherwise stay", () => {
  const data = Float32Array.of(1, 2);
  const attributes = {
    size: dim("T").plus(1),
    shape: [dim("B"), dim(2)],
    nested: { spec: f32("T"), list: [{ size: dim("T") }] },
    data,
    flag: true,
    missing: undefined,
    nothing: null,
    text: "T",
  };
  const bound = bindAttributes(attributes, { T: 4 });
  expect(bound).toEqual({
    size: dim(5),
    shape: [dim("B"), dim(2)],
    nested: { spec: f32(4), list: [{ size: dim(4) }] },
    data,
    flag: true,
    missing: undefined,
    nothing: null,
    text: "T",
  });
  expect(bound.data).toBe(data);
});
