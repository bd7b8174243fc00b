import { describe, expect, test } from "vitest";
import {
  allocate,
  bytesOf,
  type DType,
  fromBfloat16Bits,
  fromFloat16Bits,
  kindOf,
  roundTo,
  toBfloat16Bits,
  toFloat16Bits,
} from "./dtype.ts";
import { RandomStream } from "./random.ts";

const dtypes: readonly DType[] = ["float32", "float64", "float16", "bfloat16", "int32", "bool"];

const formats = [
  { name: "float16", to: toFloat16Bits, from: fromFloat16Bits, infinity: 0x7c00, largest: 65504 },
  { name: "bfloat16", to: toBfloat16Bits, from: fromBfloat16Bits, infinity: 0x7f80, largest: 0xff * 2 ** 120 },
] as const;

describe.each(formats)("$name", ({ to, from, infinity, largest }) => {
  test("every bit pattern comes back from its number", () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const value = from(bits);
      if ((bits & 0x7fff) > infinity) expect(value, `bits ${bits}`).toBeNaN();
      else if (to(value) !== bits) expect.fail(`${bits} gave ${value}, which gave ${to(value)}`);
    }
  });

  test("numbers rise with their bits", () => {
    for (let bits = 0; bits < infinity; bits++) {
      if (!(from(bits) < from(bits + 1))) expect.fail(`${from(bits)} of ${bits} is not below ${from(bits + 1)}`);
    }
  });

  test("a number between two takes the nearer one, and half way the even one", () => {
    for (let bits = 0; bits < infinity - 1; bits++) {
      const [low, high] = [from(bits), from(bits + 1)];
      const middle = low + (high - low) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const rest = (high - low) * 2 ** -20;
      const found = [to(middle - rest), to(middle), to(middle + rest), to(-middle)];
      const expected = [bits, even, bits + 1, even | 0x8000];
      if (found.join() !== expected.join()) expect.fail(`around ${middle}: got ${found}, expected ${expected}`);
    }
  });

  test("a number close to half way is not rounded twice", () => {
    // Nearer to half way than float32 can tell: rounding to float32 first would make a tie of it.
    for (const bits of [0x0001, 0x1234, 0x3c00, 0x3c01, 0x7001]) {
      const [low, high] = [from(bits), from(bits + 1)];
      const middle = low + (high - low) / 2;
      expect(to(middle * (1 + 2 ** -40))).toBe(bits + 1);
      expect(to(middle * (1 - 2 ** -40))).toBe(bits);
      expect(to(-middle * (1 + 2 ** -40))).toBe((bits + 1) | 0x8000);
      expect(to(-middle * (1 - 2 ** -40))).toBe(bits | 0x8000);
    }
  });

  test("ends in infinity, keeps the sign of zero, and has one NaN", () => {
    const last = from(infinity - 1);
    expect(last).toBe(largest);
    const step = last - from(infinity - 2);
    expect(to(last + step / 2)).toBe(infinity);
    expect(to(last + step * 0.499)).toBe(infinity - 1);
    expect(to(Number.MAX_VALUE)).toBe(infinity);
    expect(to(-Number.MAX_VALUE)).toBe(infinity | 0x8000);
    expect(to(Number.POSITIVE_INFINITY)).toBe(infinity);
    expect(from(infinity | 0x8000)).toBe(Number.NEGATIVE_INFINITY);
    expect(to(-0)).toBe(0x8000);
    expect(from(0x8000)).toBe(-0);
    expect(to(Number.MIN_VALUE)).toBe(0);
    expect(to(-Number.MIN_VALUE)).toBe(0x8000);
    expect(from(to(Number.NaN))).toBeNaN();
  });
});

test("known values", () => {
  // IEEE 754 binary16: 1, 0.1, smallest normal, smallest subnormal.
  expect([1, 0.1, 2 ** -14, 2 ** -24].map(toFloat16Bits)).toEqual([0x3c00, 0x2e66, 0x0400, 0x0001]);
  expect([1, 0.1, Math.PI, 2 ** -133].map(toBfloat16Bits)).toEqual([0x3f80, 0x3dcd, 0x4049, 0x0001]);
  expect(fromBfloat16Bits(0x3dcd)).toBe(0.10009765625);
});

describe("roundTo", () => {
  test("gives what an array of the dtype would hold", () => {
    const values = new RandomStream(1, "roundTo").normal(500, { deviation: 1000 });
    for (const value of [...values, 0, -0, 1e-42, 3.5e38, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(roundTo("float64", value)).toBe(value);
      expect(roundTo("float32", value)).toBe(Float32Array.of(value)[0]);
      expect(roundTo("float16", value)).toBe(fromFloat16Bits(toFloat16Bits(value)));
      expect(roundTo("bfloat16", value)).toBe(fromBfloat16Bits(toBfloat16Bits(value)));
      expect(roundTo("int32", value)).toBe(Int32Array.of(value)[0]);
    }
    expect([0, 1, -3, 0.5].map((value) => roundTo("bool", value))).toEqual([0, 1, 1, 1]);
  });

  test("is idempotent and odd", () => {
    const values = new RandomStream(2, "roundTo").normal(500);
    for (const dtype of ["float32", "float16", "bfloat16"] as const) {
      for (const value of values) {
        const rounded = roundTo(dtype, value);
        expect(roundTo(dtype, rounded)).toBe(rounded);
        expect(roundTo(dtype, -value)).toBe(-rounded);
      }
    }
  });
});

test("arrays have the element size of their dtype", () => {
  for (const dtype of dtypes) {
    const array = allocate(dtype, 3);
    expect(array.length).toBe(3);
    expect(array.BYTES_PER_ELEMENT).toBe(bytesOf(dtype));
  }
  expect(dtypes.map((dtype) => allocate(dtype, 0).constructor)).toEqual([
    Float32Array,
    Float64Array,
    Uint16Array,
    Uint16Array,
    Int32Array,
    Uint8Array,
  ]);
  expect(dtypes.map(kindOf)).toEqual(["float", "float", "float", "float", "int", "bool"]);
});
