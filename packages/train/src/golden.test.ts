// Ten steps of the official PyTorch code, taken again: losses, norms of gradients, and the weights after them.
import { reference } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { goldenRun } from "../test/golden.ts";

describe("ten steps on the reference", () => {
  it.each([
    ["sisa-train-10-steps", "exact"],
    ["sisa-train-10-steps", "sdpa"],
    ["transformer-train-10-steps", "exact"],
  ] as const)("%s, form %s", async (name, form) => {
    await using backend = reference();
    const differences = await goldenRun(name, backend, { form });
    expect(differences.steps).toBe(10);
    expect(differences.loss).toBeLessThan(1e-4);
    expect(differences.gradNorm).toBeLessThan(1e-3);
    expect(differences.parameter).toBeLessThan(1e-3);
  });
});
