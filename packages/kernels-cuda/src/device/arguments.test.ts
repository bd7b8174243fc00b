import { expect, test } from "vitest";
import { broadcastStrides, denseStrides } from "../views.ts";
import { joinAxes, maximumRank, packArguments, packAxes, packStruct } from "./arguments.ts";
import { kernelEntry, kernelImages } from "./kernels.ts";

test("arguments lie at multiples of their size, addresses are left open", () => {
  const structure = { type: "bytes", size: 12, align: 4 };
  const storage = {};
  const { bytes, places, addresses } = packArguments(
    "k",
    ["u32", "u64", "f32", structure, "u64"],
    [7, { storage, offset: 4 }, 0.5, new Uint8Array(12).fill(9), -1],
  );
  const view = new DataView(bytes.buffer);
  expect([bytes.length, places]).toEqual([40, [0, 8, 16, 20, 32]]);
  expect([view.getInt32(0, true), view.getFloat32(16, true), view.getBigInt64(32, true)]).toEqual([7, 0.5, -1n]);
  expect([...bytes.subarray(20, 32)]).toEqual(new Array(12).fill(9));
  expect(addresses).toEqual([{ at: 8, argument: { storage, offset: 4 } }]);
});

test("tensor maps are left open, at multiples of 64", () => {
  const argument = { storage: {}, offset: 4, map: { sizes: [1, 2, 3, 64], pitch: 192, rows: 64 } } as const;
  const map = { type: "bytes", size: 128, align: 64 };
  const { bytes, addresses } = packArguments("k", ["u32", map, "u32"], [1, argument, 2]);
  expect([bytes.length, addresses]).toEqual([196, [{ at: 64, argument }]]);
  expect(() => packArguments("k", ["u64"], [argument])).toThrow("does not fit");
});

test("arguments that a kernel does not take are a fault of the lowering", () => {
  expect(() => packArguments("k", ["u32"], [])).toThrow("takes 1 arguments, got 0");
  expect(() => packArguments("k", ["u32"], [0.5])).toThrow("does not fit");
  expect(() => packArguments("k", ["u32"], [{ storage: {}, offset: 0 }])).toThrow("does not fit");
  expect(() => packArguments("k", [{ type: "bytes", size: 8, align: 4 }], [new Uint8Array(4)])).toThrow("does not fit");
});

test("axes are joined where every operand lies densely along them", () => {
  const dense = denseStrides([2, 3, 4]);
  expect(joinAxes([2, 3, 4], [dense, dense])).toEqual({ sizes: [24], strides: [[1], [1]] });
  const column = broadcastStrides([3, 1], [2, 3, 4]);
  expect(column).toEqual([0, 1, 0]);
  expect(joinAxes([2, 3, 4], [dense, column])).toEqual({
    sizes: [2, 3, 4],
    strides: [
      [12, 4, 1],
      [0, 1, 0],
    ],
  });
  expect(joinAxes([1, 1], [[1, 1]])).toEqual({ sizes: [1], strides: [[0]] });
});

test("the structure Axes has the size that kernels expect, and no more axes than they take", () => {
  const axes = kernelEntry("add_f").parameters.at(-1);
  const packed = packAxes([2, 3], [{ type: 0, strides: [3, 1] }]);
  expect(axes).toMatchObject({ type: "bytes", size: packed.length });
  const sizes = new Array<number>(maximumRank + 1).fill(2);
  // Every other axis is broadcast, so that none can be joined.
  const strides = sizes.map((_, axis) => (axis % 2 ? 0 : 1));
  expect(() => packAxes(sizes, [{ type: 0, strides }])).toThrow("at most 8 axes");
});

test("members of structures lie as C lays them out", () => {
  const [a, b] = [0, 16].map((offset) => ({ storage: {}, offset }));
  const { bytes, addresses } = packStruct([7, a ?? null, { float: 0.5 }, 3, null, 1, b ?? null, 9]);
  expect(bytes.length).toBe(56);
  const view = new DataView(bytes.buffer);
  expect([view.getInt32(0, true), view.getFloat32(16, true), view.getInt32(20, true)]).toEqual([7, 0.5, 3]);
  expect([view.getInt32(32, true), view.getInt32(48, true)]).toEqual([1, 9]);
  expect(addresses).toEqual([
    { at: 8, argument: a },
    { at: 40, argument: b },
  ]);
  const outer = packStruct([1, { bytes, addresses }, 2]);
  expect([outer.bytes.length, new DataView(outer.bytes.buffer).getInt32(64, true)]).toEqual([72, 2]);
  expect(outer.addresses.map(({ at }) => at)).toEqual([16, 48]);
});

test("every kernel has parameters that can be packed", () => {
  for (const { kernels } of Object.values(kernelImages)) {
    for (const [name, parameters] of Object.entries(kernels)) {
      const args = parameters.map((parameter) => (typeof parameter === "string" ? 0 : new Uint8Array(parameter.size)));
      expect(packArguments(name, parameters, args).bytes.length, name).toBeGreaterThan(0);
    }
  }
});
