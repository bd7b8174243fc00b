import { fromBinary } from "@bufbuild/protobuf";
import { AttributeProto_AttributeType, ModelProtoSchema, TensorProto_DataLocation } from "onnx-buf";
import { describe, expect, test } from "vitest";
import { GraphBuilder, modelBytes, type PlaceConstant } from "./model-proto.ts";

const decoded = (graph: GraphBuilder, place?: PlaceConstant) =>
  fromBinary(ModelProtoSchema, modelBytes(graph, { name: "g", opset: 23, place }));

describe("a graph under construction", () => {
  test("has inputs, nodes with attributes of every kind, and outputs", () => {
    const graph = new GraphBuilder();
    const x = graph.input("x", "float32", ["T", 4]);
    const body = graph.subgraph();
    body.output(body.node("Neg", [x]), "float32", ["T", 4]);
    const y = graph.node(
      "Thing",
      [x, undefined, x],
      { whole: 3, real: { float: 2 }, list: [1, -2], text: "add", body: { graph: body }, absent: undefined },
      { name: "thing", domain: "acme" },
    );
    graph.namedOutput(y, "y", "float32", ["T", 4]);
    const message = decoded(graph);
    expect(message.opsetImport.map(({ domain, version }) => [domain, version])).toEqual([
      ["", 23n],
      ["acme", 1n],
    ]);
    expect(message.irVersion).toBe(11n);
    const [node] = message.graph?.node ?? [];
    expect(node).toMatchObject({ name: "thing", opType: "Thing", input: ["x", "", "x"], output: ["y"] });
    const kinds = Object.fromEntries(
      (node?.attribute ?? []).map(({ name, type }) => [name, AttributeProto_AttributeType[type]]),
    );
    expect(kinds).toEqual({ whole: "INT", real: "FLOAT", list: "INTS", text: "STRING", body: "GRAPH" });
    expect(node?.attribute.find(({ name }) => name === "list")?.ints).toEqual([1n, -2n]);
    expect(node?.attribute.find(({ name }) => name === "real")?.f).toBe(2);
    expect(message.graph?.input[0]?.type?.value.value).toMatchObject({
      shape: { dim: [{ value: { case: "dimParam", value: "T" } }, { value: { case: "dimValue", value: 4n } }] },
    });
  });

  test("gives every output a name of its own", () => {
    const graph = new GraphBuilder();
    const x = graph.input("x", "float32", [1]);
    const y = graph.node("Neg", [x]);
    for (const name of ["a", "b"]) graph.namedOutput(y, name, "float32", [1]);
    graph.namedOutput(x, "c", "float32", [1]);
    const message = decoded(graph);
    const nodes = message.graph?.node.map(({ opType, input, output }) => [opType, ...input, ...output]);
    expect(nodes).toEqual([
      ["Neg", "x", "a"],
      ["Identity", "a", "b"],
      ["Identity", "x", "c"],
    ]);
    expect(() => graph.input("x", "float32", [1])).toThrow('"x" is defined twice');
  });

  test("stores small equal constants once, whatever their type names", () => {
    const graph = new GraphBuilder();
    expect(graph.float(1)).toBe(graph.float(1));
    expect(graph.float(1)).not.toBe(graph.float(-1));
    expect(graph.int64(1)).not.toBe(graph.int64Scalar(1));
    expect(graph.float(0)).not.toBe(graph.int32(0));
    expect(graph.float(0)).not.toBe(graph.float(-0));
    expect(graph.constantBytes).toBe(4 * 4 + 2 * 8 + 4);
  });

  test("leaves constants outside where it is told to", () => {
    const graph = new GraphBuilder();
    const data = Float32Array.from({ length: 300 }, (_, index) => index);
    graph.namedConstant("w", data, [300], "float32");
    graph.namedConstant("b", Float32Array.of(1), [1], "float32");
    const outside: Uint8Array[] = [];
    const message = decoded(graph, (_name, bytes) => {
      if (bytes.length < 1024) return undefined;
      outside.push(bytes);
      return { location: "model.onnx_data", offset: 4096 };
    });
    expect(outside.map(({ byteLength, buffer }) => [byteLength, buffer === data.buffer])).toEqual([[1200, true]]);
    const [w, b] = message.graph?.initializer ?? [];
    expect(w?.dataLocation).toBe(TensorProto_DataLocation.EXTERNAL);
    expect(w?.externalData.map(({ key, value }) => [key, value])).toEqual([
      ["location", "model.onnx_data"],
      ["offset", "4096"],
      ["length", "1200"],
    ]);
    expect(w?.rawData.length).toBe(0);
    expect(b?.rawData.length).toBe(4);
  });
});
