// Reading one safetensors file, tensor by tensor: memory holds the header and the tensors asked for, nothing else.

import { CheckpointError } from "@sisa/core";
import { crc32 } from "../crc32.ts";
import type { Storage, StoredFile } from "../storage/storage.ts";
import { arrayOf, type HostTensor, type TensorSource } from "../tensors.ts";
import { checksumKey, headerChecksum, splitChecksums } from "./checksums.ts";
import { type Header, maximumHeaderBytes, parseHeader } from "./header.ts";

/** Whether data is checked while it is read. */
export interface ReadOptions {
  /** Compare data with the checksums that files of ours carry; default true. */
  readonly verify?: boolean;
}

/** One safetensors file. */
export interface SafetensorsFile extends TensorSource {
  /** The header's own checksum where it carries one; it covers those of the tensors, hence the whole file. */
  readonly checksum: string | undefined;
}

/**
 * Opens a safetensors file and checks its header.
 *
 * @throws CheckpointError where the file is not one, is cut short or damaged
 * @throws StorageError where it cannot be read
 */
export async function openSafetensors(
  storage: Storage,
  name: string,
  options: ReadOptions = {},
): Promise<SafetensorsFile> {
  const file = await storage.open(name);
  try {
    return await readHeader(file, `${storage.location}/${name}`, options.verify ?? true);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readHeader(file: StoredFile, location: string, verify: boolean): Promise<SafetensorsFile> {
  if (file.size < 8) {
    throw new CheckpointError(`${location}: not a safetensors file: it has ${file.size} bytes, a header needs 8`);
  }
  const length = Number(new DataView((await file.read(0, 8)).buffer).getBigUint64(0, true));
  if (length > maximumHeaderBytes || length > file.size - 8) {
    const limit = Math.min(maximumHeaderBytes, file.size - 8);
    throw new CheckpointError(
      `${location}: not a safetensors file, or cut short: its header claims ${length} bytes, at most ${limit} can be there`,
    );
  }
  const bytes = await file.read(8, 8 + length);
  const header = parseHeader(bytes, file.size - 8 - length, location);
  const { [checksumKey]: digits, ...metadata } = header.metadata;
  const checksums = verify && digits !== undefined ? checkHeader(bytes, digits, header, location) : undefined;

  const close = () => file.close();
  return {
    location,
    tensors: header.tensors,
    metadata,
    checksum: digits?.slice(0, 8),
    async read(name): Promise<HostTensor> {
      const tensor = header.tensors.get(name);
      if (tensor === undefined) throw new CheckpointError(`${location}: there is no tensor ${JSON.stringify(name)}`);
      const data = await file.read(8 + length + tensor.start, 8 + length + tensor.end);
      const expected = checksums?.get(name);
      if (expected !== undefined && crc32(data) !== expected) throw damaged(location, `tensor ${JSON.stringify(name)}`);
      return { dtype: tensor.dtype, shape: tensor.shape, data: arrayOf(tensor.dtype, data) };
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function checkHeader(bytes: Uint8Array, digits: string, header: Header, location: string): Map<string, number> {
  const checksums = splitChecksums(digits, header);
  if (checksums === undefined || headerChecksum(bytes, digits) !== Number.parseInt(digits.slice(0, 8), 16)) {
    throw damaged(location, "the header");
  }
  return checksums;
}

function damaged(location: string, part: string): CheckpointError {
  return new CheckpointError(
    `${location}: ${part} does not match its checksum: the file is damaged, or another program changed it and kept ` +
      `the checksums; fetch or save it again (verify: false reads it as it is)`,
  );
}
