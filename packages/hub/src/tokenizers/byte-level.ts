// The alphabet of byte-level tokenizers: each of the 256 bytes is written as one printable character in tokenizer.json.
// Source: GPT-2 (Radford et al. 2019); bytes that print stand for themselves, the others are numbered from U+0100 on.

/** Character of each byte. */
export const byteCharacters: readonly string[] = /* @__PURE__ */ makeCharacters();

const bytesByCharacter: ReadonlyMap<string, number> = /* @__PURE__ */ new Map(
  byteCharacters.map((character, byte) => [character, byte]),
);

/** The bytes that a byte-level token stands for, or undefined where it is not written in this alphabet. */
export function bytesOfToken(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length);
  for (let index = 0; index < token.length; index++) {
    const byte = bytesByCharacter.get(token.charAt(index));
    if (byte === undefined) return undefined;
    bytes[index] = byte;
  }
  return bytes;
}

function makeCharacters(): string[] {
  const prints = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(prints(byte) ? byte : next++));
}
