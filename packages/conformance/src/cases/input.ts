import { add } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, testCase } from "../case.ts";

const exact = { exact: true };

export const inputCases = casesOf("input", [
  testCase({
    name: "output",
    inputs: { x: floats([3]) },
    program: ({ x }) => x,
    tolerance: exact,
    note: "an output is an input",
  }),
  testCase({
    name: "two-outputs",
    inputs: { x: floats([3]) },
    program: ({ x }) => ({ first: x, second: x, sum: add(x, x) }),
    note: "two outputs are one input",
  }),
  testCase({
    name: "unused",
    inputs: { x: floats([3]), unused: floats([2]) },
    program: ({ x }) => add(x, 1),
    note: "nothing reads the second input; its gradient is zero",
  }),
  testCase({
    name: "unused-symbolic",
    inputs: { x: floats(["T"]), unused: floats(["T", 2]) },
    program: ({ x }) => add(x, 1),
    gradients: ["x"],
    sizes: [{ T: 4 }, { T: 0 }],
  }),
  testCase({ name: "int32", inputs: { x: integers([3], { low: -5, high: 5 }) }, program: ({ x }) => x }),
  testCase({ name: "bool", inputs: { x: booleans([3]) }, program: ({ x }) => x }),
  testCase({ name: "scalar", inputs: { x: floats([]) }, program: ({ x }) => x, tolerance: exact }),
  testCase({ name: "empty", inputs: { x: floats([0, 2]) }, program: ({ x }) => x, tolerance: exact }),
  ...otherFloats.map((dtype) =>
    testCase({ name: dtype, inputs: { x: floats([3], { dtype }) }, program: ({ x }) => x, tolerance: exact }),
  ),
  testCase({
    name: "hostile",
    inputs: { x: hostileFloats([16]) },
    program: ({ x }) => x,
    tolerance: exact,
    ieee: true,
  }),
]);
