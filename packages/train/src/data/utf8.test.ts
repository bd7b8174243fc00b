import { DataError } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { decodeUtf8, firstInvalidByte } from "./utf8.ts";

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe("decodeUtf8", () => {
  it("decodes text and drops a byte order mark", () => {
    const text = "aé€😀";
    expect(decodeUtf8(new TextEncoder().encode(text), "a.txt")).toBe(text);
    expect(decodeUtf8(bytes(0xef, 0xbb, 0xbf, 0x61), "a.txt")).toBe("a");
    expect(decodeUtf8(bytes(), "a.txt")).toBe("");
  });

  it.each<[string, Uint8Array, number]>([
    ["a byte of Latin-1", bytes(0x61, 0xe9, 0x62), 1],
    ["a lone continuation", bytes(0x61, 0x62, 0x80), 2],
    ["an overlong form", bytes(0xc0, 0xaf), 0],
    ["an overlong form of three", bytes(0x61, 0xe0, 0x80, 0xaf), 1],
    ["a surrogate", bytes(0xed, 0xa0, 0x80), 0],
    ["a number past U+10FFFF", bytes(0xf4, 0x90, 0x80, 0x80), 0],
    ["a byte that never occurs", bytes(0x61, 0xff), 1],
  ])("names the offset of %s", (_, input, offset) => {
    expect(() => decodeUtf8(input, "notes/a.txt")).toThrow(DataError);
    expect(() => decodeUtf8(input, "notes/a.txt")).toThrow(
      `notes/a.txt: expected UTF-8 text, got byte 0x${input[offset]?.toString(16)} at offset ${offset}`,
    );
  });

  it("says where the last character is cut off", () => {
    expect(() => decodeUtf8(bytes(0x61, 0xe2, 0x82), "a.txt")).toThrow("cut-off character at offset 3");
  });

  it("agrees with TextDecoder on which bytes are text", () => {
    let state = 1;
    const next = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state >>> 24;
    };
    const alphabet = [0x41, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5];
    let valid = 0;
    for (let round = 0; round < 5000; round++) {
      const input = Uint8Array.from({ length: 1 + (next() % 4) }, () => alphabet[next() % alphabet.length] ?? 0);
      let accepted = true;
      try {
        new TextDecoder("utf-8", { fatal: true }).decode(input);
      } catch {
        accepted = false;
      }
      // With a letter after it, a cut-off character is as wrong as any other.
      const refused = firstInvalidByte(Uint8Array.from([...input, 0x41])) < input.length;
      expect(!refused, String(input)).toBe(accepted);
      if (accepted) valid++;
    }
    expect(valid).toBeGreaterThan(100);
  });
});
