import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./half.ts";
import { seededRandom } from "./testing.ts";

const everyPattern = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** Every 16-bit value, the midpoints to its neighbour and the float32 next to them, and random bit patterns. */
function interestingFloats(widened: Float32Array): Float32Array {
  const words: number[] = [
    0x80000000, 0x7f800001, 0xff800001, 0x00000001, 0x33000000, 0x33000001, 0x477fefff, 0x477ff000,
  ];
  const widenedWords = new Uint32Array(widened.buffer);
  for (const word of widenedWords) {
    for (const half of [0x1000, 0x8000]) words.push(word, word + half, word + half - 1, word + half + 1);
  }
  const random = seededRandom(2);
  for (let count = 0; count < 20000; count++) words.push(random() * 2 ** 32);
  return new Float32Array(Uint32Array.from(words).buffer);
}

function bits(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

describe("bfloat16", () => {
  it("widens every pattern exactly", () => {
    const widened = bfloat16ToFloat32(everyPattern);
    expect(everyPattern.filter((pattern) => !Object.is(widened[pattern], fromBfloat16Bits(pattern)))).toHaveLength(0);
    expect(bits(widened)[0x3f80]).toBe(0x3f800000);
  });

  it("rounds as the scalar function of core does, ties to even", () => {
    const values = interestingFloats(bfloat16ToFloat32(everyPattern));
    const rounded = float32ToBfloat16(values);
    expect(values.filter((value, index) => rounded[index] !== toBfloat16Bits(value))).toHaveLength(0);
    expect([...float32ToBfloat16(Float32Array.of(1.00390625, 1.01171875))]).toEqual([0x3f80, 0x3f82]);
  });
});

describe("float16", () => {
  it("widens every pattern exactly", () => {
    const widened = float16ToFloat32(everyPattern);
    expect(everyPattern.filter((pattern) => !Object.is(widened[pattern], fromFloat16Bits(pattern)))).toHaveLength(0);
  });

  it("rounds as the scalar function of core does: ties to even, subnormals, overflow", () => {
    const values = interestingFloats(float16ToFloat32(everyPattern));
    const rounded = float32ToFloat16(values);
    expect(values.filter((value, index) => rounded[index] !== toFloat16Bits(value))).toHaveLength(0);
    expect([...float32ToFloat16(Float32Array.of(65519, 65520, 2 ** -25, 1.5 * 2 ** -24, -0))]).toEqual([
      0x7bff, 0x7c00, 0, 2, 0x8000,
    ]);
  });

  it("keeps every number through a round trip", () => {
    const isNumber = (pattern: number): boolean => (pattern & 0x7fff) <= 0x7c00;
    const numbers = everyPattern.filter(isNumber);
    expect(float32ToFloat16(float16ToFloat32(numbers))).toEqual(numbers);
  });
});
