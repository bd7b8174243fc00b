// Tensors made, written, run, kept, read, disposed of and closed in random orders, beside arrays that say what must come.

import { useTestGpu } from "@sisa/browser-testing/node";
import { add, type DeviceTensor, DisposedError, f32, mul, neg, RandomStream, SisaError, trace } from "@sisa/core";
import { beforeAll, expect, test, vi } from "vitest";
import { webgpu } from "./backend.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

beforeAll(useTestGpu);

const size = 5;
const spec = f32(size);
const sums = trace({ a: spec, b: spec }, ({ a, b }) => ({ sum: add(a, b), double: mul(a, 2) }));
const step = trace({ x: spec, by: spec }, ({ x, by }) => ({ x: add(x, by), before: neg(x) }));
const swap = trace({ x: spec, y: spec }, ({ x, y }) => ({ x: y, y: add(x, 1) }));

/** A handle, and what it must hold; a view of an output holds nothing any more once its program has run again. */
interface Held {
  readonly tensor: DeviceTensor;
  readonly isView: boolean;
  values: Float32Array | undefined;
}

test.each(Array.from({ length: 12 }, (_, index) => index))("orders of seed %i", async (seed) => {
  await using backend = await webgpu();
  const programs = {
    sums: await backend.compile(sums),
    step: await backend.compile(step, { state: { x: "x" } }),
    swap: await backend.compile(swap, { state: { x: "x", y: "y" } }),
  };
  const random = new RandomStream(seed, "orders");
  let drawn = 0;
  const below = (bound: number) => random.below(bound, drawn++);
  const numbers = () => Float32Array.from({ length: size }, () => below(100) - 50);
  const held: Held[] = [];
  const views: Record<string, Held[]> = { sums: [], step: [] };
  const reads: Promise<void>[] = [];

  const pick = (isWanted: (one: Held) => boolean = () => true) => {
    const some = held.filter((one) => one.values !== undefined && isWanted(one));
    return some[below(Math.max(some.length, 1))];
  };
  const hold = (tensor: DeviceTensor, values: Float32Array, isView = false) => {
    const one: Held = { tensor, values, isView };
    held.push(one);
    return one;
  };
  const ran = (program: "sums" | "step", outputs: readonly (readonly [DeviceTensor, Float32Array])[]) => {
    for (const view of views[program] ?? []) view.values = undefined;
    views[program] = outputs.map(([tensor, values]) => hold(tensor, values, true));
  };
  const isOwned = ({ isView }: Held) => !isView;
  const both = (a: Float32Array, b: Float32Array) => a.map((value, index) => value + (b[index] ?? 0));

  const actions: readonly (() => void)[] = [
    () => hold(backend.tensor(spec), new Float32Array(size)),
    () => {
      const values = numbers();
      hold(backend.tensor(spec, values), values);
    },
    () => {
      const one = pick(isOwned);
      if (!one) return;
      one.values = numbers();
      backend.write(one.tensor, one.values);
    },
    () => {
      const one = pick();
      if (one?.values) hold(one.tensor.keep(), one.values);
    },
    () => {
      const one = pick(isOwned);
      if (!one) return;
      one.tensor.dispose();
      one.values = undefined;
    },
    () => {
      const [a, b] = [pick(), pick()];
      if (!a?.values || !b?.values) return;
      const expected = [both(a.values, b.values), a.values.map((value) => 2 * value)] as const;
      const { sum, double } = programs.sums.run({ a: a.tensor, b: b.tensor });
      ran("sums", [
        [sum, expected[0]],
        [double, expected[1]],
      ]);
    },
    () => {
      const [x, by] = [pick(isOwned), pick()];
      if (!x?.values || !by?.values || x === by) return;
      const before = x.values.map((value) => -value);
      const after = both(x.values, by.values);
      const outputs = programs.step.run({ x: x.tensor, by: by.tensor });
      ran("step", [[outputs.before, before]]);
      x.values = after;
    },
    () => {
      const [x, y] = [pick(isOwned), pick(isOwned)];
      if (!x?.values || !y?.values || x === y) return;
      const [first, second] = [x.values, y.values];
      programs.swap.run({ x: x.tensor, y: y.tensor });
      [x.values, y.values] = [second, first.map((value) => value + 1)];
    },
    () => {
      const one = pick();
      const expected = one?.values;
      if (!one || !expected) return;
      reads.push(one.tensor.read().then((values) => expect(values).toEqual(expected)));
    },
    () => {
      const gone = held.find(({ values }) => values === undefined);
      if (gone) reads.push(expect(gone.tensor.read()).rejects.toThrow(DisposedError));
    },
  ];
  for (let index = 0; index < 150; index++) {
    actions[below(actions.length)]?.();
    // Some reads are waited for, most are under way while others go on.
    if (below(12) === 0) await Promise.all(reads.splice(0));
  }
  await Promise.all(reads);
  for (const { tensor, values } of held) if (values) expect(await tensor.read()).toEqual(values);

  for (const { tensor, isView } of held) if (!isView) tensor.dispose();
  for (const program of Object.values(programs)) program.close();
  const { deviceBytes } = backend.memory();
  // All of it is free: as much again takes nothing from the device.
  const again = Array.from({ length: deviceBytes / 256 }, () => backend.tensor(spec));
  expect(backend.memory().deviceBytes).toBe(deviceBytes);

  // Whoever reads while the backend is closed is told so.
  const late = again.map((tensor) => tensor.read());
  await backend.close();
  for (const result of await Promise.allSettled(late)) {
    if (result.status === "rejected") expect(SisaError.isInstance(result.reason)).toBe(true);
  }
});
