import { describe, expect, test } from "vitest";
import { trace } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { f32 } from "../spec.ts";
import { GatedFeedForward } from "./gated-feed-forward.ts";
import { initialize, mount, normal, parameterCount, parameterSpecs, parametersUnder } from "./layer.ts";
import { SisaMixer } from "./sisa-mixer.ts";

const layer = new GatedFeedForward({ width: 8, feedForwardWidth: 12, normEpsilon: 1e-6 });

describe("parameters", () => {
  test("a child's parameters are mounted under a prefix and found again", () => {
    const parent = { parameters: { ...mount("a.", layer), ...mount("b.", layer) } };
    expect(parameterCount(parent)).toBe(2 * (8 + 3 * 8 * 12));
    const graph = trace({ x: f32(1, 2, 8), ...parameterSpecs(parent) }, ({ x, ...p }) =>
      layer.forward(parametersUnder(p as Record<string, Tensor>, "b.", layer), x as Tensor),
    );
    expect(graph.outputs.value.shape.join()).toBe("1,2,8");
    expect(() => parametersUnder({}, "a.", layer)).toThrow('parameter "a.ffn_norm.weight" is missing');
  });

  test("first values depend on the seed and the name alone", () => {
    const one = initialize({ parameters: { a: normal([50], 1), b: normal([50], 1) } }, 7);
    expect(one.a).not.toEqual(one.b);
    expect(initialize({ parameters: { b: normal([50], 1) } }, 7).b).toEqual(one.b);
    expect(initialize({ parameters: { b: normal([50], 1) } }, 8).b).not.toEqual(one.b);
  });

  test("SISA starts as the paper says", () => {
    const mixer = new SisaMixer({ width: 64, heads: 4, stateWidth: 16, form: "exact", normEpsilon: 1e-6 });
    const values = initialize(mixer, 0);
    const deviation = (name: string) => {
      const own = values[name] ?? new Float32Array();
      return Math.sqrt(own.reduce((total, value) => total + value * value, 0) / own.length);
    };
    expect(deviation("W_B.weight")).toBeCloseTo(0.02, 3);
    expect(deviation("theta_proj.weight")).toBeCloseTo(0.01, 3);
    expect(values["alpha_proj.bias"]).toEqual(new Float32Array(4).fill(-5));
    expect(values.lambda_raw).toEqual(new Float32Array(4).fill(-1));
    expect(mixer.parameters.lambda_raw).toMatchObject({ learningRateFactor: 0.1, weightDecay: false });
  });
});
