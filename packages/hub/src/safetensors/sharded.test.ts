import { describe, expect, it } from "vitest";
import { jsonBytes } from "../json.ts";
import { memoryStorage } from "../storage/memory-storage.ts";
import { readBytes, type Storage } from "../storage/storage.ts";
import { openTensors, writeTensors } from "./sharded.ts";
import { type TensorToWrite, writeSafetensors } from "./write.ts";

const vector = (...values: number[]): TensorToWrite => ({
  dtype: "float32",
  shape: [values.length],
  data: Float32Array.from(values),
});
const four = { a: vector(1, 2), b: vector(3, 4), c: vector(5, 6), d: vector(7, 8, 9, 10) };
const files = [
  "model-00001-of-00003.safetensors",
  "model-00002-of-00003.safetensors",
  "model-00003-of-00003.safetensors",
];

async function sharded(): Promise<Storage> {
  const storage = memoryStorage();
  await writeTensors(storage, four, { maximumShardBytes: 16, metadata: { format: "pt" } });
  return storage;
}

describe("writeTensors and openTensors", () => {
  it("use one file where it is large enough", async () => {
    const storage = memoryStorage();
    expect(await writeTensors(storage, four)).toEqual(["model.safetensors"]);
    await using source = await openTensors(storage);
    expect((await source.read("c")).data).toEqual(Float32Array.of(5, 6));
  });

  it("use shards and an index beyond that", async () => {
    const storage = await sharded();
    // a and b fill 16 bytes, c is alone because d does not fit beside it.
    expect(await storage.list()).toEqual([...files, "model.safetensors.index.json"]);
    const index = JSON.parse(new TextDecoder().decode(await readBytes(storage, "model.safetensors.index.json")));
    expect(index.weight_map).toEqual({ a: files[0], b: files[0], c: files[1], d: files[2] });
    expect(index.metadata.total_size).toBe(40);
    await using source = await openTensors(storage);
    expect([...source.tensors.keys()]).toEqual(["a", "b", "c", "d"]);
    expect(source.metadata).toEqual({ format: "pt" });
    expect((await source.read("a")).data).toEqual(Float32Array.of(1, 2));
    expect((await source.read("d")).data).toEqual(Float32Array.of(7, 8, 9, 10));
    await expect(source.read("e")).rejects.toThrow(/no tensor "e"/);
  });

  it("remove what an earlier save of another size left, and nothing else", async () => {
    const storage = await sharded();
    await storage.write("model-card.safetensors", new Uint8Array(1));
    await writeTensors(storage, four);
    expect(await storage.list()).toEqual(["model-card.safetensors", "model.safetensors"]);
    await writeTensors(storage, four, { maximumShardBytes: 16 });
    expect(await storage.list()).toEqual(["model-card.safetensors", ...files, "model.safetensors.index.json"].sort());
  });

  it("take another base name", async () => {
    const storage = memoryStorage();
    await writeTensors(storage, four, { base: "optimizer" });
    await using source = await openTensors(storage, { base: "optimizer" });
    expect(source.tensors.size).toBe(4);
  });

  it("read an index of others, without checksums", async () => {
    const storage = memoryStorage();
    await writeSafetensors(storage, "x.safetensors", { a: vector(1) });
    await storage.write("model.safetensors.index.json", jsonBytes({ weight_map: { a: "x.safetensors" } }));
    await using source = await openTensors(storage);
    expect((await source.read("a")).data).toEqual(Float32Array.of(1));
  });
});

describe("openTensors says in one line", () => {
  const withIndex = async (index: unknown): Promise<Storage> => {
    const storage = await sharded();
    await storage.write("model.safetensors.index.json", jsonBytes(index));
    return storage;
  };
  const map = { a: files[0], b: files[0], c: files[1], d: files[2] };

  it.each<[string, () => Promise<Storage>, RegExp]>([
    [
      "that there is no model",
      async () => memoryStorage(),
      /expected model.safetensors or model.safetensors.index.json/,
    ],
    [
      "that the index is not JSON",
      async () => memoryStorage({ "model.safetensors.index.json": new Uint8Array(3) }),
      /index.json: not JSON/,
    ],
    ["that the index has no map", () => withIndex({}), /"weight_map"/],
    ["that a file name is no string", () => withIndex({ weight_map: { a: 1 } }), /a is not mapped/],
    [
      "that a shard is missing",
      () => withIndex({ weight_map: { ...map, a: "gone.safetensors" } }),
      /gone.safetensors, which is missing/,
    ],
    [
      "that a shard lies outside the folder",
      () => withIndex({ weight_map: { a: "../../x.safetensors" } }),
      /inside this folder/,
    ],
    [
      "that a tensor is not in its shard",
      () => withIndex({ weight_map: { ...map, a: files[1] } }),
      /a is in .*; it is not/,
    ],
    ["that a shard holds more", () => withIndex({ weight_map: { a: files[0] } }), /holds b, unknown to the index/],
  ])("%s", async (_, make, message) => {
    await expect(openTensors(await make())).rejects.toThrow(message);
  });

  it("that shards of two saves are mixed", async () => {
    const storage = await sharded();
    await writeSafetensors(storage, files[1] ?? "", { c: vector(50, 60) });
    await expect(openTensors(storage)).rejects.toThrow(/00002-of-00003.safetensors is of another save/);
    await using source = await openTensors(storage, { verify: false });
    expect((await source.read("c")).data).toEqual(Float32Array.of(50, 60));
  });
});
