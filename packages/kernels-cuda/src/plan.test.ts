import { allCases, type Case } from "@sisa/conformance";
import {
  add,
  attention,
  cast,
  concat,
  DeviceError,
  exp,
  f32,
  type Graph,
  mul,
  pad,
  sisaAttention,
  slice,
  sub,
  sum,
  type Tensor,
  type TensorSpec,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { describe, expect, test } from "vitest";
import { lower } from "./backend.ts";
import { everyGpu } from "./device/kernels.ts";

import { type Plan, type PlanTarget, placeTemporaries, type Step, Storage, type View } from "./plan.ts";
import { planWithoutDevice, resourcesOf } from "./testing.ts";

const planOf = (graph: Graph, state: readonly (readonly [string, string])[] = [], target: Partial<PlanTarget> = {}) =>
  planWithoutDevice(lower(graph), state, target);

/** GPUs by what a block of theirs may have: as every one, the A100, and Hopper. */
const targets = [everyGpu, { capability: 80, sharedBytes: 163 * 1024 }, { capability: 90, sharedBytes: 227 * 1024 }];

/** Threads' registers, and shared memory with that which a kernel has in itself, are what a block may have at most. */
function expectToFit({ steps }: Plan, { capability, sharedBytes }: (typeof targets)[number]): void {
  for (const step of steps) {
    if (step.kind !== "kernel") continue;
    const own = resourcesOf(step.kernel, capability);
    expect(own.sharedBytes + step.sharedBytes, step.kernel).toBeLessThanOrEqual(sharedBytes);
    // Of each thread in eights.
    expect(Math.ceil(own.registers / 8) * 8 * step.block, step.kernel).toBeLessThanOrEqual(65_536);
  }
}

function graphsOf({ inputs, program, sizes }: Case): Graph[] {
  const specs = Object.fromEntries(Object.entries(inputs).map(([name, { spec }]) => [name, spec]));
  const graph = trace(specs, program) as unknown as Graph;
  return sizes.map((size) => {
    const known = Object.entries(size).filter(([name]) => graph.symbols.has(name));
    return known.length > 0 ? graph.bind(Object.fromEntries(known)) : graph;
  });
}

function overlaps(storages: readonly Storage[]): boolean {
  return storages.some((a, index) =>
    storages
      .slice(index + 1)
      .some(
        (b) =>
          a.first <= b.last && b.first <= a.last && a.address < b.address + b.bytes && b.address < a.address + a.bytes,
      ),
  );
}

describe("every case can be planned, its kernels fit, and no two values share memory while both are in use", () => {
  for (const { op, cases } of allCases) {
    test(op, () => {
      for (const item of cases.filter(({ perf, slow }) => !perf && !slow)) {
        for (const graph of graphsOf(item)) {
          const lowered = lower(graph);
          for (const target of targets) {
            const plan = planWithoutDevice(lowered, [], target);
            const used = plan.temporaries.filter(({ last }) => last >= 0);
            expect(overlaps(used), item.name).toBe(false);
            expect(overlaps(plan.zeros), item.name).toBe(false);
            const end = Math.max(0, ...used.map(({ address, bytes }) => address + bytes));
            expect(end).toBeLessThanOrEqual(plan.arenaBytes);
            expectToFit(plan, target);
          }
        }
      }
    });
  }
});

test("memory of values that are not in use at once is shared", () => {
  const chain = (count: number) => {
    const graph = trace({ x: f32(1000) }, ({ x }) => {
      let y = x;
      // Alternating, so that nothing can be written in place.
      for (let i = 0; i < count; i++) y = sub(exp(y), exp(mul(y, 2)));
      return y;
    });
    return planOf(graph).arenaBytes;
  };
  expect(chain(20)).toBe(chain(3));
});

const targetsOf = ({ steps }: Plan) =>
  steps.map((step) => {
    if (step.kind !== "kernel") return step.kind;
    const views = step.packed.addresses.map(({ argument }) => argument as View);
    return views.at(-1)?.storage;
  });

test("a state is written in place once everything else has read it", () => {
  const graph = trace({ total: f32(4), x: f32(4) }, ({ total, x }) => ({ next: add(total, x) }));
  const plan = planOf(graph, [["total", "next"]]);
  expect(targetsOf(plan)).toEqual([plan.inputs.total]);
});

test("a state that is read later is copied at the end", () => {
  const graph = trace({ total: f32(4), x: f32(4) }, ({ total, x }) => {
    const next = add(total, x);
    return { next, other: mul(next, total) };
  });
  const plan = planOf(graph, [["total", "next"]]);
  expect(targetsOf(plan)).toEqual([
    expect.objectContaining({ origin: "temporary" }),
    plan.outputs.other?.storage,
    "copy",
  ]);
});

test("states that swap are staged", () => {
  const graph = trace({ a: f32(4), b: f32(4) }, ({ a, b }) => ({ nextA: b, nextB: a }));
  const { steps, inputs } = planOf(graph, [
    ["a", "nextA"],
    ["b", "nextB"],
  ]);
  const [first, second, ...rest] = steps.map(placesOf);
  expect(rest).toEqual([]);
  const staged = [first?.[1], first?.[3]];
  for (const storage of staged) expect(storage?.origin).toBe("temporary");
  expect(first).toEqual([inputs.b, staged[0], inputs.a, staged[1]]);
  expect(second).toEqual([staged[0], inputs.a, staged[1], inputs.b]);
});

/** Storages of a step, in the order of its arguments. */
function placesOf(step: Step | undefined): readonly Storage[] {
  return step?.kind === "kernel" ? step.packed.addresses.map(({ argument }) => (argument as View).storage) : [];
}

test("copies that do not touch each other are one launch, and zeros with them", () => {
  const graph = trace({ x: f32(8), y: f32(4) }, ({ x, y }) => ({
    padded: pad(x, { axis: 0, after: 4 }),
    both: concat([y, x] as readonly Tensor[], { axis: 0 }),
  }));
  const { steps, inputs, outputs } = planOf(graph as unknown as Graph);
  const [padded, both] = [outputs.padded?.storage, outputs.both?.storage];
  expect(steps.map(({ kind }) => kind)).toEqual(["kernel"]);
  expect(placesOf(steps[0])).toEqual([padded, inputs.x, padded, inputs.y, both, inputs.x, both]);
});

test("outputs that nearly fill the memory that they are parts of stay there", () => {
  const graph = trace({ x: f32(64, 512) }, ({ x }) => {
    const whole = exp(x);
    const rows = (start: number, end: number) => slice(whole, { axis: 0, start, end });
    return { first: rows(0, 32), last: rows(32, 62) };
  }) as unknown as Graph;
  const { steps, outputs, temporaries } = planOf(graph);
  expect(steps).toHaveLength(1);
  expect(outputs.first?.storage).toBe(outputs.last?.storage);
  expect([outputs.first?.offset, outputs.last?.offset]).toEqual([0, 4 * 32 * 512]);
  expect(temporaries).toEqual([]);
});

test("outputs that share elements, or are a small part of something, are copied", () => {
  const graph = trace({ x: f32(64, 512), y: f32(64, 512) }, ({ x, y }) => {
    const rows = (whole: Tensor, start: number, end: number) => slice(whole, { axis: 0, start, end });
    const [first, second] = [exp(x), exp(y)];
    return { few: rows(first, 0, 32), most: rows(second, 0, 60), same: rows(second, 0, 60) };
  }) as unknown as Graph;
  const { steps, outputs } = planOf(graph);
  expect(new Set(Object.values(outputs).map(({ storage }) => storage)).size).toBe(3);
  expect(placesOf(steps.at(-1))).toHaveLength(2 * 2);
});

test("what blocks count up together is zeroed by one launch, before anything else", () => {
  const narrow: TensorSpec = { ...f32(1, 200, 2, 64), dtype: "bfloat16" };
  const graph = trace({ q: narrow, k: narrow, v: narrow }, ({ q, k, v }) => {
    const once = attention({ q, k, v });
    return sum(cast(attention({ q: once, k: once, v }), "float32") as Tensor);
  }) as unknown as Graph;
  const gradients = valueAndGrad(graph as never, { wrt: ["q", "k", "v"] as never }) as unknown as Graph;
  const { steps } = planOf(gradients);
  expect(steps[0]?.kind === "kernel" && steps[0].kernel).toBe("moveMany");
  expect(placesOf(steps[0])).toHaveLength(2);
  const passes = steps.filter((step) => step.kind === "kernel" && /^attentionBackwardTogether/.test(step.kernel));
  expect(passes).toHaveLength(2);
});

test("temporaries are placed at aligned offsets", () => {
  const storages = [100, 300, 20].map((bytes, index) => {
    const storage = new Storage(bytes, "temporary");
    storage.first = 0;
    storage.last = index;
    return storage;
  });
  expect(placeTemporaries(storages)).toBe(1024);
  expect(storages.map(({ address }) => address)).toEqual([512, 0, 768]);
});

describe("attention has kernels for every GPU, and of its own on Hopper, which fit", () => {
  const widths = [64, 128].flatMap((D) => [0, 16, 32, 64, 128].map((S) => [D, S] as const));

  test.each(widths)("forward and backward, for D %i and S %i", (D, S) => {
    const narrow = (...shape: number[]): TensorSpec => ({ ...f32(...shape), dtype: "bfloat16" });
    const content = { q: narrow(2, 300, 3, D), k: narrow(2, 300, 3, D), v: narrow(2, 300, 3, D) };
    const states = {
      c: narrow(2, 300, 3, S),
      b: narrow(2, 300, 3, S),
      logDecay: f32(2, 300, 3),
      phase: f32(2, 300, 3, S / 2),
      lambda: f32(3),
    };
    const inputs: { readonly [name: string]: TensorSpec } = S > 0 ? { ...content, ...states } : content;
    const graph = trace(inputs, (given) => ({
      value: sum(S > 0 ? sisaAttention(given as never) : attention(given as never), { dtype: "float32" }),
    }));
    const gradients = valueAndGrad(graph as never, { wrt: Object.keys(inputs) as never }) as unknown as Graph;
    for (const target of targets) {
      for (const deterministic of [false, true]) {
        const plan = planOf(gradients, [], { ...target, deterministic });
        const kernels = plan.steps.flatMap((step) => (step.kind === "kernel" ? [step.kernel] : []));
        const names = kernels.filter((kernel) => /^attention(Forward|Backward)/.test(kernel));
        const onHopper = target.capability === 90;
        expect(names).toHaveLength(onHopper && !deterministic && D === 64 && S <= 32 ? 2 : 3);
        for (const name of names) expect(/Hopper/.test(name)).toBe(onHopper);
        expectToFit(plan, target);
      }
    }
  });
});

test("what needs more shared memory than the device has says so", () => {
  const narrow: TensorSpec = { ...f32(1, 64, 1, 128), dtype: "bfloat16" };
  const graph = trace({ q: narrow, k: narrow, v: narrow }, attention) as unknown as Graph;
  const plan = () => planOf(graph, [], { capability: 80, sharedBytes: 48 * 1024 });
  expect(plan).toThrow(DeviceError);
  expect(plan).toThrow(
    "attention: attentionForward_128_0 needs 52480 bytes of shared memory a block, the device has 49152",
  );
});
