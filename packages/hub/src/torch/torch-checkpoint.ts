// Weights of a checkpoint that torch.save wrote, as a source of tensors like any other. Optimizer state and what else a
// trainer saves beside the weights is skipped.

import { CheckpointError } from "@sisa/core";
import type { ReadOptions } from "../safetensors/read.ts";
import type { Storage, StoredFile } from "../storage/storage.ts";
import { arrayOf, elementBytes, elementCount, type TensorSource } from "../tensors.ts";
import { PickleTuple, type PickleValue, TensorReference, unpickle } from "./unpickle.ts";
import { readZipDirectory, readZipEntry, type ZipEntry } from "./zip.ts";

/** Weights of a torch checkpoint, and the configuration that was saved beside them. */
export interface TorchCheckpoint extends TensorSource {
  /** Numbers, strings and booleans of the entry `config`, where there is one. */
  readonly config: ReadonlyMap<string, string | number | boolean>;
}

/** torch.compile puts this before the names of all parameters. */
const compiledPrefix = "_orig_mod.";
/** The pickle of a model of a billion parameters with its optimizer is below 1 MB. */
const maximumPickleBytes = 64 * 1024 * 1024;

/**
 * Opens a checkpoint of torch.save: a state dictionary, or a dictionary with one under `model`.
 * Prefixes `_orig_mod.` are taken off the names. Nothing in the file is executed.
 *
 * @throws CheckpointError where the file is damaged, is not plain weights, or would have to run code; StorageError
 *   where it cannot be read
 */
