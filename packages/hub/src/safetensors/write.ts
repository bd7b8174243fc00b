// Writing one safetensors file, tensor by tensor: memory holds one tensor at a time.

import { DTypeError, ShapeError } from "@sisa/core";
import { crc32 } from "../crc32.ts";
import type { Storage } from "../storage/storage.ts";
import { bytesOfArray, elementBytes, elementCount, holds, type TensorArray, type TensorInfo } from "../tensors.ts";
import { blankChecksums, checksumKey, findChecksums, headerChecksum, joinChecksums } from "./checksums.ts";
import { formatHeader, type Header, type TensorRange } from "./header.ts";

/** A tensor to write. A function is called when its turn has come, once, so that it can read or convert the data. */
export interface TensorToWrite extends TensorInfo {
  /** Row major; or a function that gives it when its turn has come, so that only one is in memory. */
  readonly data: TensorArray | (() => TensorArray | Promise<TensorArray>);
}

/** What stands in a file beside the tensors. */
export interface WriteOptions {
  /** Strings in the header. Default none but the checksums. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes a safetensors file with a CRC-32 of the header and of each tensor, whole or not at all. Tensors of wide
 * elements come first.
 *
 * @returns the header's checksum, which covers the whole file
 * @throws ShapeError or DTypeError where data do not fit what is declared
 * @throws StorageError where the file cannot be written; the old one is untouched then
 */
export async function writeSafetensors(
  storage: Storage,
  name: string,
  tensors: Readonly<Record<string, TensorToWrite>>,
  options: WriteOptions = {},
): Promise<string> {
  const order = Object.entries(tensors).sort(([a, x], [b, y]) => {
    // Wide elements first, so that every tensor is aligned to its own element.
    return elementBytes(y.dtype) - elementBytes(x.dtype) || (a < b ? -1 : 1);
  });
  const ranges = new Map<string, TensorRange>();
  let end = 0;
  for (const [tensor, { dtype, shape }] of order) {
    const start = end;
    end += elementCount(shape) * elementBytes(dtype);
    ranges.set(tensor, { dtype, shape, start, end });
  }
  const blank = blankChecksums(order.length);
  const format = (digits: string): Uint8Array => {
    const header: Header = { tensors: ranges, metadata: { [checksumKey]: digits, ...options.metadata } };
    return formatHeader(header);
  };
  const draft = format(blank);
  let checksum = "";
  await storage.write(name, async (file) => {
    const length = new DataView(new ArrayBuffer(8));
    length.setBigUint64(0, BigInt(draft.length), true);
    await file.append(new Uint8Array(length.buffer));
    await file.append(draft);
    const sums: number[] = [];
    for (const [label, tensor] of order) {
      const data = typeof tensor.data === "function" ? await tensor.data() : tensor.data;
      checkData(label, tensor, data);
      const bytes = bytesOfArray(data);
      sums.push(crc32(bytes));
      await file.append(bytes);
    }
    const unsigned = joinChecksums(0, sums);
    const headerSum = headerChecksum(format(unsigned), unsigned);
    const digits = joinChecksums(headerSum, sums);
    await file.patch(8 + findChecksums(draft, blank), new TextEncoder().encode(digits));
    checksum = digits.slice(0, 8);
  });
  return checksum;
}

function checkData(name: string, info: TensorInfo, data: TensorArray): void {
  if (!holds(info.dtype, data)) {
    throw new DTypeError(`${name}: ${info.dtype} is not held in a ${data.constructor.name}`);
  }
  const expected = elementCount(info.shape);
  if (data.length !== expected) {
    throw new ShapeError(`${name}: expected ${expected} values for shape [${info.shape}], got ${data.length}`);
  }
}
