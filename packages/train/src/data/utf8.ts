// Strict decoding of UTF-8, with the place of the first byte that is not.
import { DataError } from "@sisa/core";

/**
 * Text of UTF-8 bytes; a byte order mark at the start is dropped.
 *
 * @throws DataError that names the file, the byte and its offset
 */
export function decodeUtf8(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    const offset = firstInvalidByte(bytes);
    const found = offset < bytes.length ? `byte 0x${hex(bytes[offset] ?? 0)}` : "the end of a cut-off character";
    throw new DataError(
      `${name}: expected UTF-8 text, got ${found} at offset ${offset}; convert the file to UTF-8 or leave it out`,
    );
  }
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/**
 * Offset of the first byte that no well-formed sequence explains; the length where the last character is cut off or all is
 * well. Source: Unicode 15, table 3-7.
 */
export function firstInvalidByte(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const lead = bytes[at] ?? 0;
    const following = lead < 0x80 ? 0 : lead < 0xc2 ? -1 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : -1;
    if (following < 0) return at;
    for (let index = 1; index <= following; index++) {
      if (at + index >= bytes.length) return bytes.length;
      const byte = bytes[at + index] ?? 0;
      // The second byte of some leads is narrower: no overlong forms, no surrogates, nothing past U+10FFFF.
      const low = index > 1 ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
      const high = index > 1 ? 0xbf : lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
      if (byte < low || byte > high) return at;
    }
    at += following + 1;
  }
  return bytes.length;
}