export async function openTorchCheckpoint(
  storage: Storage,
  name: string,
  options: ReadOptions = {},
): Promise<TorchCheckpoint> {
  const file = await storage.open(name);
  try {
    return await readCheckpoint(file, `${storage.location}/${name}`, options.verify ?? true);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readCheckpoint(file: StoredFile, location: string, verify: boolean): Promise<TorchCheckpoint> {
  const entries = await readZipDirectory(file, location);
  const pickleName = [...entries.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
  const pickle = pickleName === undefined ? undefined : entries.get(pickleName);
  if (pickleName === undefined || pickle === undefined) {
    throw new CheckpointError(`${location}: expected a checkpoint of torch.save, got a zip archive without data.pkl`);
  }
  if (pickle.size > maximumPickleBytes) {
    throw new CheckpointError(
      `${location}: data.pkl has ${pickle.size} bytes, expected at most ${maximumPickleBytes}; save the weights alone`,
    );
  }
  const folder = pickleName.slice(0, -"data.pkl".length);
  const readWhole = (entry: ZipEntry, label: string): Promise<Uint8Array> =>
    readZipEntry(file, entry, `${location}: ${label}`, { start: 0, end: entry.size, verify });
  const byteOrder = entries.get(`${folder}byteorder`);
  if (byteOrder !== undefined && new TextDecoder().decode(await readWhole(byteOrder, "byteorder")) !== "little") {
    throw new CheckpointError(`${location}: its numbers are not little-endian; save it again on another machine`);
  }
  const root = unpickle(await readWhole(pickle, "data.pkl"), `${location}: data.pkl`);
  const tensors = findTensors(root, location);
  for (const [name, tensor] of tensors) checkStorage(tensor, entries.get(entryName(folder, tensor)), name, location);

  const close = () => file.close();
  return {
    location,
    tensors: new Map([...tensors].map(([name, { storage, shape }]) => [name, { dtype: storage.dtype, shape }])),
    metadata: {},
    config: findConfig(root),
    async read(name) {
      const tensor = tensors.get(name);
      const entry = tensor === undefined ? undefined : entries.get(entryName(folder, tensor));
      if (tensor === undefined || entry === undefined) {
        throw new CheckpointError(`${location}: there is no tensor ${JSON.stringify(name)}`);
      }
      const { dtype } = tensor.storage;
      const start = tensor.offset * elementBytes(dtype);
      const end = start + spanOf(tensor) * elementBytes(dtype);
      const label = `${location}: ${entryName(folder, tensor)} (${name})`;
      const bytes = await readZipEntry(file, entry, label, { start, end, verify });
      return { dtype, shape: tensor.shape, data: arrayOf(dtype, gather(bytes, tensor)) };
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function entryName(folder: string, tensor: TensorReference): string {
  return `${folder}data/${tensor.storage.key}`;
}

/** The weights: the entry `model` of a dictionary, or the dictionary itself where it holds tensors only. */
function findTensors(root: PickleValue, location: string): Map<string, TensorReference> {
  if (!(root instanceof Map)) throw new CheckpointError(`${location}: expected a dictionary, got ${describe(root)}`);
  const model = root.get("model");
  const isPlain = model === undefined || model instanceof TensorReference;
  if (!isPlain && !(model instanceof Map)) {
    throw new CheckpointError(`${location}: expected a dictionary of weights under "model", got ${describe(model)}`);
  }
  const weights = isPlain ? root : model;
  const tensors = new Map<string, TensorReference>();
  for (const [key, value] of weights) {
    if (typeof key !== "string" || !(value instanceof TensorReference)) {
      const expected = isPlain ? `weights, or a dictionary of them under "model"` : "a tensor";
      throw new CheckpointError(`${location}: expected ${expected}, got ${describe(value)} under ${describe(key)}`);
    }
    const name = key.replaceAll(compiledPrefix, "");
    if (tensors.has(name)) {
      throw new CheckpointError(`${location}: ${name} occurs with and without the prefix ${compiledPrefix}`);
    }
    tensors.set(name, value);
  }
  if (tensors.size === 0) throw new CheckpointError(`${location}: holds no weights`);
  return tensors;
}

function findConfig(root: PickleValue): Map<string, string | number | boolean> {
  const config = root instanceof Map ? root.get("config") : undefined;
  const scalars = new Map<string, string | number | boolean>();
  if (!(config instanceof Map)) return scalars;
  for (const [key, value] of config) {
    const isScalar = typeof value === "string" || typeof value === "number" || typeof value === "boolean";
    if (typeof key === "string" && isScalar) scalars.set(key, value);
  }
  return scalars;
}

function checkStorage(tensor: TensorReference, entry: ZipEntry | undefined, name: string, location: string): void {
  const { dtype, key, length } = tensor.storage;
  if (entry === undefined) throw new CheckpointError(`${location}: ${name} is in storage ${key}, which is missing`);
  if (length * elementBytes(dtype) > entry.size) {
    throw new CheckpointError(
      `${location}: ${name} is in storage ${key} of ${length} ${dtype}, but the archive has ${entry.size} bytes of it`,
    );
  }
}

/** Number of elements from the first to the last one of a tensor. */
function spanOf({ shape, strides }: TensorReference): number {
  if (elementCount(shape) === 0) return 0;
  return shape.reduce((sum, size, axis) => sum + (size - 1) * (strides[axis] ?? 0), 1);
}

/** The bytes of the elements in row-major order; the same bytes where they already are. */
function gather(bytes: Uint8Array<ArrayBuffer>, { shape, strides, storage }: TensorReference): Uint8Array<ArrayBuffer> {
  if (isContiguous(shape, strides)) return bytes;
  const width = elementBytes(storage.dtype);
  const gathered = new Uint8Array(elementCount(shape) * width);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < gathered.length; to += width) {
    for (let byte = 0; byte < width; byte++) gathered[to + byte] = bytes[from * width + byte] ?? 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const stride = strides[axis] ?? 0;
      const next = (index[axis] ?? 0) + 1;
      from += stride;
      index[axis] = next;
      if (next < (shape[axis] ?? 1)) break;
      from -= next * stride;
      index[axis] = 0;
    }
  }
  return gathered;
}

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] ?? 1;
    if (size !== 1 && strides[axis] !== expected) return false;
    expected *= size;
  }
  return true;
}

function describe(value: PickleValue | undefined): string {
  if (value instanceof TensorReference) return "a tensor";
  if (value instanceof Map) return "a dictionary";
  if (value instanceof PickleTuple) return "a tuple";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "string") return JSON.stringify(value.slice(0, 80));
  return typeof value === "object" && value !== null ? "a name" : String(value);
}
