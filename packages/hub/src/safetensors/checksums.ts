// Checksums inside a safetensors file, so that damage to a file of ours is noticed. They are one metadata string,
// `sisa.crc32`: eight hexadecimal digits for the header, computed with these eight as zeros, then eight for each tensor
// in the order of the data. Files without it load unchecked, and other programs ignore it.

import { crc32, hex32 } from "../crc32.ts";
import type { Header } from "./header.ts";

export const checksumKey = "sisa.crc32";

/** Digits for a header whose checksums are not known yet; the final ones take their place, at the same length. */
export function blankChecksums(tensorCount: number): string {
  return "0".repeat(8 * (tensorCount + 1));
}

/** Digits of a header's own checksum, then of its tensors'. `header` is the text with `digits` blank for the header. */
export function joinChecksums(header: number, tensors: readonly number[]): string {
  return [header, ...tensors].map(hex32).join("");
}

/** Position of the digits in a header's bytes. They stand in the metadata, which comes first. */
export function findChecksums(header: Uint8Array, digits: string): number {
  const text = new TextDecoder("latin1").decode(header);
  return text.indexOf(`"${digits}"`) + 1;
}

/** The checksum of a header: its own digits count as zeros. */
export function headerChecksum(header: Uint8Array, digits: string): number {
  const blanked = header.slice();
  const at = findChecksums(header, digits);
  blanked.fill(0x30, at, at + 8);
  return crc32(blanked);
}

/** Expected checksum of each tensor, or undefined where the digits do not fit the header. */
export function splitChecksums(digits: string, header: Header): Map<string, number> | undefined {
  const names = namesInDataOrder(header);
  if (!/^[0-9a-f]*$/.test(digits) || digits.length !== 8 * (names.length + 1)) return undefined;
  return new Map(names.map((name, index) => [name, Number.parseInt(digits.slice(8 * index + 8, 8 * index + 16), 16)]));
}

/** Empty tensors share their place with others, hence the name as the second key. */
export function namesInDataOrder(header: Header): string[] {
  const order = [...header.tensors].sort(([a, x], [b, y]) => x.start - y.start || x.end - y.end || (a < b ? -1 : 1));
  return order.map(([name]) => name);
}
