// Reads a golden file for tests with nothing but Node, so that these tests do not depend on the reader they may be checking.
import { readFileSync } from "node:fs";

export interface Fixture {
  readonly metadata: Readonly<Record<string, string>>;
  readonly names: readonly string[];
  shape(name: string): readonly number[];
  floats(name: string): Float32Array;
  integers(name: string): Int32Array;
}

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** A safetensors file of the folder `fixtures` at the root, by name without extension. */
export function readFixture(name: string): Fixture {
  const file = readFileSync(new URL(`../../../fixtures/${name}.safetensors`, import.meta.url));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header: Record<string, unknown> = JSON.parse(file.toString("utf8", 8, 8 + headerBytes));
  const { __metadata__: metadata, ...entries } = header as { __metadata__: Record<string, string> } & Record<
    string,
    Entry
  >;
  const bytesOf = (tensor: string, dtype: string): ArrayBuffer => {
    const entry = (entries as Record<string, Entry>)[tensor];
    if (entry?.dtype !== dtype) throw new Error(`${name}: expected ${tensor} of ${dtype}, got ${entry?.dtype}`);
    const [start, end] = entry.data_offsets;
    const from = file.byteOffset + 8 + headerBytes;
    return file.buffer.slice(from + start, from + end) as ArrayBuffer;
  };
  return {
    metadata,
    names: Object.keys(entries),
    shape: (tensor) => (entries as Record<string, Entry>)[tensor]?.shape ?? [],
    floats: (tensor) => new Float32Array(bytesOf(tensor, "F32")),
    integers: (tensor) => new Int32Array(bytesOf(tensor, "I32")),
  };
}
