import { describe, expect, test } from "vitest";
import { GraphError } from "../errors.ts";
import { add, addOp } from "../ops/add.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { exp, expOp } from "../ops/exp.ts";
import { matmulOp } from "../ops/matmul.ts";
import { neg } from "../ops/neg.ts";
import { siluOp } from "../ops/silu.ts";
import { f32, i32, type TensorSpec } from "../spec.ts";
import { Graph, inputTensor, trace } from "./graph.ts";
import { type Attributes, apply, definePrimitive, type Op } from "./op.ts";
import { type AnyTensor, Node, type Tensor } from "./tensor.ts";
import { verify } from "./verify.ts";

const x = inputTensor("x", f32(2, 3)) as Tensor;
const spec = f32(2, 3);

/** A graph around one node that is put together by hand, past all checks. */
function graphOf(
  op: Op,
  inputs: { readonly [name: string]: AnyTensor },
  outputs: { readonly [name: string]: TensorSpec } = { value: spec },
  attributes: Attributes = {},
): Graph {
  const node = new Node(op, inputs, attributes, outputs);
  const [result] = Object.values(node.outputs);
  return new Graph({ x }, { value: result ?? x });
}

/** Changes what is read-only, as a faulty pass might. */
function corrupt<T extends object>(target: T, changes: { readonly [K in keyof T]?: unknown }): void {
  for (const [name, value] of Object.entries(changes)) Object.defineProperty(target, name, { value });
}

test("a traced graph is well formed", () => {
  expect(() => verify(trace({ x: spec }, (inputs) => add(exp(inputs.x), neg(inputs.x))))).not.toThrow();
  expect(() => verify(graphOf(expOp, { x }))).not.toThrow();
});

test("two inputs must be two tensors", () => {
  const graph = new Graph({ x, again: x }, { value: exp(x) });
  expect(() => verify(graph)).toThrow(new GraphError("verify: two inputs of the graph are one tensor"));
});

describe("each node", () => {
  test("has an operation that was declared", () => {
    // Without the mark, which is a symbol.
    const undeclared = Object.fromEntries(Object.entries(expOp)) as unknown as Op;
    expect(() => verify(graphOf(undeclared, { x }))).toThrow(
      new GraphError("verify: node exp: its op was not made by definePrimitive or defineComposite"),
    );
  });

  test("has an operation with all its rules", () => {
    for (const missing of ["infer", "reference", "vjp"]) {
      expect(() => verify(graphOf({ ...expOp, [missing]: undefined } as Op, { x }))).toThrow(
        new GraphError("verify: node exp: its op lacks rules"),
      );
    }
    expect(() => verify(graphOf({ ...siluOp, compose: undefined } as unknown as Op, { x }))).toThrow(
      new GraphError("verify: node silu: its op lacks rules"),
    );
  });

  test("has the inputs of its operation and no others", () => {
    expect(() => verify(graphOf(addOp, { a: x }))).toThrow(new GraphError('add: input "b" is missing'));
    expect(() => verify(graphOf(expOp, { x, y: x }))).toThrow(new GraphError('exp: has no input "y"'));
  });

  test("comes after what it reads", () => {
    const graph = trace({ x: spec }, (inputs) => neg(exp(inputs.x)));
    const reversed = new Graph(graph.inputTensors, graph.outputTensors, graph.nodes.toReversed());
    expect(() => verify(reversed)).toThrow(new GraphError('verify: node neg: input "x" is used before it is computed'));
  });

  test("reads only what belongs to a node", () => {
    const node = new Node(expOp, { x }, {}, { value: spec });
    const other = new Node(expOp, { x }, {}, { value: spec });
    const { value } = other.outputs;
    expect.assert(value);
    corrupt(value, { node });
    const graph = new Graph({ x }, { value: neg(value as Tensor) });
    expect(() => verify(graph)).toThrow('verify: node neg: input "x" is used before it is computed');
  });

  test("has attributes of plain data", () => {
    const sizes = { list: [1, { deep: "text" }], data: Float32Array.of(1), nothing: null, absent: undefined };
    expect(() => verify(graphOf(expOp, { x }, { value: spec }, sizes))).not.toThrow();
    const wrong: readonly unknown[] = [
      () => {},
      Symbol("s"),
      1n,
      new Map(),
      new Date(0),
      [[() => {}]],
      { deep: new Set() },
    ];
    for (const value of wrong) {
      expect(() => verify(graphOf(expOp, { x }, { value: spec }, { setting: value }))).toThrow(
        new GraphError('verify: node exp: attribute "setting" is not plain data'),
      );
    }
  });

  test("has the outputs that its rules give, and no others", () => {
    expect(() => verify(graphOf(expOp, { x }, { value: f32(3, 2) }))).toThrow(
      new GraphError('verify: node exp: output "value" is float32[3,2], its rules give float32[2,3]'),
    );
    expect(() => verify(graphOf(expOp, { x }, { value: i32(2, 3) }))).toThrow(
      'verify: node exp: output "value" is int32[2,3], its rules give float32[2,3]',
    );
    expect(() => verify(graphOf(expOp, { x }, { value: spec, rest: spec }))).toThrow(
      new GraphError('verify: node exp: has an output "rest" that its rules do not give'),
    );
    expect(() => verify(graphOf(expOp, { x }, { other: spec }))).toThrow(
      new GraphError('verify: node exp: lacks an output "value" that its rules give'),
    );
  });

  test("fits its inputs by its own rules", () => {
    const attributes = { transposeA: false, transposeB: false };
    expect(() => verify(graphOf(matmulOp, { a: x, b: x }, { value: spec }, attributes))).toThrow(
      "matmul: inner sizes differ",
    );
  });

  test("owns its outputs", () => {
    const node = new Node(expOp, { x }, {}, { value: spec });
    const { value } = node.outputs;
    expect.assert(value);
    const graph = new Graph({ x }, { value });
    corrupt(value, { output: "other" });
    expect(() => verify(graph)).toThrow(new GraphError('verify: node exp: output "value" belongs to another node'));
  });

  test("has only dims that some input binds", () => {
    const unbound = definePrimitive<"acme/unbound", { readonly x: Tensor }, Record<string, never>>({
      name: "acme/unbound",
      inputs: ["x"],
      infer: () => ({ value: f32("N") }),
      reference: () => {},
      vjp: { reason: "it is a test" },
    });
    expect(() => verify(new Graph({ x }, { value: apply(unbound, { x }, {}).value }))).toThrow(
      new GraphError('verify: node acme/unbound: dim "N" is in the shape of no input, so nothing can bind it'),
    );
  });
});

