import { attention, f32, matmul, reference, softmax, swiglu, trace } from "@sisa/core";
import { expect, test } from "vitest";
import { floats, testCase } from "../case.ts";
import { flopsOf } from "../program.ts";
import { measure } from "./perf.ts";

test("operations are counted by what they say, else by their composition, else by their elements", () => {
  const product = trace({ a: f32(3, 4), b: f32(4, 5) }, ({ a, b }) => matmul(a, b));
  expect(flopsOf(product)).toBe(2 * 3 * 4 * 5);
  // A sigmoid and two products.
  expect(flopsOf(trace({ gate: f32(7), up: f32(7) }, ({ gate, up }) => swiglu(gate, up)))).toBe(3 * 7);
  // The largest, a difference, a power, a sum, a quotient; two of them one for each row.
  expect(flopsOf(trace({ x: f32(2, 7) }, ({ x }) => softmax(x)))).toBe(3 * 14 + 2 * 2);
  const heads = f32(1, 8, 2, 4);
  // Two products of T x T x D, half of which a causal mask leaves out.
  const causal = trace({ q: heads, k: heads, v: heads }, (inputs) => attention(inputs));
  expect(flopsOf(causal)).toBe(2 * (8 * 8 * 2 * (4 + 4)) * (1 / 2));
});

test("only cases for timing are timed", async () => {
  const item = testCase({ name: "sum", inputs: { x: floats([64, 64]) }, program: ({ x }) => softmax(x), perf: true });
  expect(await measure(reference(), "softmax", { ...item, perf: false })).toBeUndefined();
  const timed = await measure(reference(), "softmax", item);
  expect(timed?.status).toBe("passed");
  expect(timed?.note).toMatch(/^\d\S* ms, \d\S* GFLOP\/s, \d\S* GB\/s$/);
});
