import { fromBinary } from "@bufbuild/protobuf";
import {
  add,
  cacheWrite,
  dim,
  f32,
  GraphError,
  i32,
  iota,
  matmul,
  reshape,
  rmsNorm,
  softmax,
  sum,
  swiglu,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { type GraphProto, ModelProtoSchema } from "onnx-buf";
import { describe, expect, test } from "vitest";
import { lower } from "./lower.ts";
import { modelBytes } from "./model-proto.ts";

function lowered(graph: Parameters<typeof lower>[0], dialect: "onnxruntime" | "standard" = "onnxruntime") {
  const { builder, inPlace } = lower(graph, {
    dialect,
    nameOfInput: (name) => `in ${name}`,
    nameOfOutput: (name) => `out ${name}`,
  });
  const { graph: proto } = fromBinary(ModelProtoSchema, modelBytes(builder, { name: "g", opset: 24 }));
  if (proto === undefined) throw new Error("the model has no graph");
  return { proto, inPlace };
}

const operators = ({ node }: GraphProto) => node.map(({ opType }) => opType);

describe("lower", () => {
  test("names nodes after the operations they come from", () => {
    const { proto } = lowered(trace({ x: f32(2, 3) }, ({ x }) => softmax(add(x, 1))));
    expect(proto.node.map(({ name }) => name.replace(/\d+/g, "N"))).toEqual(["add#N.N", "softmax#N.N"]);
  });

  test("takes weights as they lie", () => {
    const graph = trace({ x: f32("B", "T", 8), w: f32(4, 8) }, ({ x, w }) => matmul(x, w, { transposeB: true }));
    expect(operators(lowered(graph).proto)).toEqual(["FusedMatMul"]);
    expect(operators(lowered(graph, "standard").proto)).toEqual(["Transpose", "MatMul"]);
  });

  test("uses nothing but ONNX's own operators in the standard dialect", () => {
    const graph = trace({ x: f32("T", 8), g: f32(8), w: f32(8, 8) }, ({ x, g, w }) => {
      const h = rmsNorm(x, g);
      return swiglu(matmul(h, w, { transposeB: true }), h);
    });
    const { proto } = lowered(graph, "standard");
    expect(new Set(proto.node.map(({ domain }) => domain))).toEqual(new Set([""]));
    expect(operators(proto)).not.toContain("SimplifiedLayerNormalization");
  });

  test("the backward pass of a norm uses what the forward pass computed", () => {
    const loss = trace({ x: f32(4, 8), g: f32(8) }, ({ x, g }) => sum(rmsNorm(x, g)));
    const names = operators(lowered(valueAndGrad(loss, { wrt: ["x", "g"] })).proto);
    expect(names.filter((name) => name === "SimplifiedLayerNormalization")).toHaveLength(1);
  });

  test("computes sizes from the axes of inputs", () => {
    const graph = trace({ x: f32("B", "T", 6) }, ({ x }) => ({
      flat: reshape(x, [dim("B").times("T").times(6)]),
      parts: reshape(x, [dim("B").times(2), "T", 3]),
      places: iota(dim("T").times(2)),
    }));
    expect(operators(lowered(graph).proto).filter((name) => name === "Shape")).toHaveLength(2);
  });

  test("takes known sizes off an axis that holds more", () => {
    const graph = trace({ x: f32(dim("P").plus("T")), y: f32("T") }, () => iota("P"));
    expect(operators(lowered(graph).proto)).toContain("Sub");
    const product = trace({ x: f32(dim("P").times("T")), y: f32("T") }, () => iota("P"));
    expect(() => lowered(product)).toThrow("size P is not the size of an axis of any input");
  });

  test("refuses sizes that no axis tells", () => {
    const graph = trace({ x: f32(dim("P").plus("T")) }, ({ x }) => add(x, reshape(x, [dim("P").plus("T")])));
    expect(() => lowered(graph)).not.toThrow();
    const places = trace({ x: f32(dim("P").plus("T")) }, () => iota("P"));
    expect(() => lowered(places)).toThrow(GraphError);
    expect(() => lowered(places)).toThrow("size P is not the size of an axis of any input");
  });

  test("tells which inputs are overwritten by which outputs", () => {
    const inputs = { cache: f32(1, 4, 2), update: f32(1, 1, 2), start: i32(1) };
    const graph = trace(inputs, ({ cache, update, start }) => ({ grown: cacheWrite(cache, update, start) }));
    expect([...lowered(graph).inPlace]).toEqual([["cache", "grown"]]);
  });
});
