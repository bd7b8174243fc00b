import { add, f32, GraphError, mul, trace } from "@sisa/core";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { graphToOnnx } from "../index.ts";

describe("graphToOnnx", () => {
  const graph = trace({ x: f32("T", 2), w: f32(2) }, ({ x, w }) => mul(add(x, 1), w));

  test("keeps symbols as dynamic axes and takes constants in", async () => {
    const file = graphToOnnx(graph, { constants: { w: Float32Array.of(2, 3) }, names: { x: "in", value: "out" } });
    const session = await InferenceSession.create(file);
    const { out } = await session.run({ in: new Tensor("float32", Float32Array.of(0, 1, 2, 3), [2, 2]) });
    expect([...((out?.data ?? []) as Float32Array)]).toEqual([2, 6, 6, 12]);
    await session.release();
  });

  test("refuses what a protobuf cannot hold", () => {
    const large = trace({ x: f32(1), w: f32(2 ** 29) }, ({ x, w }) => add(x, w));
    // Never touched, so that no memory is taken.
    const data = new Float32Array(2 ** 29);
    expect(() => graphToOnnx(large, { constants: { w: data } })).toThrow(GraphError);
  });
});
