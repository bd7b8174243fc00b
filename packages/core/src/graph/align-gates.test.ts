import { expect, test } from "vitest";
import { valueAndGrad } from "../autodiff/value-and-grad.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { sum } from "../ops/sum.ts";
import { swiglu } from "../ops/swiglu.ts";
import { RandomStream } from "../random.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32 } from "../spec.ts";
import { alignGates, takeFilled } from "./align-gates.ts";
import { trace } from "./graph.ts";

const specs = { x: f32(5, 3), gate: f32(11, 3), up: f32(11, 3), down: f32(3, 11) };

function feedForward() {
  return trace(specs, ({ x, gate, up, down }) => {
    const y = linear(swiglu(linear(x, gate), linear(x, up)), down);
    return sum(mul(y, y));
  });
}

const values = Object.fromEntries(
  Object.entries(specs).map(([name, { shape }]) => {
    const sizes = shape.map(({ value }) => value ?? 0);
    const data = new RandomStream(1, name).normal(sizes.reduce((a, b) => a * b, 1));
    return [name, { shape: sizes, data: Float64Array.from(data) }];
  }),
);

test("widths become multiples, results and gradients stay", () => {
  const plain = feedForward();
  const aligned = alignGates(plain, 8);
  const widths = aligned.nodes.flatMap(({ op, outputs }) =>
    op.name === "swiglu" ? [outputs.value?.shape.at(-1)?.value] : [],
  );
  expect(widths).toEqual([16]);
  expect(aligned.nodes.some(({ op }) => op.name === "slice")).toBe(false);
  const wrt = ["x", "gate", "up", "down"] as const;
  const [wanted, found] = [plain, aligned].map((graph) => evaluate(valueAndGrad(graph, { wrt }), values));
  for (const [name, { data }] of Object.entries(wanted ?? {})) {
    expect(
      [...(found?.[name]?.data ?? [])].map((x) => x.toFixed(10)),
      name,
    ).toEqual([...data].map((x) => x.toFixed(10)));
  }
});

test("inputs that are filled up are taken filled up, and the gradients of what fills them are zeros", () => {
  const wrt = ["x", "gate", "up", "down"] as const;
  const aligned = alignGates(feedForward(), 8);
  const filled = takeFilled(aligned);
  const sizes = Object.entries(filled.inputs).map(([name, { shape }]) => [name, shape.map(({ value }) => value)]);
  expect(Object.fromEntries(sizes)).toEqual({ x: [5, 3], gate: [16, 3], up: [16, 3], down: [3, 16] });
  expect(filled.nodes.some(({ op }) => op.name === "pad")).toBe(false);
  const fill = (shape: readonly number[], data: ArrayLike<number>) => {
    const [rows = 0, columns = 0] = shape;
    const [toRows, to] = [rows, columns].map((size) => (size === 11 ? 16 : size)) as [number, number];
    const result = new Float64Array(toRows * to);
    Array.from(data).forEach((x, index) => {
      result[Math.floor(index / columns) * to + (index % columns)] = x;
    });
    return { shape: [toRows, to], data: result };
  };
  const wide = Object.fromEntries(Object.entries(values).map(([name, { shape, data }]) => [name, fill(shape, data)]));
  const wanted = evaluate(valueAndGrad(aligned, { wrt }), values);
  const found = evaluate(valueAndGrad(filled, { wrt }), wide as typeof values);
  for (const [name, { shape, data }] of Object.entries(wanted)) {
    const own = shape.length === 2 ? fill(shape, data).data : data;
    expect([...(found[name as keyof typeof found]?.data ?? [])], name).toEqual([...own]);
  }
});

test("what is even, or is no product, stays as it is", () => {
  const plain = feedForward();
  expect(alignGates(plain, 11).nodes).toEqual(plain.nodes);
  const other = trace({ gate: f32(2, 3), up: f32(2, 3) }, ({ gate, up }) => swiglu(gate, up));
  expect(alignGates(other, 8).nodes).toEqual(other.nodes);
});
