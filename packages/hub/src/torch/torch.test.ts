// Torch checkpoints: one from torch itself, and archives and pickles made here byte by byte, hostile ones above all.

import { CheckpointError, SisaError } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { crc32 } from "../crc32.ts";
import { directory } from "../storage/directory-storage.ts";
import { memoryStorage } from "../storage/memory-storage.ts";
import { toFloat32 } from "../tensors.ts";
import { fixtures, seededRandom, utf8 } from "../testing.ts";
import { openTorchCheckpoint } from "./torch-checkpoint.ts";
import { unpickle } from "./unpickle.ts";

type Part = string | number | Uint8Array;

function bytesOf(...parts: readonly Part[]): Uint8Array {
  const pieces = parts.map((part) => {
    if (typeof part === "string") return Uint8Array.from(part, (character) => character.charCodeAt(0));
    return typeof part === "number" ? Uint8Array.of(part) : part;
  });
  const joined = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

const little = (value: number, size: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, index) => Math.floor(value / 256 ** index) % 256);

// Opcodes by their letters in the sources of CPython.
const proto = bytesOf(0x80, 2);
const text = (value: string): Uint8Array => bytesOf("X", little(utf8(value).length, 4), utf8(value));
const int = (value: number): Uint8Array => bytesOf("J", little(value < 0 ? value + 2 ** 32 : value, 4));
const name = (module: string, attribute: string): Uint8Array => bytesOf("c", module, "\n", attribute, "\n");
const tuple = (...items: readonly Uint8Array[]): Uint8Array => bytesOf("(", ...items, "t");
const dictionary = (...items: readonly Uint8Array[]): Uint8Array => bytesOf("}", "(", ...items, "u");
const pickle = (...parts: readonly Part[]): Uint8Array => bytesOf(proto, ...parts, ".");

