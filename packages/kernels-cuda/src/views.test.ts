import { expect, test } from "vitest";
import { broadcastStrides, denseStrides, isDense, reshapeStrides, rowsOf } from "./views.ts";

test("axes are split and joined where no element has to move", () => {
  // Columns 4 to 8 of rows 12 wide: [2,3,4] cut out of [2,3,12].
  const strides = [36, 12, 1];
  expect(reshapeStrides([2, 3, 4], strides, [2, 3, 2, 2])).toEqual([36, 12, 2, 1]);
  expect(reshapeStrides([2, 3, 4], strides, [6, 4])).toEqual([12, 1]);
  expect(reshapeStrides([2, 3, 4], strides, [6, 1, 4])).toEqual([12, 12, 1]);
  expect(reshapeStrides([2, 3, 4], strides, [24])).toBeUndefined();
  expect(reshapeStrides([2, 3, 4], strides, [3, 8])).toBeUndefined();
  expect(reshapeStrides([2, 3, 4], denseStrides([2, 3, 4]), [24])).toEqual([1]);
  expect(reshapeStrides([], [], [1, 1])).toEqual([0, 0]);
  expect(reshapeStrides([0, 3], [3, 1], [3, 0])).toEqual([0, 1]);
});

test("what lies without gaps is dense, whatever is said of axes with one element", () => {
  expect(isDense([2, 3], [3, 1])).toBe(true);
  expect(isDense([2, 1, 3], [3, 77, 1])).toBe(true);
  expect(isDense([2, 3], [4, 1])).toBe(false);
  expect(isDense([3, 2], [1, 3])).toBe(false);
  expect(isDense([0, 2], [9, 9])).toBe(true);
});

test("rows are told by their width and distance", () => {
  expect(rowsOf([2, 3, 4], [36, 12, 1])).toEqual({ count: 6, width: 4, pitch: 12 });
  expect(rowsOf([2, 3, 2, 2], [36, 12, 2, 1], 4)).toEqual({ count: 6, width: 4, pitch: 12 });
  expect(rowsOf([1, 4], [99, 1])).toEqual({ count: 1, width: 4, pitch: 4 });
  expect(rowsOf([4, 3], [1, 4])).toBeUndefined();
});

test("broadcasting repeats elements where they lie", () => {
  expect(broadcastStrides([3, 1], [2, 3, 4], [5, 1])).toEqual([0, 5, 0]);
});
