import { add, f32, GraphError, i32, initialize, languageModel, mul, preset, reference, trace } from "@sisa/core";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { exportOnnx, graphToOnnx } from "./index.ts";

describe("exportOnnx", () => {
  test.for(["sisa", "transformer"] as const)("gives the logits of a %s from any runtime", async (family) => {
    const sizes = { vocabularySize: 31, width: 16, heads: 2, layers: 2, stateWidth: 4, maximumLength: 96 };
    const model = languageModel(preset(family, "1m", sizes));
    const parameters = initialize(model, 7);
    const assets = { "config.json": new TextEncoder().encode("{}") };
    const files = await exportOnnx({ model, parameters, assets });
    expect(Object.keys(files).sort()).toEqual(["config.json", "onnx/model.onnx"]);
    const session = await InferenceSession.create(files["onnx/model.onnx"] ?? new Uint8Array());
    expect(session.inputNames).toEqual(["input_ids"]);
    expect(session.outputNames).toEqual(["logits"]);

    const device = reference();
    const program = await device.compile(model.logitsGraph());
    for (const [batch, length] of [
      [1, 5],
      [2, 70],
    ] as const) {
      const ids = Int32Array.from({ length: batch * length }, (_, index) => (index * 7) % 31);
      const feeds = { input_ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [batch, length]) };
      const { logits } = await session.run(feeds);
      const inputs = Object.entries(model.logitsGraph().inputs).flatMap(([name, spec]) =>
        name === "ids" ? [] : [[name, device.tensor(spec, parameters[name])]],
      );
      const outputs = program.run({ ...Object.fromEntries(inputs), ids: device.tensor(i32(batch, length), ids) });
      const expected = await outputs.logits.read();
      expect(logits?.dims).toEqual([batch, length, 31]);
      for (const [index, value] of expected.entries()) expect(Number(logits?.data[index])).toBeCloseTo(value, 5);
    }
    await session.release();
  });
});

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