test("every output is computed", () => {
  const graph = new Graph({ x }, { value: exp(x) });
  corrupt(graph, { nodes: [] });
  expect(() => verify(graph)).toThrow(new GraphError("verify: an output of exp is never computed"));
});

describe("an operation in place", () => {
  const inputs = { cache: f32(2, 8, 3), update: f32(2, 1, 3), start: i32(2) };
  const message = 'verify: cacheWrite overwrites "cache", so whatever else reads it must come before by need';

  test("may be the only reader, or the last one by need", () => {
    const alone = trace(inputs, ({ cache, update, start }) => cacheWrite(cache, update, start));
    expect(() => verify(alone)).not.toThrow();
    const needed = trace({ ...inputs, scale: f32(2, 8, 3) }, ({ cache, start, scale }) =>
      cacheWrite(cache, add(neg(cache), scale), start),
    );
    expect(() => verify(needed)).not.toThrow();
  });

  test("a chain of writes is in order", () => {
    const chain = trace(inputs, ({ cache, update, start }) => {
      const first = cacheWrite(cache, update, start);
      return cacheWrite(first, neg(update), start);
    });
    expect(() => verify(chain)).not.toThrow();
  });

  test.each([
    ["a later reader", (cache: Tensor, written: Tensor) => ({ written, later: neg(cache) })],
    ["a reader of both", (cache: Tensor, written: Tensor) => ({ written: add(cache, written) })],
    ["the caller", (cache: Tensor, written: Tensor) => ({ cache, written })],
  ])("%s may not read what it overwrites", (_, program) => {
    expect(() => trace(inputs, ({ cache, update, start }) => program(cache, cacheWrite(cache, update, start)))).toThrow(
      new GraphError(message),
    );
  });

  test("two may not overwrite one tensor, and one may not read it twice", () => {
    expect(() =>
      trace(inputs, ({ cache, update, start }) => ({
        a: cacheWrite(cache, update, start),
        b: cacheWrite(cache, neg(update), start),
      })),
    ).toThrow(new GraphError(message));
    expect(() => trace(inputs, ({ cache, start }) => cacheWrite(cache, cache, start))).toThrow(new GraphError(message));
  });
});
