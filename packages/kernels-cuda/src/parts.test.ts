// That parts of a whole are made where they belong, and nothing is written over a part or a whole that is read later.

import { add, concat, exp, f32, type Graph, neg, slice, type Tensor, trace } from "@sisa/core";
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
  const launches = planWithoutDevice(graph).steps.filter(
    (step) => step.kind === "kernel" && step.kernel === "moveMany",
  );
  // Both parts of each whole.
  expect(launches.flatMap((step) => (step.kind === "kernel" ? step.packed.addresses : []))).toHaveLength(2 * 2 * 2);
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
