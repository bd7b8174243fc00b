import { describe, expect, test } from "vitest";
import { difference, nmseOf } from "./compare.ts";

const infinity = Number.POSITIVE_INFINITY;

describe("difference", () => {
  test("is none within the tolerance, and names the worst element beyond it", () => {
    expect(difference("float32", [1, 2.0001], [1, 2])).toBeUndefined();
    expect(difference("float32", [1, 2.01], [1, 2])).toBe(
      "NMSE 2.00e-5, allowed 1e-7; worst element 1 is 2.01, expected 2",
    );
    expect(difference("float32", [1, 2.01], [1, 2], { nmse: 1e-4 })).toBeUndefined();
  });

  test("counts elements before anything else", () => {
    expect(difference("float32", [1], [1, 2])).toBe("has 1 elements, expected 2");
  });

  test("wants NaN and infinities in the same places, with the same sign", () => {
    expect(difference("float32", [Number.NaN, infinity, -infinity], [Number.NaN, infinity, -infinity])).toBeUndefined();
    expect(difference("float32", [1, 5], [1, Number.NaN])).toBe("element 1 is 5, expected NaN");
    expect(difference("float32", [1, Number.NaN], [1, 5])).toBe("element 1 is NaN, expected 5");
    expect(difference("float32", [infinity], [-infinity])).toBe("element 0 is Infinity, expected -Infinity");
  });

  test("expects what the dtype holds, so that overflow is an infinity", () => {
    expect(difference("float32", [infinity], [1e39])).toBeUndefined();
    expect(difference("float16", [infinity], [1e5])).toBeUndefined();
    expect(difference("float32", [3e38], [1e39])).toBe("element 0 is 3e+38, expected Infinity");
  });

  test("compares whole numbers and truth values exactly, whatever the tolerance", () => {
    expect(difference("int32", [1000000], [1000001], { nmse: 1, absolute: 5 })).toBe(
      "element 0 is 1000000, expected 1000001",
    );
    expect(difference("bool", [1], [0], { nmse: 1 })).toBe("element 0 is 1, expected 0");
  });

  test("tells zeros apart only where it must be exact", () => {
    expect(difference("float32", [0], [-0])).toBeUndefined();
    expect(difference("float32", [0], [-0], { exact: true })).toBe("element 0 is 0, expected -0");
  });

  test("measures each element by itself where a relative error is named", () => {
    const [actual, expected] = [
      [1e-3, 1000],
      [1.1e-3, 1000],
    ];
    expect(difference("float32", actual, expected)).toBeUndefined();
    expect(difference("float32", actual, expected, { relative: 1e-3 })).toContain("off by 9.1e-2, allowed 0.001");
  });

  test("forgives small errors where an absolute one is named, and where nothing is expected only then", () => {
    expect(difference("float32", [1e-7, 0], [0, 0])).toContain("NMSE Infinity");
    expect(difference("float32", [1e-7, 0], [0, 0], { absolute: 1e-6 })).toBeUndefined();
    expect(difference("float32", [1e-5, 0], [0, 0], { absolute: 1e-6 })).toContain("NMSE Infinity");
  });

  test("compares angles around the turn", () => {
    const turn = 2 * Math.PI;
    expect(difference("float32", [1e-7, 1], [turn, 1 + 3 * turn], { angle: 1e-5 })).toBeUndefined();
    expect(difference("float32", [0.1], [turn], { angle: 1e-5 })).toContain("element 0 is 0.1");
    expect(difference("float32", [Number.NaN], [1], { angle: 1e-5 })).toContain("element 0 is NaN");
    expect(difference("float32", [Number.NaN], [Number.NaN], { angle: 1e-5 })).toBeUndefined();
  });
});

test("nmseOf is infinite where NaN differ", () => {
  expect(nmseOf([1, 2], [1, 2])).toBe(0);
  expect(nmseOf([1, 3], [1, 2])).toBeCloseTo(0.2);
  expect(nmseOf([1, Number.NaN], [1, 2])).toBe(infinity);
});
