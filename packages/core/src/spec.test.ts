import { expect, test } from "vitest";
import { dim, shapeText } from "./dim.ts";
import { ShapeError } from "./errors.ts";
import { bool, f32, i32, specText } from "./spec.ts";

test("specs are made of numbers, symbols and sizes, and print in short", () => {
  expect(specText(f32("T", 8))).toBe("float32[T,8]");
  expect(specText(i32(dim("P").plus("T")))).toBe("int32[P + T]");
  expect(specText(bool())).toBe("bool[]");
  expect(specText({ dtype: "bfloat16", shape: f32(2).shape })).toBe("bfloat16[2]");
  expect(shapeText(f32(0, "B").shape)).toBe("[0,B]");
});

test("a negative size is refused where it is written", () => {
  expect(() => f32(2, -1)).toThrow(new ShapeError("sizes must be >= 0, got [2,-1]"));
});
