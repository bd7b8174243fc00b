import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, SisaError } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { directory } from "../storage/directory-storage.ts";
import { memoryStorage } from "../storage/memory-storage.ts";
import { readBytes, type Storage, type StoredFile } from "../storage/storage.ts";
import { elementBytes, elementCount, type HostTensor } from "../tensors.ts";
import { seededRandom, temporaryFolder, utf8 } from "../testing.ts";
import { openSafetensors, type ReadOptions } from "./read.ts";
import { type TensorToWrite, writeSafetensors } from "./write.ts";

const everyDtype: Record<string, TensorToWrite> = {
  flag: { dtype: "bool", shape: [3], data: Uint8Array.of(1, 0, 1) },
  byte: { dtype: "uint8", shape: [1, 3], data: Uint8Array.of(0, 7, 255) },
  tiny: { dtype: "int8", shape: [2], data: Int8Array.of(-128, 127) },
  half: { dtype: "float16", shape: [2], data: Uint16Array.of(0x3c00, 0x8001) },
  brain: { dtype: "bfloat16", shape: [1, 1], data: Uint16Array.of(0x3f80) },
  short: { dtype: "int16", shape: [1], data: Int16Array.of(-2) },
  unsigned: { dtype: "uint16", shape: [1], data: Uint16Array.of(65535) },
  single: { dtype: "float32", shape: [2, 2], data: Float32Array.of(1, -0, Number.NaN, Number.POSITIVE_INFINITY) },
  int: { dtype: "int32", shape: [], data: Int32Array.of(-5) },
  word: { dtype: "uint32", shape: [1], data: Uint32Array.of(2 ** 32 - 1) },
  double: { dtype: "float64", shape: [1], data: Float64Array.of(Math.PI) },
  long: { dtype: "int64", shape: [2], data: BigInt64Array.of(-(2n ** 63n), 9n) },
  huge: { dtype: "uint64", shape: [1], data: BigUint64Array.of(2n ** 64n - 1n) },
  empty: { dtype: "float32", shape: [4, 0], data: new Float32Array(0) },
  'a name with "quotes" and ünïcode': { dtype: "uint8", shape: [1], data: Uint8Array.of(1) },
};

