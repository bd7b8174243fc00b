// The header of a safetensors file, read with distrust: nothing about the data is believed before it is checked.
// Source: the format description of https://github.com/huggingface/safetensors.

import { CheckpointError } from "@sisa/core";
import { elementBytes, elementCount, type FileDType, type TensorInfo } from "../tensors.ts";

/** Where a tensor's bytes are, counted from the first byte after the header. */
export interface TensorRange extends TensorInfo {
  readonly start: number;
  readonly end: number;
}

export interface Header {
  readonly tensors: ReadonlyMap<string, TensorRange>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Bound of the format's own reader. */
export const maximumHeaderBytes = 100_000_000;

const codes = {
  float64: "F64",
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  int64: "I64",
  uint64: "U64",
  int32: "I32",
  uint32: "U32",
  int16: "I16",
  uint16: "U16",
  int8: "I8",
  uint8: "U8",
  bool: "BOOL",
} as const satisfies Record<FileDType, string>;

const dtypes = new Map(Object.entries(codes).map(([dtype, code]) => [code as string, dtype as FileDType]));

/**
 * The header in its JSON text.
 *
 * @param bytes     the header without the eight bytes of its length
 * @param dataBytes size of what follows the header
 * @param location  for messages
 * @throws CheckpointError where it is not a header, or does not describe `dataBytes` bytes without gap or overlap
 */
export function parseHeader(bytes: Uint8Array, dataBytes: number, location: string): Header {
  const fail = (problem: string, cause?: unknown): never => {
    throw new CheckpointError(`${location}: not a safetensors file, or a damaged one: ${problem}`, { cause });
  };
  let text = "";
  let json: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (cause) {
    fail("the header is not JSON", cause);
  }
  if (!text.startsWith("{") || !isRecord(json)) return fail("the header is not a JSON object");
  const repeated = firstRepeated(topLevelKeys(text));
  if (repeated !== undefined) fail(`${JSON.stringify(repeated)} occurs twice in the header`);

  const tensors = new Map<string, TensorRange>();
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(json)) {
    if (name === "__metadata__") metadata = parseMetadata(entry, fail);
    else tensors.set(name, parseEntry(name, entry, fail));
  }
  let end = 0;
  for (const [name, tensor] of [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end)) {
    if (tensor.start !== end) {
      fail(`tensor ${JSON.stringify(name)} starts at byte ${tensor.start}, the one before it ends at ${end}`);
    }
    end = tensor.end;
  }
  if (end !== dataBytes) fail(`the header describes ${end} bytes of data, the file has ${dataBytes}`);
  return { tensors, metadata };
}

/** The header as JSON text, padded with spaces so that with its length it fills a multiple of eight bytes. */
export function formatHeader(header: Header): Uint8Array {
  const json: Record<string, unknown> = {};
  if (Object.keys(header.metadata).length > 0) json.__metadata__ = header.metadata;
  for (const [name, { dtype, shape, start, end }] of header.tensors) {
    json[name] = { dtype: codes[dtype], shape, data_offsets: [start, end] };
  }
  const text = new TextEncoder().encode(JSON.stringify(json));
  const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(0x20);
  padded.set(text);
  return padded;
}

type Fail = (problem: string) => never;

function parseMetadata(entry: unknown, fail: Fail): Record<string, string> {
  const metadata: Record<string, string> = {};
  if (!isRecord(entry)) return fail("__metadata__ is not an object");
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== "string") return fail(`__metadata__ ${JSON.stringify(key)} is not a string`);
    metadata[key] = value;
  }
  return metadata;
}

function parseEntry(name: string, entry: unknown, fail: Fail): TensorRange {
  const label = `tensor ${JSON.stringify(name)}`;
  if (!isRecord(entry)) return fail(`${label} is not described by an object`);
  const dtype = typeof entry.dtype === "string" ? dtypes.get(entry.dtype) : undefined;
  if (dtype === undefined) {
    return fail(`${label} has dtype ${JSON.stringify(entry.dtype)}, known are ${[...dtypes.keys()].join(", ")}`);
  }
  const { shape, data_offsets: offsets } = entry;
  if (!isSizes(shape)) return fail(`${label} has shape ${JSON.stringify(shape)}`);
  if (!isSizes(offsets)) return fail(`${label} has data_offsets ${JSON.stringify(offsets)}`);
  const [start, end] = offsets;
  if (start === undefined || end === undefined || offsets.length !== 2 || start > end) {
    return fail(`${label} has data_offsets ${JSON.stringify(offsets)}`);
  }
  const bytes = elementCount(shape) * elementBytes(dtype);
  if (bytes !== end - start) {
    return fail(`${label} is ${entry.dtype} [${shape}], ${bytes} bytes, but its data_offsets span ${end - start}`);
  }
  return { dtype, shape, start, end };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** Keys of the outermost object of valid JSON text. JSON.parse would keep only the last of equal ones. */
function* topLevelKeys(text: string): Iterable<string> {
  let depth = 0;
  for (const [token] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}]/g)) {
    if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
    else if (depth === 1) yield JSON.parse(token);
  }
}

function firstRepeated(keys: Iterable<string>): string | undefined {
  const seen = new Set<string>();
  for (const key of keys) {
    if (seen.has(key)) return key;
    seen.add(key);
  }
  return undefined;
}
