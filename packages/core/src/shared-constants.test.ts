// Constants of programs on a backend that only counts: what is alive, and how often something was made.
import { expect, test, vi } from "vitest";
import { BlockTensor, DeviceBlock } from "./device-tensor.ts";
import { sizesOf } from "./dim.ts";
import type { TypedArray } from "./dtype.ts";
import type { Graph } from "./graph/graph.ts";
import { trace } from "./graph/graph.ts";
import { hoistConstants } from "./graph/hoist-constants.ts";
import { concat } from "./ops/concat.ts";
import { matmul } from "./ops/matmul.ts";
import { mul } from "./ops/mul.ts";
import { evaluate } from "./reference/evaluate.ts";
import { type ConstantsHost, type GivenConstants, SharedConstants } from "./shared-constants.ts";
import { f32, type TensorSpec } from "./spec.ts";

class CountedBlock extends DeviceBlock {
  readonly data: Float64Array;
  readonly #freed: () => void;

  constructor(data: ArrayLike<number>, freed: () => void) {
    super();
    this.data = Float64Array.from(data);
    this.#freed = freed;
  }

  protected override free(): void {
    this.#freed();
  }
}

/** A backend whose programs are evaluated, with the elements that its blocks hold. */
function counting() {
  const count = { elements: 0, uploads: 0, computed: 0 };
  const block = (data: ArrayLike<number>) => {
    count.elements += data.length;
    return new CountedBlock(data, () => {
      count.elements -= data.length;
    });
  };
  const handle = (spec: TensorSpec, data: ArrayLike<number>) =>
    new BlockTensor<CountedBlock>(host, spec, block(data), true);
  const arrayOf = ({ spec, block: { data } }: BlockTensor<CountedBlock>) => ({ shape: sizesOf(spec.shape), data });
  const host: ConstantsHost<CountedBlock> = {
    live: new Set(),
    allocate: () => block([]),
    read: async (_spec, { data }) => Float64Array.from(data),
    tensor(spec, data = new Float32Array()) {
      count.uploads += 1;
      return handle(spec, data);
    },
    async assemble(graph) {
      const outputs: BlockTensor<CountedBlock>[] = [];
      return {
        run(inputs) {
          const given = Object.entries(inputs) as [string, BlockTensor<CountedBlock>][];
          const results = evaluate(graph, Object.fromEntries(given.map(([name, tensor]) => [name, arrayOf(tensor)])));
          count.computed += Object.keys(results).length;
          const made = Object.entries(results).map(
            ([name, { data }]) => [name, handle(graph.outputs[name] as TensorSpec, data)] as const,
          );
          outputs.push(...made.map(([, tensor]) => tensor));
          return Object.fromEntries(made);
        },
        close: () => {
          for (const tensor of outputs) tensor.dispose();
        },
      };
    },
  };
  const shared = new SharedConstants(host);
  /** A program as backends make it: with its own rest of the graph, and handles of its constants. */
  async function compile(graph: Graph, arrays: { readonly [name: string]: TypedArray }) {
    const given: GivenConstants = Object.entries(arrays).map(([name, data]) => [
      name,
      graph.inputs[name] as TensorSpec,
      data,
    ]);
    const hoisted = hoistConstants(graph, Object.keys(arrays), () => false);
    const constants = await shared.hold(hoisted, given);
    return {
      run(x: readonly number[][]) {
        const values = Object.entries(constants).map(([name, tensor]) => [name, arrayOf(tensor)]);
        const input = { shape: [x.length, x[0]?.length ?? 0], data: Float64Array.from(x.flat()) };
        return [...(evaluate(hoisted.main, { ...Object.fromEntries(values), x: input }).value?.data ?? [])];
      },
      close() {
        for (const tensor of Object.values(constants)) tensor.dispose();
      },
    };
  }
  return { count, host, compile };
}

/** Rows of three times two weights put together and scaled, and a bias that is read as it is. */
const graphOf = (rows: number, factor = 2) =>
  trace({ x: f32(rows, 3), v: f32(1, 3), w: f32(1, 3), bias: f32(1, 2) }, ({ x, v, w, bias }) =>
    mul(matmul(x, mul(concat([v, w], { axis: 0 }), factor), { transposeB: true }), bias),
  ) as unknown as Graph;
