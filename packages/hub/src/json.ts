// Small JSON files: read with the file named in every message, written with a stable layout.

import { CheckpointError } from "@sisa/core";
import { readBytes, type Storage } from "./storage/storage.ts";

/** No JSON file of a model is larger; a tokenizer of a million tokens has about 60 MB. */
const maximumJsonBytes = 256 * 1024 * 1024;

/**
 * The object in a JSON file.
 * @throws CheckpointError where it holds anything else; StorageError where it is missing
 */
export async function readJsonObject(storage: Storage, name: string): Promise<Record<string, unknown>> {
  const bytes = (await storage.size(name)) ?? 0;
  if (bytes > maximumJsonBytes) {
    throw new CheckpointError(`${storage.location}/${name}: expected a JSON file, got one of ${bytes} bytes`);
  }
  return parseJsonObject(await readBytes(storage, name), `${storage.location}/${name}`);
}

/** @throws CheckpointError where the bytes are not the JSON text of an object */
export function parseJsonObject(bytes: Uint8Array, location: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`${location}: not JSON, or cut short: ${reason}`, { cause });
  }
  if (!isObject(value)) throw new CheckpointError(`${location}: expected a JSON object`);
  return value;
}

/**
 * JSON as Python writes it too: its Infinity and -Infinity are numbers here, and its NaN is null.
 * @throws SyntaxError where it is no JSON
 */
export function parseJson(text: string): unknown {
  return JSON.parse(
    text.replace(/"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g, (word) => {
      if (word.startsWith('"')) return word;
      if (word === "NaN") return "null";
      return word.startsWith("-") ? "-1e999" : "1e999";
    }),
  );
}

export function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
