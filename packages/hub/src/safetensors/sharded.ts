// A model's tensors in one safetensors file, or in several with an index, under the names Hugging Face uses:
// model.safetensors, or model-00001-of-0000N.safetensors with model.safetensors.index.json.

import { CheckpointError } from "@sisa/core";
import { isObject, jsonBytes, readJsonObject } from "../json.ts";
import type { Storage } from "../storage/storage.ts";
import { elementBytes, elementCount, type TensorInfo, type TensorSource } from "../tensors.ts";
import { openSafetensors, type ReadOptions, type SafetensorsFile } from "./read.ts";
import { type TensorToWrite, type WriteOptions, writeSafetensors } from "./write.ts";

/** As of a single file, and which one the tensors begin in. */
export interface ShardedReadOptions extends ReadOptions {
  /** First part of the file names; default "model". */
  readonly base?: string;
}

/** As of a single file, and how large one may get. */
export interface ShardedWriteOptions extends WriteOptions {
  /** First part of the file names; default "model". */
  readonly base?: string;
  /** Bytes of a file, which holds as many tensors as fit, but at least one; default 5e9. */
  readonly maximumShardBytes?: number;
}

/** Metadata of an index: checksums of the shards' headers, so that shards of two saves are never mixed. */
const indexChecksumKey = "sisa.crc32";

/**
 * Opens `base`.safetensors, or the shards that `base`.safetensors.index.json names.
 * @throws CheckpointError where neither is there, where one is damaged, or where index and shards contradict each
 *   other; StorageError where a file cannot be read
 */
export async function openTensors(storage: Storage, options: ShardedReadOptions = {}): Promise<TensorSource> {
  const base = options.base ?? "model";
  const single = `${base}.safetensors`;
  const index = `${base}.safetensors.index.json`;
  if ((await storage.size(single)) !== undefined) return await openSafetensors(storage, single, options);
  if ((await storage.size(index)) !== undefined) return await openShards(storage, index, options);
  throw new CheckpointError(`${storage.location}: expected ${single} or ${index}, found neither`);
}

async function openShards(storage: Storage, indexName: string, options: ReadOptions): Promise<TensorSource> {
  const location = `${storage.location}/${indexName}`;
  const { weight_map: weightMap, metadata } = await readJsonObject(storage, indexName);
  if (!isObject(weightMap)) throw new CheckpointError(`${location}: expected an object "weight_map"`);
  const checksums = isObject(metadata) && isObject(metadata[indexChecksumKey]) ? metadata[indexChecksumKey] : {};

  const shards = new Map<string, SafetensorsFile>();
  const close = async (): Promise<void> => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    const owners = new Map<string, SafetensorsFile>();
    const tensors = new Map<string, TensorInfo>();
    for (const [name, file] of Object.entries(weightMap)) {
      if (typeof file !== "string") throw new CheckpointError(`${location}: ${name} is not mapped to a file name`);
      let shard = shards.get(file);
      if (shard === undefined) {
        shard = await openShard(storage, file, location, options);
        shards.set(file, shard);
      }
      const info = shard.tensors.get(name);
      if (info === undefined) throw new CheckpointError(`${location}: says that ${name} is in ${file}; it is not`);
      owners.set(name, shard);
      tensors.set(name, info);
    }
    for (const [file, shard] of shards) {
      const leftOver = [...shard.tensors.keys()].find((name) => owners.get(name) !== shard);
      if (leftOver !== undefined)
        throw new CheckpointError(`${location}: ${file} holds ${leftOver}, unknown to the index`);
      const expected = checksums[file];
      if ((options.verify ?? true) && expected !== undefined && expected !== shard.checksum) {
        throw new CheckpointError(
          `${location}: ${file} is of another save than the index; save or fetch the model again`,
        );
      }
    }
    return {
      location,
      tensors,
      metadata: Object.assign({}, ...[...shards.values()].map((shard) => shard.metadata)),
      async read(name) {
        const shard = owners.get(name);
        if (shard === undefined) throw new CheckpointError(`${location}: there is no tensor ${JSON.stringify(name)}`);
        return await shard.read(name);
      },
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openShard(
  storage: Storage,
  file: string,
  location: string,
  options: ReadOptions,
): Promise<SafetensorsFile> {
  if ((await storage.size(file)) === undefined) {
    throw new CheckpointError(`${location}: names ${file}, which is missing; fetch or save the model again`);
  }
  return await openSafetensors(storage, file, options);
}

/**
 * Writes tensors to `base`.safetensors, or to shards and an index where they are larger than one file may be.
 * Each file is written whole or not at all, and the index last; what an earlier save with other shards left behind is
 * removed at the very end.
 *
 * @returns names of the files written
 * @throws ShapeError or DTypeError where data do not fit what is declared; StorageError where a file cannot be written
 */
export async function writeTensors(
  storage: Storage,
  tensors: Readonly<Record<string, TensorToWrite>>,
  options: ShardedWriteOptions = {},
): Promise<string[]> {
  const base = options.base ?? "model";
  const shards = split(tensors, options.maximumShardBytes ?? 5e9);
  const written: string[] = [];
  if (shards.length <= 1) {
    const name = `${base}.safetensors`;
    await writeSafetensors(storage, name, tensors, options);
    written.push(name);
  } else {
    const weightMap: Record<string, string> = {};
    const checksums: Record<string, string> = {};
    for (const [position, shard] of shards.entries()) {
      const number = (value: number): string => String(value).padStart(5, "0");
      const name = `${base}-${number(position + 1)}-of-${number(shards.length)}.safetensors`;
      checksums[name] = await writeSafetensors(storage, name, shard, options);
      for (const tensor of Object.keys(shard)) weightMap[tensor] = name;
      written.push(name);
    }
    const totalSize = Object.values(tensors).reduce((sum, tensor) => sum + bytesOf(tensor), 0);
    const index = { metadata: { total_size: totalSize, [indexChecksumKey]: checksums }, weight_map: weightMap };
    const name = `${base}.safetensors.index.json`;
    await storage.write(name, jsonBytes(index));
    written.push(name);
  }
  await removeOtherTensors(storage, written, base);
  return written;
}

/** Removes files that an earlier save with other shards left behind. */
export async function removeOtherTensors(storage: Storage, written: readonly string[], base = "model"): Promise<void> {
  const pattern = /^(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/;
  for (const name of await storage.list()) {
    const isOurs = name.startsWith(base) && pattern.test(name.slice(base.length));
    if (isOurs && !written.includes(name)) await storage.remove(name);
  }
}

function split(
  tensors: Readonly<Record<string, TensorToWrite>>,
  maximumBytes: number,
): Record<string, TensorToWrite>[] {
  const shards: Record<string, TensorToWrite>[] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const [name, tensor] of Object.entries(tensors)) {
    if (bytes + bytesOf(tensor) > maximumBytes) {
      shards.push({});
      bytes = 0;
    }
    bytes += bytesOf(tensor);
    Object.assign(shards.at(-1) ?? {}, { [name]: tensor });
  }
  return shards;
}

function bytesOf(tensor: TensorInfo): number {
  return elementCount(tensor.shape) * elementBytes(tensor.dtype);
}
