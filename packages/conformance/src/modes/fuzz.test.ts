import { type Backend, reference } from "@sisa/core";
import { expect, test } from "vitest";
import { graphOf } from "../program.ts";
import { fuzz, fuzzSeeds } from "./fuzz.ts";
import { gradientGraph } from "./grad.ts";
import { randomCase } from "./random-program.ts";

const seeds = Array.from({ length: 40 }, (_, seed) => seed);

test("a seed always gives the same program, another seed another", () => {
  const texts = seeds.map((seed) => graphOf(randomCase(seed)).toString());
  expect(seeds.map((seed) => graphOf(randomCase(seed)).toString())).toEqual(texts);
  expect(new Set(texts).size).toBe(seeds.length);
});

test("programs use many operations, run at some size, and most have gradients", () => {
  const cases = seeds.map(randomCase);
  const used = new Set(cases.flatMap((item) => graphOf(item).nodes.map(({ op }) => op.name)));
  expect(used.size).toBeGreaterThan(45);
  expect(cases.filter(({ sizes }) => sizes.length > 0).length).toBeGreaterThan(35);
  expect(cases.filter((item) => gradientGraph("fuzz", item) !== undefined).length).toBeGreaterThan(35);
});

test("a backend that is wrong in one operation is found, and the message says how to replay it", async () => {
  const right = reference();
  const wrong: Backend = Object.assign(Object.create(right) as Backend, {
    name: "wrong",
    limits: right.limits,
    tensor: right.tensor.bind(right),
    compile: async () => {
      throw new Error("mul is not what it was");
    },
  });
  const row = await fuzz(wrong, 3);
  expect(row).toMatchObject({ op: "fuzz", case: "seed 3", status: "failed" });
  expect(row.error).toContain("mul is not what it was; replay with fuzz: { seeds: [3] }\ngraph(");
  expect((await fuzz(right, 3)).status).toBe("passed");
});

test("seeds are split between the parts, and can be named", () => {
  expect(fuzzSeeds({ seeds: [17] }, "fast")).toEqual([17]);
  expect([...fuzzSeeds({}, "fast"), ...fuzzSeeds({}, "slow")]).toEqual(fuzzSeeds());
  expect(fuzzSeeds({ count: 3 })).toEqual([0, 1, 2]);
});
