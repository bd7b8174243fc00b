// Reads the pickle of a torch checkpoint without running anything. Pickle is a program for a stack machine that may
// call any function by name; here it can only build plain data. Opcodes and names that torch.save needs are allowed,
// everything else ends the reading. Nothing named is ever looked up or called: a tensor becomes a description of where
// its bytes are. Source: Lib/pickletools.py of CPython, which describes every opcode.

import { CheckpointError } from "@sisa/core";
import type { FileDType } from "../tensors.ts";

export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PickleValue[]
  | PickleTuple
  | PickleDictionary
  | PickleName
  | StorageReference
  | TensorReference;

export type PickleDictionary = Map<PickleValue, PickleValue>;

export class PickleTuple {
  readonly items: readonly PickleValue[];
  constructor(items: readonly PickleValue[]) {
    this.items = items;
  }
}

/** A name that was mentioned: `collections.OrderedDict`. It stands for nothing but itself. */
export class PickleName {
  readonly name: AllowedName;
  constructor(name: AllowedName) {
    this.name = name;
  }
}

/** A run of elements in an entry of the archive. */
export class StorageReference {
  readonly dtype: FileDType;
  readonly key: string;
  /** Number of elements. */
  readonly length: number;
  constructor(dtype: FileDType, key: string, length: number) {
    this.dtype = dtype;
    this.key = key;
    this.length = length;
  }
}

/** A view of a storage. Offset and strides count elements. */
export class TensorReference {
  readonly storage: StorageReference;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  constructor(storage: StorageReference, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

/** Made by `collections.OrderedDict()`. Only these may be given attributes, which are dropped. */
class OrderedDictionary extends Map<PickleValue, PickleValue> {}

const storageDTypes = {
  "torch.FloatStorage": "float32",
  "torch.DoubleStorage": "float64",
  "torch.HalfStorage": "float16",
  "torch.BFloat16Storage": "bfloat16",
  "torch.LongStorage": "int64",
  "torch.IntStorage": "int32",
  "torch.ShortStorage": "int16",
  "torch.CharStorage": "int8",
  "torch.ByteStorage": "uint8",
  "torch.BoolStorage": "bool",
} as const satisfies Record<string, FileDType>;

const functions = [
  "collections.OrderedDict",
  "torch._utils._rebuild_tensor_v2",
  "torch._utils._rebuild_parameter",
] as const;

type StorageName = keyof typeof storageDTypes;
type FunctionName = (typeof functions)[number];
export type AllowedName = StorageName | FunctionName;

const allowedNames = new Set<string>([...Object.keys(storageDTypes), ...functions]);

/** Names of the opcodes that are refused, for messages. */
const refusedOpcodes: Readonly<Record<number, string>> = {
  48: "POP",
  49: "POP_MARK",
  50: "DUP",
  66: "BINBYTES",
  67: "SHORT_BINBYTES",
  70: "FLOAT",
  73: "INT",
  76: "LONG",
  80: "PERSID",
  83: "STRING",
  84: "BINSTRING",
  85: "SHORT_BINSTRING",
  86: "UNICODE",
  100: "DICT",
  103: "GET",
  105: "INST",
  108: "LIST",
  111: "OBJ",
  112: "PUT",
  129: "NEWOBJ",
  130: "EXT1",
  131: "EXT2",
  132: "EXT4",
  139: "LONG4",
  141: "BINUNICODE8",
  142: "BINBYTES8",
  143: "EMPTY_SET",
  144: "ADDITEMS",
  145: "FROZENSET",
  146: "NEWOBJ_EX",
  150: "BYTEARRAY8",
  151: "NEXT_BUFFER",
  152: "READONLY_BUFFER",
};

/** A model of 50,000 tensors with its optimizer needs about as many. What a hostile file can allocate ends here. */
const maximumValues = 2_000_000;
const maximumDimensions = 64;
const stop = 46;
const newline = 10;

/**
 * The value that a pickle describes.
 *
 * @param bytes    the pickle, protocol 2 to 5
 * @param location for messages
 * @throws CheckpointError that names the opcode or name that is not allowed, or says what is malformed
 */
export function unpickle(bytes: Uint8Array, location: string): PickleValue {
  return new Unpickler(bytes, location).run();
}

class Unpickler {
  readonly #view: DataView;
  readonly #location: string;
  readonly #memo = new Map<number, PickleValue>();
  /** Stacks below the marks that are open. */
  readonly #outer: PickleValue[][] = [];
  #stack: PickleValue[] = [];
  #at = 0;
  #values = 0;

  /** What each allowed opcode does. */
  readonly #steps: Readonly<Record<number, () => void>> = {
    40: () => this.#mark(), // MARK
    78: () => this.#push(null), // NONE
    136: () => this.#push(true), // NEWTRUE
    137: () => this.#push(false), // NEWFALSE
    75: () => this.#push(this.#byte()), // BININT1
    77: () => this.#push(this.#view.getUint16(this.#take(2), true)), // BININT2
    74: () => this.#push(this.#view.getInt32(this.#take(4), true)), // BININT
    138: () => this.#push(this.#long()), // LONG1
    71: () => this.#push(this.#view.getFloat64(this.#take(8), false)), // BINFLOAT
    88: () => this.#push(this.#text(this.#uint32())), // BINUNICODE
    140: () => this.#push(this.#text(this.#byte())), // SHORT_BINUNICODE
    93: () => this.#push([]), // EMPTY_LIST
    125: () => this.#push(new Map()), // EMPTY_DICT
    41: () => this.#push(new PickleTuple([])), // EMPTY_TUPLE
    133: () => this.#push(new PickleTuple(this.#popSome(1, "TUPLE1"))),
    134: () => this.#push(new PickleTuple(this.#popSome(2, "TUPLE2"))),
    135: () => this.#push(new PickleTuple(this.#popSome(3, "TUPLE3"))),
    116: () => this.#push(new PickleTuple(this.#popToMark("TUPLE"))),
    97: () => this.#append(this.#popSome(1, "APPEND"), "APPEND"),
    101: () => this.#append(this.#popToMark("APPENDS"), "APPENDS"),
    115: () => this.#setItems(this.#popSome(2, "SETITEM"), "SETITEM"),
    117: () => this.#setItems(this.#popToMark("SETITEMS"), "SETITEMS"),
    113: () => this.#remember(this.#byte(), "BINPUT"),
    114: () => this.#remember(this.#uint32(), "LONG_BINPUT"),
    148: () => this.#remember(this.#memo.size, "MEMOIZE"),
    104: () => this.#recall(this.#byte()), // BINGET
    106: () => this.#recall(this.#uint32()), // LONG_BINGET
    99: () => this.#name(this.#line(), this.#line(), "GLOBAL"),
    82: () => this.#reduce(), // REDUCE
    98: () => this.#build(), // BUILD
    81: () => this.#push(this.#storage(this.#pop("BINPERSID"))),
    147: () => this.#stackName(), // STACK_GLOBAL
    149: () => this.#take(8), // FRAME: how much to read ahead; all of it is here
  };

  constructor(bytes: Uint8Array, location: string) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#location = location;
  }

