import { expect, it } from "vitest";
import { halfLifeOf, headTable } from "./heads.ts";

const parameters = {
  "embed.weight": [0],
  "layers.10.lambda_raw": [0, 1],
  "layers.10.alpha_proj.bias": [0, -5],
  "layers.2.lambda_raw": [-1, -1],
  "layers.2.alpha_proj.bias": [-5, 30],
};

it("gives lambda and half-life of the initial values as the paper states them", () => {
  const heads = headTable(parameters);
  expect(heads?.layers).toEqual(["2", "10"]);
  expect(heads?.lambda[0]?.[0]).toBeCloseTo(0.3133, 4);
  // protocol: bias -5 is a half-life of 103 tokens.
  expect(heads?.halfLife[0]?.[0]).toBeCloseTo(103.2, 1);
  expect(heads?.halfLife[0]?.[1]).toBeCloseTo(Math.log(2) / 30, 10);
  expect(heads?.halfLife[1]?.[0]).toBeCloseTo(1, 10);
});

it("turns measured decays into half-lives", () => {
  expect(headTable(parameters, [[-Math.log(2) / 8, -1]])?.measuredHalfLife?.[0]?.[0]).toBeCloseTo(8, 10);
  expect(halfLifeOf(-Math.log(2))).toBe(1);
});

it("is nothing for a model without lambda", () => {
  expect(headTable({ "embed.weight": [1] })).toBeUndefined();
});