/** A file from its parts, as a program that means harm could make it. */
function fileOf(header: unknown, data: Uint8Array = new Uint8Array(0), length?: number | bigint): Uint8Array {
  const text = utf8(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + data.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  file.set(text, 8);
  file.set(data, 8 + text.length);
  return file;
}

const opened = (bytes: Uint8Array, options?: ReadOptions) =>
  openSafetensors(memoryStorage({ "m.safetensors": bytes }), "m.safetensors", options);

async function readAll(storage: Storage, name: string, options?: ReadOptions): Promise<Map<string, HostTensor>> {
  await using file = await openSafetensors(storage, name, options);
  const tensors = new Map<string, HostTensor>();
  for (const tensor of file.tensors.keys()) tensors.set(tensor, await file.read(tensor));
  return tensors;
}

describe("writeSafetensors and openSafetensors", () => {
  it("keep every dtype, shape, bit and metadata string", async () => {
    const storage = memoryStorage();
    await writeSafetensors(storage, "m.safetensors", everyDtype, { metadata: { format: "pt", note: 'ä\n"' } });
    await using file = await openSafetensors(storage, "m.safetensors");
    expect(file.metadata).toEqual({ format: "pt", note: 'ä\n"' });
    expect(new Set(file.tensors.keys())).toEqual(new Set(Object.keys(everyDtype)));
    for (const [name, { dtype, shape, data }] of Object.entries(everyDtype)) {
      expect(await file.read(name)).toStrictEqual({ dtype, shape, data });
    }
  });

  it("write what the format asks for: aligned tensors, an aligned header, no gap", async () => {
    const storage = memoryStorage();
    await writeSafetensors(storage, "m", everyDtype);
    const bytes = await readBytes(storage, "m");
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    expect(length % 8).toBe(0);
    const { __metadata__, ...entries } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    let end = 0;
    for (const entry of Object.values<{ dtype: string; data_offsets: [number, number] }>(entries)) {
      expect(entry.data_offsets[0]).toBe(end);
      end = entry.data_offsets[1];
    }
    expect(8 + length + end).toBe(bytes.length);
    for (const [name, tensor] of Object.entries(everyDtype)) {
      expect(entries[name].data_offsets[0] % elementBytes(tensor.dtype)).toBe(0);
    }
    expect(entries.long).toMatchObject({ dtype: "I64", shape: [2] });
    expect(entries.brain.dtype).toBe("BF16");
    expect(Object.keys(__metadata__)).toEqual(["sisa.crc32"]);
  });

  it("handle a file without tensors", async () => {
    const storage = memoryStorage();
    await writeSafetensors(storage, "m", {});
    expect((await readAll(storage, "m")).size).toBe(0);
  });

  it("ask for each tensor once, when its turn has come, and hold none", async () => {
    const storage = memoryStorage();
    const calls: string[] = [];
    const lazily = (name: string): TensorToWrite => ({
      dtype: "float32",
      shape: [2],
      data: async () => {
        calls.push(name);
        return Float32Array.of(1, 2);
      },
    });
    await writeSafetensors(storage, "m", { b: lazily("b"), a: lazily("a") });
    expect(calls).toEqual(["a", "b"]);
    expect((await readAll(storage, "m")).get("b")?.data).toEqual(Float32Array.of(1, 2));
  });

  it("read only the ranges they need", async () => {
    const inner = memoryStorage();
    const big = { dtype: "float32", shape: [1000], data: new Float32Array(1000) } as const;
    await writeSafetensors(inner, "m", { big, small: { dtype: "int32", shape: [1], data: Int32Array.of(3) } });
    const reads: number[] = [];
    const storage: Storage = {
      ...inner,
      async open(name): Promise<StoredFile> {
        const file = await inner.open(name);
        return {
          ...file,
          read: (start, end) => {
            reads.push(end - start);
            return file.read(start, end);
          },
        };
      },
    };
    await using file = await openSafetensors(storage, "m");
    await file.read("small");
    expect(Math.max(...reads)).toBeLessThan(1000);
    expect(reads.at(-1)).toBe(4);
  });

  it("work on a disk", async () => {
    const storage = directory(join(await temporaryFolder(), "model"));
    await writeSafetensors(storage, "m.safetensors", everyDtype);
    expect((await readAll(storage, "m.safetensors")).get("single")?.data).toEqual(everyDtype.single?.data);
  });

  it("refuse data that do not fit what is declared, and write nothing", async () => {
    const storage = memoryStorage();
    const short = { dtype: "float32", shape: [2, 3], data: new Float32Array(5) } as const;
    await expect(writeSafetensors(storage, "m", { short })).rejects.toThrow(
      "short: expected 6 values for shape [2,3], got 5",
    );
    const wrong = { dtype: "float16", shape: [2], data: new Float32Array(2) } as const;
    await expect(writeSafetensors(storage, "m", { wrong })).rejects.toMatchObject({ code: "DTYPE" });
    expect(await storage.list()).toEqual([]);
  });

  it("read files of others: unaligned data, any order, no padding, no checksums", async () => {
    const header = {
      b: { dtype: "F32", shape: [1], data_offsets: [1, 5] },
      a: { dtype: "BOOL", shape: [1], data_offsets: [0, 1] },
    };
    const data = Uint8Array.of(1, 0, 0, 128, 63);
    await using file = await opened(fileOf(header, data));
    expect((await file.read("b")).data).toEqual(Float32Array.of(1));
    expect((await file.read("a")).data).toEqual(Uint8Array.of(1));
    expect(file.metadata).toEqual({});
    await expect(file.read("c")).rejects.toThrow(/no tensor "c"/);
  });
});

describe("a damaged or hostile file", () => {
  const one = (entry: object): object => ({ x: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...entry } });
  const eight = new Uint8Array(8);

  it.each<[string, Uint8Array, RegExp]>([
    ["is empty", new Uint8Array(0), /it has 0 bytes/],
    ["ends in the length", new Uint8Array(7), /it has 7 bytes/],
    ["claims a longer header than the file", fileOf("{}", eight, 11), /claims 11 bytes, at most 10/],
    ["claims a header of 2^64-1 bytes", fileOf("{}", eight, 2n ** 64n - 1n), /at most 10/],
    ["is something else", utf8("this is a text, not a model file"), /not a safetensors file/],
    ["has no JSON", fileOf('{"x":'), /not JSON/],
    ["has bytes that are not UTF-8", fileOf("{}").fill(0xff, 8), /not JSON/],
    ["has a list for a header", fileOf("[]"), /not a JSON object/],
    ["has space before its header", fileOf(" {}"), /not a JSON object/],
    [
      "names a tensor twice",
      fileOf('{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0078":1}'),
      /"x" occurs twice/,
    ],
    ["has metadata that are not strings", fileOf({ __metadata__: { a: 1 } }), /__metadata__ "a" is not a string/],
    ["has metadata that are a list", fileOf({ __metadata__: [] }), /__metadata__ is not an object/],
    ["describes a tensor by a number", fileOf({ x: 1 }), /"x" is not described/],
    ["has a dtype nobody knows", fileOf(one({ dtype: "F31" }), eight), /dtype "F31"/],
    ["has a negative size", fileOf(one({ shape: [-2] }), eight), /shape \[-2\]/],
    ["has a fractional size", fileOf(one({ shape: [0.5, 4] }), eight), /shape/],
    ["has a shape that is no list", fileOf(one({ shape: "2" }), eight), /shape "2"/],
    ["has a shape that does not fit", fileOf(one({ shape: [3] }), eight), /F32 \[3\], 12 bytes, .* span 8/],
    ["has a shape that overflows", fileOf(one({ shape: [2 ** 40, 2 ** 40] }), eight), /span 8/],
    ["has offsets that run backwards", fileOf(one({ data_offsets: [8, 0] }), eight), /data_offsets/],
    ["has three offsets", fileOf(one({ data_offsets: [0, 8, 9] }), eight), /data_offsets/],
    ["has no offsets", fileOf(one({ data_offsets: undefined }), eight), /data_offsets/],
    ["starts with a gap", fileOf(one({ data_offsets: [8, 16] }), new Uint8Array(16)), /starts at byte 8, .* ends at 0/],
    [
      "has tensors that overlap",
      fileOf({ ...one({}), y: { dtype: "U8", shape: [2], data_offsets: [7, 9] } }, new Uint8Array(9)),
      /starts at byte 7, .* ends at 8/,
    ],
    ["is cut short", fileOf(one({}), new Uint8Array(7)), /describes 8 bytes of data, the file has 7/],
    ["has bytes left over", fileOf(one({}), new Uint8Array(9)), /describes 8 bytes of data, the file has 9/],
  ])("is refused where it %s", async (_, bytes, message) => {
    const open = opened(bytes);
    await expect(open).rejects.toThrow(message);
    await expect(open).rejects.toBeInstanceOf(CheckpointError);
    await expect(open).rejects.toThrow(/^memory\/m\.safetensors: [^\n]*$/);
  });

  it("is noticed wherever a bit of a file of ours is flipped", async () => {
    const storage = memoryStorage();
    const { single, flag, brain, empty } = everyDtype;
    if (!single || !flag || !brain || !empty) throw new Error("the table above has these");
    await writeSafetensors(storage, "m", { single, flag, brain, empty }, { metadata: { step: "12" } });
    const bytes = await readBytes(storage, "m");
    const original = await readAll(storage, "m");
    // Without the name of the checksums it is a file of others, whose data are right all the same.
    const key = new TextDecoder("latin1").decode(bytes).indexOf("sisa.crc32");
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const at = bit >> 3;
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (bit & 7));
      const read = readAll(memoryStorage({ m: flipped }), "m");
      const outcome = await read.catch((error: unknown) => error);
      if (outcome instanceof Map && key <= at && at < key + 10) expect(outcome).toEqual(original);
      else expect(outcome, `bit ${bit}`).toBeInstanceOf(CheckpointError);
    }
  });

  it("can be read as it is where the caller asks for that", async () => {
    const storage = memoryStorage();
    await writeSafetensors(storage, "m", { x: { dtype: "uint8", shape: [2], data: Uint8Array.of(1, 2) } });
    const bytes = await readBytes(storage, "m");
    bytes[bytes.length - 1] = 3;
    const damaged = memoryStorage({ m: bytes });
    await expect(readAll(damaged, "m")).rejects.toThrow(/tensor "x" does not match its checksum.*verify: false/);
    expect((await readAll(damaged, "m", { verify: false })).get("x")?.data).toEqual(Uint8Array.of(1, 3));
  });

  it("gives a typed error or a valid read, whatever is done to its bytes", async () => {
    const storage = memoryStorage();
    await writeSafetensors(storage, "m", everyDtype, { metadata: { note: "x" } });
    const original = await readBytes(storage, "m");
    const random = seededRandom(3);
    const below = (limit: number): number => Math.floor(random() * limit);
    const outcomes = { read: 0, refused: 0 };
    for (let round = 0; round < 3000; round++) {
      let bytes = original.slice();
      for (let count = below(4); count >= 0; count--) {
        const at = below(bytes.length);
        switch (below(5)) {
          case 0:
            bytes[at] = below(256);
            break;
          case 1:
            bytes = bytes.slice(0, at);
            break;
          case 2:
            bytes.copyWithin(at, below(bytes.length), below(bytes.length));
            break;
          case 3:
            bytes[8 + below(bytes.length)] = utf8('0123456789[]{}",:-eE')[below(20)] ?? 0;
            break;
          default:
            bytes[below(8)] = below(256);
        }
      }
      // Without checksums, or hardly any change would get past the first check.
      try {
        for (const tensor of (await readAll(memoryStorage({ m: bytes }), "m", { verify: false })).values()) {
          expect(tensor.data.length).toBe(elementCount(tensor.shape));
        }
        outcomes.read += 1;
      } catch (error) {
        if (!SisaError.isInstance(error)) throw error;
        outcomes.refused += 1;
      }
    }
    expect(outcomes.read).toBeGreaterThan(100);
    expect(outcomes.refused).toBeGreaterThan(100);
  });

  it("is refused with the path of the file", async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "m"));
    await writeFile(join(folder, "m", "x.safetensors"), "nonsense");
    await expect(openSafetensors(directory(folder), "m/x.safetensors")).rejects.toThrow(
      join(folder, "m/x.safetensors"),
    );
    await expect(openSafetensors(directory(folder), "no")).rejects.toMatchObject({
      code: "STORAGE",
      reason: "missing",
    });
  });
});