  run(): PickleValue {
    const first = this.#byte();
    const protocol = first === 0x80 ? this.#byte() : 0;
    if (protocol < 2 || protocol > 5) throw this.#malformed("expected a pickle of protocol 2 to 5");
    for (;;) {
      const opcode = this.#byte();
      if (opcode === stop) break;
      this.#step(opcode);
    }
    const result = this.#pop("STOP");
    if (this.#stack.length > 0 || this.#outer.length > 0) throw this.#malformed("STOP leaves values behind");
    return result;
  }

  #step(opcode: number): void {
    const step = this.#steps[opcode];
    if (step === undefined) {
      throw this.#refused(`opcode ${refusedOpcodes[opcode] ?? `0x${opcode.toString(16)}`} is not allowed`);
    }
    step();
  }

  #mark(): void {
    this.#count();
    this.#outer.push(this.#stack);
    this.#stack = [];
  }

  #stackName(): void {
    const [module, name] = this.#popSome(2, "STACK_GLOBAL");
    this.#name(module, name, "STACK_GLOBAL");
  }

  #name(module: PickleValue | undefined, name: PickleValue | undefined, opcode: string): void {
    const full = typeof module === "string" && typeof name === "string" ? `${module}.${name}` : "";
    if (!isAllowed(full)) {
      throw this.#refused(`${opcode} asks for ${JSON.stringify(full.slice(0, 200))}, which is not allowed`);
    }
    this.#push(new PickleName(full));
  }

  #reduce(): void {
    const [callee, given] = this.#popSome(2, "REDUCE");
    const name = callee instanceof PickleName ? callee.name : undefined;
    if (name === undefined || !(given instanceof PickleTuple)) {
      throw this.#refused("REDUCE calls something that is not a name");
    }
    const { items } = given;
    if (name === "collections.OrderedDict") {
      if (items.length > 0) throw this.#refused(`REDUCE calls ${name} with arguments`);
      this.#push(new OrderedDictionary());
    } else if (name === "torch._utils._rebuild_tensor_v2") {
      this.#push(this.#tensor(items));
    } else if (name === "torch._utils._rebuild_parameter") {
      const [tensor] = items;
      if (!(tensor instanceof TensorReference)) throw this.#malformed(`${name} is called without a tensor`);
      this.#push(tensor);
    } else {
      throw this.#refused(`REDUCE calls ${name}, which is not a function`);
    }
  }

  #build(): void {
    this.#pop("BUILD");
    // torch gives state dictionaries an attribute `_metadata` with version numbers; nothing here needs it.
    if (!(this.#stack.at(-1) instanceof OrderedDictionary)) {
      throw this.#refused("BUILD sets attributes of something that is not an OrderedDict");
    }
  }

  #storage(id: PickleValue): StorageReference {
    const [kind, type, key, device, length] = id instanceof PickleTuple ? id.items : [];
    const dtype = type instanceof PickleName && isStorage(type.name) ? storageDTypes[type.name] : undefined;
    if (kind !== "storage" || dtype === undefined || typeof device !== "string") {
      throw this.#malformed("BINPERSID names something that is not a storage");
    }
    if (typeof key !== "string" || !isSize(length)) {
      throw this.#malformed("BINPERSID names a storage without key or length");
    }
    return new StorageReference(dtype, key, length);
  }

  #tensor(items: readonly PickleValue[]): TensorReference {
    const [storage, offset, size, stride] = items;
    const shape = size instanceof PickleTuple ? size.items : undefined;
    const strides = stride instanceof PickleTuple ? stride.items : undefined;
    if (!(storage instanceof StorageReference) || !isSize(offset) || !shape?.every(isSize) || !strides?.every(isSize)) {
      throw this.#malformed("a tensor is built from something other than storage, offset, size and stride");
    }
    if (shape.length !== strides.length || shape.length > maximumDimensions) {
      throw this.#malformed(`a tensor has ${shape.length} sizes and ${strides.length} strides`);
    }
    const elements = shape.reduce((product, each) => product * each, 1);
    const last = shape.reduce((sum, each, axis) => sum + (each - 1) * (strides[axis] ?? 0), offset);
    // A stride of 0 can repeat one element without end, so the number of elements is bounded too.
    if (elements > 0 && (last >= storage.length || elements > storage.length)) {
      throw this.#malformed(
        `a tensor of shape [${shape}] and strides [${strides}] from ${offset} on exceeds its storage of ${storage.length} elements`,
      );
    }
    return new TensorReference(storage, offset, shape, strides);
  }

  #append(items: readonly PickleValue[], opcode: string): void {
    const list = this.#stack.at(-1);
    if (!Array.isArray(list)) throw this.#malformed(`${opcode} adds to something that is not a list`);
    for (const item of items) list.push(item);
  }

  #setItems(items: readonly PickleValue[], opcode: string): void {
    const dictionary = this.#stack.at(-1);
    if (!(dictionary instanceof Map) || items.length % 2 !== 0) {
      throw this.#malformed(`${opcode} needs a dictionary and pairs`);
    }
    for (let index = 0; index < items.length; index += 2) {
      dictionary.set(items[index] ?? null, items[index + 1] ?? null);
    }
  }

  #remember(index: number, opcode: string): void {
    const value = this.#stack.at(-1);
    if (value === undefined) throw this.#malformed(`${opcode} on an empty stack`);
    this.#memo.set(index, value);
  }

  #recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw this.#malformed(`memo ${index} is used before it is set`);
    this.#push(value);
  }

  #long(): number {
    const length = this.#byte();
    if (length > 8) throw this.#malformed(`an integer of ${length} bytes`);
    const start = this.#take(length);
    let value = 0n;
    for (let index = length - 1; index >= 0; index--) value = value * 256n + BigInt(this.#view.getUint8(start + index));
    return Number(BigInt.asIntN(8 * length, value));
  }

  #text(length: number): string {
    const start = this.#take(length);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(
      new Uint8Array(this.#view.buffer, this.#view.byteOffset + start, length),
    );
  }

  #line(): string {
    const start = this.#at;
    while (this.#byte() !== newline);
    const length = this.#at - 1 - start;
    this.#at = start;
    const text = this.#text(length);
    this.#at += 1;
    return text;
  }

  #uint32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  #byte(): number {
    return this.#view.getUint8(this.#take(1));
  }

  /** Position of the next `length` bytes, which are then behind us. */
  #take(length: number): number {
    const start = this.#at;
    if (length > this.#view.byteLength - start) throw this.#malformed("it ends too early");
    this.#at = start + length;
    return start;
  }

  #push(value: PickleValue): void {
    this.#count();
    this.#stack.push(value);
  }

  #count(): void {
    this.#values += 1;
    if (this.#values > maximumValues) throw this.#malformed(`it has more than ${maximumValues} values`);
  }

  #pop(opcode: string): PickleValue {
    const value = this.#stack.pop();
    if (value === undefined) throw this.#malformed(`${opcode} on an empty stack`);
    return value;
  }

  #popSome(count: number, opcode: string): PickleValue[] {
    if (this.#stack.length < count) throw this.#malformed(`${opcode} on an empty stack`);
    return this.#stack.splice(-count);
  }

  #popToMark(opcode: string): PickleValue[] {
    const items = this.#stack;
    const below = this.#outer.pop();
    if (below === undefined) throw this.#malformed(`${opcode} without a mark`);
    this.#stack = below;
    return items;
  }

  #refused(problem: string): CheckpointError {
    return new CheckpointError(
      `${this.#location}: refused, it is not plain weights: ${problem} (at byte ${this.#at}); ` +
        `save the weights alone with torch.save({"model": model.state_dict()}, path)`,
    );
  }

  #malformed(problem: string): CheckpointError {
    return new CheckpointError(`${this.#location}: malformed pickle: ${problem} (at byte ${this.#at})`);
  }
}

function isAllowed(name: string): name is AllowedName {
  return allowedNames.has(name);
}

function isStorage(name: string): name is StorageName {
  return Object.hasOwn(storageDTypes, name);
}

function isSize(value: PickleValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
