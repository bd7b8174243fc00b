import { describe, expect, it } from "vitest";
import { seededRandom, utf8 } from "./testing.ts";
import { decodeUtf8, firstInvalidUtf8, withoutByteOrderMark } from "./utf8.ts";

describe("decodeUtf8 and firstInvalidUtf8", () => {
  it.each<[string, number[], number]>([
    ["a stray continuation", [0x61, 0x80], 1],
    ["a byte that never occurs", [0x61, 0x62, 0xff, 0x61], 2],
    ["an overlong form", [0xc0, 0x80], 0],
    ["half a surrogate pair", [0x61, 0xed, 0xa0, 0x80], 1],
    ["a character broken off by the next", [0xe2, 0x82, 0x61], 0],
    ["a letter of Latin-1", [0x61, 0xe9, 0x62], 1],
    ["a character broken off by the end", [0x61, 0xe2, 0x82], 3],
    ["more than Unicode has", [0xf4, 0x90, 0x80, 0x80], 0],
  ])("find %s", (_, bytes, at) => {
    expect(decodeUtf8(Uint8Array.from(bytes))).toBeUndefined();
    expect(firstInvalidUtf8(Uint8Array.from(bytes))).toBe(at);
  });

  it("agree on which bytes are text", () => {
    const random = seededRandom(10);
    const alphabet = [0x41, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5];
    const pick = (count: number): number => Math.floor(random() * count);
    let valid = 0;
    for (let round = 0; round < 5000; round++) {
      // With a letter after it, a cut-off character is as wrong as any other.
      const bytes = Uint8Array.from([...Array.from({ length: 1 + pick(4) }, () => alphabet[pick(16)] ?? 0), 0x41]);
      const accepted = decodeUtf8(bytes) !== undefined;
      expect(firstInvalidUtf8(bytes) === bytes.length, String(bytes)).toBe(accepted);
      if (accepted) valid++;
    }
    expect(valid).toBeGreaterThan(100);
  });

  it("find a changed byte in a long text", () => {
    const random = seededRandom(9);
    const text = utf8("Ein längerer Text, 中文 und 😀. ".repeat(500));
    for (let round = 0; round < 50; round++) {
      const at = Math.floor(random() * text.length);
      const changed = text.slice();
      changed[at] = 0xff;
      // At the byte, or at the beginning of the character that it breaks.
      const found = firstInvalidUtf8(changed);
      expect(found <= at && at - found < 4, `${found} for ${at}`).toBe(true);
    }
    expect(decodeUtf8(text)).toHaveLength(500 * 30);
  });

  it("keep a byte order mark, which can be taken off", () => {
    expect(decodeUtf8(utf8("\ufeffa"))).toBe("\ufeffa");
    expect(withoutByteOrderMark(utf8("\ufeffa"))).toEqual(utf8("a"));
    expect(withoutByteOrderMark(utf8("a\ufeff"))).toEqual(utf8("a\ufeff"));
  });
});
