// That parts of a whole are made where they belong, and nothing is written over a part or a whole that is read later.

import { add, concat, exp, f32, type Graph, neg, pad, slice, type Tensor, trace } from "@sisa/core";
import { expect, test } from "vitest";
import type { Plan, View } from "./plan.ts";
import { planWithoutDevice } from "./testing.ts";

/** Kernels in order, with where they write. */
function writes({ steps }: Plan) {
  return steps.flatMap((step) => {
    if (step.kind !== "kernel") return [];
    const views = step.packed.addresses.map(({ argument }) => argument as View);
    return views.slice(-1).map(({ storage, offset }) => ({ kernel: step.kernel, storage, offset }));
  });
}

test("parts that lie beside each other are made in their places, so nothing is copied", () => {
  const graph = trace({ x: f32(4, 8), y: f32(4, 16) }, ({ x, y }) =>
    neg(concat([exp(x), exp(y)] as readonly Tensor[], { axis: -1 })),
  ) as unknown as Graph;
  const [first, second, last, ...rest] = writes(planWithoutDevice(graph));
  expect(rest).toEqual([]);
  expect([first?.kernel, second?.kernel, last?.kernel]).toEqual(["exp_f", "exp_f", "neg_f"]);
  expect(first?.storage).toBe(second?.storage);
  expect([first?.offset, second?.offset]).toEqual([0, 32]);
});

test("inputs, and what is put together twice, are copied", () => {
  const graph = trace({ x: f32(4, 8) }, ({ x }) => {
    const part = exp(x);
    return {
      a: neg(concat([part, x] as readonly Tensor[], { axis: 0 })),
      b: neg(concat([x, part] as readonly Tensor[], { axis: 0 })),
    };
  }) as unknown as Graph;
  const { steps, inputs } = planWithoutDevice(graph);
  // The input goes to both wholes before anything else, and what is made of it when it is there.
  expect(steps.map((step) => (step.kind === "kernel" ? step.kernel : step.kind))).toEqual([
    ...["moveMany", "exp_f", "copy", "neg_f", "copy", "neg_f"],
  ]);
  const [first] = steps;
  const moved = first?.kind === "kernel" ? first.packed.addresses.map(({ argument }) => argument as View) : [];
  expect(moved.filter(({ storage }) => storage === inputs.x)).toHaveLength(2);
});

test("a whole is not written over while a part of it is still read", () => {
  const graph = trace({ x: f32(4, 8), y: f32(4, 8) }, ({ x, y }) => {
    const part = exp(x);
    const negated = neg(concat([part, exp(y)] as readonly Tensor[], { axis: 0 }));
    return { later: add(slice(negated, { axis: 0, end: 4 }), part) };
  }) as unknown as Graph;
  const steps = writes(planWithoutDevice(graph));
  const whole = steps.find(({ kernel }) => kernel === "exp_f")?.storage;
  expect(steps.find(({ kernel }) => kernel === "neg_f")?.storage).not.toBe(whole);
});

/** x and y beside each other with zeros behind them, negated. */
const filled = (x: Tensor, y: Tensor) =>
  neg(pad(concat([exp(x), exp(y)] as readonly Tensor[], { axis: -1 }), { axis: -1, after: 3 }));

test("zeros that nothing writes over are written once, before the first run", () => {
  const graph = trace({ x: f32(4, 4), y: f32(4, 1) }, ({ x, y }) => filled(x, y)) as unknown as Graph;
  const { steps, zeros, zeroBytes, temporaries } = planWithoutDevice(graph);
  expect(steps.map((step) => step.kind === "kernel" && step.kernel)).toEqual(["exp_f", "exp_f", "neg_f"]);
  const [whole] = writes({ steps } as Plan).map(({ storage }) => storage);
  expect(zeros).toEqual([whole]);
  expect(temporaries).not.toContain(whole);
  expect(zeroBytes).toBeGreaterThanOrEqual(4 * 4 * 8);
});

test("what has its zeros in the same places shares memory where it is not in use at once", () => {
  const specs = { x: f32(4, 4), y: f32(4, 1), z: f32(4, 2) };
  const sharedBy = (program: (given: { readonly x: Tensor; readonly y: Tensor; readonly z: Tensor }) => Tensor) => {
    const { zeros } = planWithoutDevice(trace(specs, program) as unknown as Graph);
    return [zeros.length, new Set(zeros.map(({ address }) => address)).size];
  };
  expect(sharedBy(({ x, y }) => filled(slice(filled(x, y), { axis: -1, end: 4 }), y))).toEqual([2, 1]);
  // Other places: after seven elements, not after five.
  const other = (x: Tensor, z: Tensor) => neg(pad(concat([exp(x), exp(z)], { axis: -1 }), { axis: -1, after: 2 }));
  expect(sharedBy(({ x, y, z }) => other(slice(filled(x, y), { axis: -1, end: 4 }), z))).toEqual([2, 2]);
});

test("zeros of what belongs elsewhere are written in every run", () => {
  const graph = trace({ x: f32(4, 5) }, ({ x }) => ({ wide: pad(x, { axis: 0, after: 3 }) })) as unknown as Graph;
  const { steps, zeros } = planWithoutDevice(graph);
  expect(zeros).toEqual([]);
  expect(steps).toHaveLength(1);
});
