// Strict UTF-8: text that is not is found, with its place, instead of being replaced by U+FFFD.

/** The text of UTF-8 bytes, or undefined where they are not UTF-8. A byte order mark stays. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Offset of the first byte that cannot be UTF-8 after those before it; the length where the end is cut off. */
export function firstInvalidUtf8(bytes: Uint8Array): number {
  // The prefix of `valid` bytes can be UTF-8, the one of `invalid` bytes cannot.
  let valid = 0;
  let invalid = bytes.length + 1;
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >> 1;
    if (canBeUtf8(bytes.subarray(0, middle))) valid = middle;
    else invalid = middle;
  }
  return valid;
}

/** True for UTF-8, and for UTF-8 that ends inside a character. */
function canBeUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}

/** The bytes without a byte order mark at the start. */
export function withoutByteOrderMark(bytes: Uint8Array): Uint8Array {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}