const weights = () => ({
  v: Float32Array.of(1, 2, 3),
  w: Float32Array.of(4, 5, 6),
  bias: Float32Array.of(1, 10),
});
const x = [[1, 1, 1]];
const once = { elements: 8, uploads: 3, computed: 1 };

test("programs of the same arrays hold them, and what is computed from them, once", async () => {
  const { count, compile } = counting();
  const arrays = weights();
  const programs = [await compile(graphOf(1), arrays)];
  expect(count).toEqual(once);
  for (const rows of [2, 4, 8]) programs.push(await compile(graphOf(rows), arrays));
  expect(count).toEqual(once);
  expect(programs[0]?.run(x)).toEqual([12, 300]);
  expect(programs[1]?.run([...x, [0, 0, 1]])).toEqual([12, 300, 6, 120]);
  for (const program of programs.splice(1)) program.close();
  expect(programs[0]?.run(x)).toEqual([12, 300]);
  expect(count.elements).toBe(8);
  programs[0]?.close();
  expect(count.elements).toBe(0);
  const again = await compile(graphOf(1), arrays);
  expect(count).toEqual({ elements: 8, uploads: 6, computed: 2 });
  again.close();
});

test("programs that are compiled at once do too", async () => {
  const { count, compile } = counting();
  const arrays = weights();
  const programs = await Promise.all([1, 2, 4].map((rows) => compile(graphOf(rows), arrays)));
  expect(count).toEqual(once);
  for (const program of programs) program.close();
  expect(count.elements).toBe(0);
});

test("an array that has changed is another constant, for programs from then on", async () => {
  const { count, compile } = counting();
  const arrays = weights();
  const before = await compile(graphOf(1), arrays);
  // Signs alone, of two numbers: what a sum of the words would not see.
  arrays.w.set([-4, -5, 6]);
  const after = await compile(graphOf(1), arrays);
  expect([before.run(x), after.run(x)]).toEqual([
    [12, 300],
    [12, -60],
  ]);
  // The bias is one still.
  expect(count.elements).toBe(14);
  before.close();
  expect(count.elements).toBe(8);
  arrays.w.set([4, 5, 6]);
  const restored = await compile(graphOf(1), arrays);
  expect(restored.run(x)).toEqual([12, 300]);
  for (const program of [after, restored]) program.close();
  expect(count.elements).toBe(0);
});

test("arrays of equal shapes, parts of one memory, and other expressions of the same arrays are kept apart", async () => {
  const { count, compile } = counting();
  const memory = Float32Array.of(0, 1, 2, 3, 4, 5, 6, 1, 10);
  const arrays = { v: memory.subarray(1, 4), w: memory.subarray(4, 7), bias: memory.subarray(7) };
  const programs = [
    await compile(graphOf(1), arrays),
    await compile(graphOf(1), { ...arrays, v: arrays.w, w: arrays.v }),
    await compile(graphOf(1), { ...arrays, v: memory.subarray(0, 3) }),
    await compile(graphOf(1, 3), arrays),
    await compile(graphOf(1), { ...arrays, bias: Float32Array.of(1, 10) }),
  ];
  expect(programs.map((program) => program.run(x))).toEqual([
    [12, 300],
    [30, 120],
    [6, 300],
    [18, 450],
    [12, 300],
  ]);
  expect(count.elements).toBe(4 * 6 + 2 * 2);
  for (const program of programs) program.close();
  expect(count.elements).toBe(0);
});

test("where computing them fails nothing is left, and the next program has what it needs", async () => {
  const { count, host, compile } = counting();
  const arrays = weights();
  vi.spyOn(host, "assemble").mockRejectedValueOnce(new Error("no kernel"));
  await expect(compile(graphOf(1), arrays)).rejects.toThrow("no kernel");
  expect(count.elements).toBe(0);
  const program = await compile(graphOf(1), arrays);
  expect(program.run(x)).toEqual([12, 300]);
  program.close();
  expect(count.elements).toBe(0);
});
