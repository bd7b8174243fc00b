import { describe, expect, it } from "vitest";
import { crc32, hex32 } from "./crc32.ts";
import { seededRandom, utf8 } from "./testing.ts";

describe("crc32", () => {
  it("gives the check value of the standard", () => {
    expect(crc32(utf8("123456789"))).toBe(0xcbf43926);
    expect(crc32(new Uint8Array(0))).toBe(0);
  });

  it("does not depend on alignment, nor on how the bytes are cut", () => {
    const random = seededRandom(1);
    const buffer = Uint8Array.from({ length: 200 }, () => random() * 256);
    const bitwise = (bytes: Uint8Array): number => {
      let sum = -1;
      for (const byte of bytes) {
        sum ^= byte;
        for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
      }
      return ~sum >>> 0;
    };
    for (let start = 0; start < 9; start++) {
      for (let length = 0; length < 60; length++) {
        const bytes = buffer.subarray(start, start + length);
        const cut = Math.floor(random() * length);
        expect(crc32(bytes)).toBe(bitwise(bytes));
        expect(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut)))).toBe(bitwise(bytes));
      }
    }
  });

  it("is written with eight digits", () => {
    expect(hex32(0xab)).toBe("000000ab");
    expect(hex32(-1)).toBe("ffffffff");
  });
});