interface View {
  readonly type?: string;
  readonly key?: string;
  readonly length: number;
  readonly offset?: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

const tensor = ({ type = "FloatStorage", key = "0", length, offset = 0, shape, strides }: View): Uint8Array =>
  bytesOf(
    name("torch._utils", "_rebuild_tensor_v2"),
    tuple(
      bytesOf(tuple(text("storage"), name("torch", type), text(key), text("cpu"), int(length)), "Q"),
      int(offset),
      tuple(...shape.map(int)),
      tuple(...strides.map(int)),
      bytesOf(0x89),
      bytesOf(name("collections", "OrderedDict"), ")", "R"),
    ),
    "R",
  );

interface ZipOptions {
  /** 0 is stored, 8 deflate. */
  readonly method?: number;
  /** Every size and position in the 64-bit form that archives above 4 GB need. */
  readonly wide?: boolean;
}

/** A zip archive with stored entries, written as simply as the format allows. */
function zip(files: Readonly<Record<string, Uint8Array>>, { method = 0, wide = false }: ZipOptions = {}): Uint8Array {
  const parts: Uint8Array[] = [];
  const directoryParts: Uint8Array[] = [];
  const narrow = (value: number): Uint8Array => little(wide ? 2 ** 32 - 1 : value, 4);
  let at = 0;
  for (const [path, content] of Object.entries(files)) {
    const { length } = content;
    const common = bytesOf(little(0, 2), little(method, 2), little(0, 4), little(crc32(content), 4));
    const sizes = bytesOf(narrow(length), narrow(length), little(path.length, 2));
    const local = bytesOf("PK\x03\x04", little(20, 2), common, sizes, little(5, 2), path, "extra", content);
    const extra = wide ? bytesOf(little(1, 2), little(24, 2), little(length, 8), little(length, 8), little(at, 8)) : "";
    const rest = bytesOf(little(extra.length, 2), little(0, 10), narrow(at));
    directoryParts.push(bytesOf("PK\x01\x02", little(20, 2), little(20, 2), common, sizes, rest, path, extra));
    parts.push(local);
    at += local.length;
  }
  const central = bytesOf(...directoryParts);
  const count = directoryParts.length;
  const counts = wide ? little(2 ** 32 - 1, 4) : bytesOf(little(count, 2), little(count, 2));
  const wideEnd = bytesOf(
    "PK\x06\x06",
    little(44, 8),
    little(0, 12),
    ...[count, count, central.length, at].map((value) => little(value, 8)),
  );
  const locator = bytesOf("PK\x06\x07", little(0, 4), little(at + central.length, 8), little(1, 4));
  const end = bytesOf("PK\x05\x06", little(0, 4), counts, narrow(central.length), narrow(at), little(7, 2), "comment");
  return bytesOf(...parts, central, ...(wide ? [wideEnd, locator] : []), end);
}

const checkpoint = (root: Uint8Array, storages: Readonly<Record<string, Uint8Array>> = {}): Uint8Array =>
  zip({
    "archive/data.pkl": pickle(root),
    "archive/byteorder": utf8("little"),
    ...Object.fromEntries(Object.entries(storages).map(([key, data]) => [`archive/data/${key}`, data])),
  });

const open = (bytes: Uint8Array, options?: { verify?: boolean }) =>
  openTorchCheckpoint(memoryStorage({ "x.pt": bytes }), "x.pt", options);

const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

describe("openTorchCheckpoint", () => {
  it("reads a checkpoint of the official training code", async () => {
    await using source = await openTorchCheckpoint(directory(fixtures), "official-checkpoint.pt");
    expect(source.tensors.size).toBe(32);
    expect(source.tensors.get("embed.weight")).toEqual({ dtype: "bfloat16", shape: [89, 48] });
    expect(source.tensors.get("layers.0.lambda_raw")).toEqual({ dtype: "float32", shape: [3] });
    expect(source.config.get("n_head")).toBe(3);
    expect(source.config.get("tokenizer_name")).toBe("EleutherAI/gpt-neox-20b");
    for (const name of source.tensors.keys()) {
      const values = toFloat32(await source.read(name), name);
      expect(values.every(Number.isFinite)).toBe(true);
      expect(values.some((value) => value !== 0)).toBe(true);
    }
    await expect(source.read("lm_head.weight")).rejects.toThrow(/no tensor "lm_head.weight"/);
  });

  it("takes off the prefix of compiled models, and reads plain state dictionaries with their attributes", async () => {
    const state = bytesOf(
      name("collections", "OrderedDict"),
      ")R(",
      text("_orig_mod.a.weight"),
      tensor({ length: 2, shape: [2], strides: [1] }),
      text("_orig_mod.b"),
      bytesOf(
        name("torch._utils", "_rebuild_parameter"),
        tuple(tensor({ length: 2, offset: 1, shape: [], strides: [] }), bytesOf(0x88), bytesOf("N")),
        "R",
      ),
      "u",
      // The attributes that torch gives every state dictionary.
      dictionary(text("_metadata"), dictionary(text(""), int(1))),
      "b",
    );
    await using source = await open(checkpoint(state, { 0: floats(1.5, -2) }));
    expect([...source.tensors.keys()]).toEqual(["a.weight", "b"]);
    expect((await source.read("a.weight")).data).toEqual(Float32Array.of(1.5, -2));
    expect(await source.read("b")).toEqual({ dtype: "float32", shape: [], data: Float32Array.of(-2) });
    expect(source.config.size).toBe(0);
  });

  it("honours offsets and strides", async () => {
    const view = (shape: number[], strides: number[], offset = 0): Uint8Array =>
      tensor({ length: 12, offset, shape, strides });
    const root = dictionary(
      text("whole"),
      view([3, 4], [4, 1]),
      text("transposed"),
      view([4, 3], [1, 4]),
      text("column"),
      view([3], [4], 2),
      text("block"),
      view([2, 2], [4, 1], 5),
      text("odd strides of single rows"),
      view([1, 4], [99, 1], 8),
      text("empty"),
      view([0, 4], [4, 1]),
    );
    await using source = await open(checkpoint(root, { 0: floats(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) }));
    const values = async (key: string): Promise<number[]> => Array.from((await source.read(key)).data, Number);
    expect(await values("whole")).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(await values("transposed")).toEqual([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
    expect(await values("column")).toEqual([2, 6, 10]);
    expect(await values("block")).toEqual([5, 6, 9, 10]);
    expect(await values("odd strides of single rows")).toEqual([8, 9, 10, 11]);
    expect(await values("empty")).toEqual([]);
  });

  it.each([
    ["FloatStorage", "float32", floats(-1.5)],
    ["DoubleStorage", "float64", new Uint8Array(Float64Array.of(-1.5).buffer)],
    ["HalfStorage", "float16", Uint8Array.of(0, 0xbe)],
    ["BFloat16Storage", "bfloat16", Uint8Array.of(0xc0, 0xbf)],
    ["LongStorage", "int64", new Uint8Array(BigInt64Array.of(-9n).buffer)],
    ["IntStorage", "int32", new Uint8Array(Int32Array.of(-9).buffer)],
    ["ShortStorage", "int16", new Uint8Array(Int16Array.of(-9).buffer)],
    ["CharStorage", "int8", Uint8Array.of(247)],
    ["ByteStorage", "uint8", Uint8Array.of(9)],
    ["BoolStorage", "bool", Uint8Array.of(1)],
  ])("reads %s", async (type, dtype, data) => {
    const root = dictionary(text("x"), tensor({ type, length: 1, shape: [1], strides: [1] }));
    await using source = await open(checkpoint(root, { 0: data }));
    const read = await source.read("x");
    expect(read.dtype).toBe(dtype);
    expect(new Uint8Array(read.data.buffer)).toEqual(data);
  });

  it("reads pickles of protocol 4", async () => {
    const bytes = bytesOf(
      bytesOf(0x80, 4, 0x95, little(99, 8)),
      "}",
      0x94,
      bytesOf(0x8c, 1, "x"),
      0x94,
      bytesOf(0x8c, 12, "torch._utils", 0x8c, 18, "_rebuild_tensor_v2", 0x93),
      "((",
      text("storage"),
      bytesOf(0x8c, 5, "torch", 0x8c, 12, "FloatStorage", 0x93),
      text("0"),
      text("cpu"),
      int(1),
      "tQK\0K\x01",
      0x85,
      "K\x01",
      0x85,
      bytesOf(0x89),
      name("collections", "OrderedDict"),
      ")RtRs.",
    );
    await using source = await open(zip({ "a/data.pkl": bytes, "a/data/0": floats(7) }));
    expect((await source.read("x")).data).toEqual(Float32Array.of(7));
  });

  it("reads the 64-bit form of large archives", async () => {
    const data = pickle(dictionary(text("x"), tensor({ length: 2, shape: [2], strides: [1] })));
    await using source = await open(zip({ "a/data.pkl": data, "a/data/0": floats(3, 4) }, { wide: true }));
    expect((await source.read("x")).data).toEqual(Float32Array.of(3, 4));
  });

  const x = tensor({ length: 2, shape: [2], strides: [1] });
  it.each<[string, Uint8Array, RegExp]>([
    ["is not a zip archive", utf8("\x80\x02}q\0."), /expected a zip archive as torch.save writes it/],
    ["is empty", new Uint8Array(0), /expected a zip archive/],
    ["has no pickle", zip({ "a/b": utf8("x") }), /without data.pkl/],
    ["is compressed", zip({ "archive/data.pkl": pickle("}") }, { method: 8 }), /"archive\/data.pkl" is compressed/],
    [
      "is from a big-endian machine",
      zip({ "a/data.pkl": pickle("}"), "a/byteorder": utf8("big") }),
      /not little-endian/,
    ],
    ["holds a list", checkpoint(bytesOf("]")), /expected a dictionary, got a list/],
    ["holds nothing", checkpoint(bytesOf("}")), /holds no weights/],
    [
      "holds a number among weights",
      checkpoint(dictionary(text("a"), x, text("step"), int(3)), { 0: floats(1, 2) }),
      /got 3 under "step"/,
    ],
    ["holds a number for a model", checkpoint(dictionary(text("model"), int(3))), /under "model", got 3/],
    [
      "holds a name twice",
      checkpoint(dictionary(text("a"), x, text("_orig_mod.a"), x), { 0: floats(1, 2) }),
      /a occurs with and without/,
    ],
    ["lacks a storage", checkpoint(dictionary(text("a"), x)), /a is in storage 0, which is missing/],
    [
      "has too small a storage",
      checkpoint(dictionary(text("a"), x), { 0: floats(1) }),
      /of 2 float32, but the archive has 4 bytes/,
    ],
  ])("refuses a file that %s", async (_, bytes, message) => {
    await expect(open(bytes)).rejects.toThrow(message);
    await expect(open(bytes)).rejects.toBeInstanceOf(CheckpointError);
  });

  it("notices damaged data, and reads them where asked to", async () => {
    const bytes = checkpoint(dictionary(text("a"), x), { 0: floats(1, 2) });
    const at = bytes.findIndex((_, index) => floats(1, 2).every((byte, offset) => bytes[index + offset] === byte));
    bytes[at + 3] = 0x40;
    await using source = await open(bytes);
    await expect(source.read("a")).rejects.toThrow(/archive\/data\/0 \(a\): does not match its checksum/);
    await using unverified = await open(bytes, { verify: false });
    expect((await unverified.read("a")).data[1]).toBe(2);
  });

  it("gives a typed error or a valid read, whatever is done to its bytes", async () => {
    const root = dictionary(text("model"), dictionary(text("a"), x, text("b"), x), text("step"), int(3));
    const original = checkpoint(root, { 0: floats(1, 2) });
    const random = seededRandom(6);
    const below = (limit: number): number => Math.floor(random() * limit);
    const outcomes = { read: 0, refused: 0 };
    for (let round = 0; round < 3000; round++) {
      let bytes = original.slice();
      for (let count = below(3); count >= 0; count--) {
        if (below(6) === 0) bytes = bytes.slice(0, below(bytes.length));
        else if (below(2) === 0) bytes[below(bytes.length)] = below(256);
        else bytes.copyWithin(below(bytes.length), below(bytes.length), below(bytes.length));
      }
      try {
        await using source = await open(bytes, { verify: false });
        for (const tensorName of source.tensors.keys()) await source.read(tensorName);
        outcomes.read += 1;
      } catch (error) {
        if (!SisaError.isInstance(error)) throw error;
        outcomes.refused += 1;
      }
    }
    expect(outcomes.read).toBeGreaterThan(100);
    expect(outcomes.refused).toBeGreaterThan(100);
  });
});

describe("unpickle refuses", () => {
  const system = name("os", "system");
  const deep = (opcode: string, count: number): Uint8Array => bytesOf(opcode.repeat(count));

  it.each<[string, Uint8Array, RegExp]>([
    ["os.system", pickle(system, tuple(text("true")), "R"), /GLOBAL asks for "os.system", which is not allowed/],
    ["a name that is only mentioned", pickle(system), /"os.system"/],
    ["builtins.eval", pickle(name("builtins", "eval"), tuple(text("1")), "R"), /"builtins.eval"/],
    ["a name by STACK_GLOBAL", pickle(text("os"), text("system"), 0x93), /STACK_GLOBAL asks for "os.system"/],
    ["a name made of other values", pickle("]", "]", 0x93), /STACK_GLOBAL asks for ""/],
    ["names of torch that load code", pickle(name("torch.serialization", "load")), /"torch.serialization.load"/],
    ["a newer way to build tensors", pickle(name("torch._utils", "_rebuild_device_tensor_from_numpy")), /_from_numpy/],
    ["INST", pickle("(ios\nsystem\n"), /opcode INST is not allowed/],
    ["OBJ", pickle("(", name("collections", "OrderedDict"), "o"), /opcode OBJ/],
    ["NEWOBJ", pickle(name("collections", "OrderedDict"), ")", 0x81), /opcode NEWOBJ/],
    ["NEWOBJ_EX", pickle(name("collections", "OrderedDict"), ")}", 0x92), /opcode NEWOBJ_EX/],
    ["EXT1", pickle(0x82, 1), /opcode EXT1/],
    ["PERSID", pickle("Pfile\n"), /opcode PERSID/],
    ["GET", pickle("g0\n"), /opcode GET/],
    ["an opcode nobody knows", pickle(0xff), /opcode 0xff/],
    ["REDUCE of something else than a name", pickle("}", ")", "R"), /REDUCE calls something that is not a name/],
    [
      "REDUCE of a name that is no function",
      pickle(name("torch", "FloatStorage"), ")", "R"),
      /REDUCE calls torch.FloatStorage/,
    ],
    ["REDUCE without a tuple", pickle(name("collections", "OrderedDict"), "]", "R"), /REDUCE/],
    [
      "OrderedDict of arguments",
      pickle(name("collections", "OrderedDict"), tuple(bytesOf("]")), "R"),
      /with arguments/,
    ],
    ["BUILD of a dictionary", pickle("}", "}", "b"), /BUILD sets attributes/],
    ["BUILD of a name", pickle(name("collections", "OrderedDict"), "}", "b"), /BUILD sets attributes/],
    ["BUILD of a tensor", pickle(tensor({ length: 1, shape: [1], strides: [1] }), "}", "b"), /BUILD sets attributes/],
    ["a persistent id that is no storage", pickle(text("x"), "Q"), /BINPERSID names something/],
    [
      "a storage of an unknown kind",
      pickle(tuple(text("storage"), name("collections", "OrderedDict"), text("0"), text("cpu"), int(1)), "Q"),
      /BINPERSID/,
    ],
    [
      "a storage of negative length",
      pickle(tuple(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), int(-1)), "Q"),
      /without key or length/,
    ],
    [
      "a tensor larger than its storage",
      pickle(tensor({ length: 3, shape: [2, 2], strides: [2, 1] })),
      /exceeds its storage of 3/,
    ],
    [
      "a tensor that starts behind its storage",
      pickle(tensor({ length: 3, offset: 3, shape: [1], strides: [1] })),
      /exceeds/,
    ],
    [
      "a tensor that repeats one element without end",
      pickle(tensor({ length: 1, shape: [2 ** 30, 2 ** 30], strides: [0, 0] })),
      /exceeds/,
    ],
    ["a tensor of negative size", pickle(tensor({ length: 1, shape: [-1], strides: [1] })), /built from something/],
    ["a tensor without strides", pickle(tensor({ length: 1, shape: [1], strides: [] })), /1 sizes and 0 strides/],
    [
      "a tensor of a hundred dimensions",
      pickle(tensor({ length: 1, shape: Array(100).fill(1), strides: Array(100).fill(1) })),
      /100 sizes/,
    ],
    ["a tensor of nothing", pickle(name("torch._utils", "_rebuild_tensor_v2"), ")", "R"), /built from something/],
    ["a parameter of nothing", pickle(name("torch._utils", "_rebuild_parameter"), ")", "R"), /without a tensor/],
    ["a million marks in each other", pickle(deep("(", 2_000_001)), /more than 2000000 values/],
    ["POP", pickle("]0"), /opcode POP/],
    ["more values than any model has", pickle("(", deep("}", 2_000_001), "t"), /more than 2000000 values/],
    ["a string longer than the file", pickle("X", little(2 ** 31, 4), "abc"), /ends too early/],
    ["an integer of 200 bytes", pickle(0x8a, 200, new Uint8Array(200)), /integer of 200 bytes/],
    ["a memo that was never set", pickle("h", 7), /memo 7/],
    ["a memo of nothing", pickle("q", 0), /BINPUT on an empty stack/],
    ["APPEND to a dictionary", pickle("}Na"), /APPEND adds to something/],
    ["SETITEM on a list", pickle("]NNs"), /SETITEM needs a dictionary/],
    ["SETITEMS with half a pair", pickle("}(Nu"), /SETITEMS needs a dictionary and pairs/],
    ["TUPLE without a mark", pickle("Nt"), /TUPLE without a mark/],
    ["APPEND on an empty stack", pickle("a"), /on an empty stack/],
    ["values left over", pickle("NN"), /STOP leaves values behind/],
    ["an open mark", pickle("N(N"), /STOP leaves values behind/],
    ["nothing at all", pickle(), /STOP on an empty stack/],
    ["a pickle cut short", bytesOf(proto, "}"), /ends too early/],
    ["an empty file", new Uint8Array(0), /ends too early/],
    ["protocol 0", bytesOf("(dp0\n."), /expected a pickle of protocol 2 to 5/],
    ["protocol 6", bytesOf(0x80, 6, "}."), /expected a pickle of protocol 2 to 5/],
  ])("%s", (_, bytes, message) => {
    let error: unknown;
    try {
      unpickle(bytes, "x.pt: data.pkl");
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(CheckpointError);
    expect(String(error)).toMatch(message);
    expect(String(error)).toMatch(/^CheckpointError: x\.pt: data\.pkl: [^\n]*\(at byte \d+\)[^\n]*$/);
  });

  it("no bomb: values shared through the memo stay shared", () => {
    // A list of ten times the list before, sixty times over: 10^60 items if it were copied.
    const levels = Array.from({ length: 60 }, () => bytesOf("](", "h\0".repeat(10), "e", "q\0"));
    expect(unpickle(pickle("(", "]q\0", ...levels, "t"), "x")).toMatchObject({ items: { length: 61 } });
  });

  it("no cycle: a list that holds itself is a list", async () => {
    expect(unpickle(pickle("]q\0h\0a"), "x")).toHaveLength(1);
    await expect(open(checkpoint(bytesOf("}q\0(", text("model"), "h\0u")))).rejects.toThrow(
      /got a dictionary under "model"/,
    );
  });

  it("no deep nesting: it does not recurse", () => {
    expect(unpickle(pickle("]".repeat(100_000), "a".repeat(99_999)), "x")).toHaveLength(1);
  });
});

describe("unpickle reads", () => {
  it("integers, floats, strings and constants", () => {
    const value = unpickle(
      pickle(
        "]((K\xffM\xff\xffJ\xfe\xff\xff\xff",
        bytesOf(0x8a, 0, 0x8a, 2, 0, 0x80, 0x8a, 5, 0, 0, 0, 0, 1),
        bytesOf("G", 0x3f, 0xf8, 0, 0, 0, 0, 0, 0),
        "N",
        bytesOf(0x88, 0x89),
        text("é"),
        "te",
      ),
      "x",
    );
    expect(value).toEqual([{ items: [255, 65535, -2, 0, -32768, 2 ** 32, 1.5, null, true, false, "é"] }]);
  });
});
