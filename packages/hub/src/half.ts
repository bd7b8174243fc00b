// Whole arrays between float32 and the two 16-bit formats, which are held as their bit patterns. The scalar functions
// of @sisa/core define the results; these give the same, fast.

/** Exact. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let index = 0; index < bits.length; index++) words[index] = (bits[index] ?? 0) << 16;
  return new Float32Array(words.buffer);
}

/** Nearest, ties to even. Every NaN becomes the quiet NaN 0x7fc0. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(words.length);
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? 0;
    const isNotANumber = (word & 0x7fffffff) > 0x7f800000;
    bits[index] = isNotANumber ? 0x7fc0 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}

/** Exact. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  const values = new Float32Array(words.buffer);
  for (let index = 0; index < bits.length; index++) {
    const half = bits[index] ?? 0;
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 31;
    const mantissa = half & 1023;
    if (exponent === 0) {
      const magnitude = mantissa * 2 ** -24;
      values[index] = sign === 0 ? magnitude : -magnitude;
    } else {
      const wideExponent = exponent === 31 ? 255 : exponent + 112;
      words[index] = sign | (wideExponent << 23) | (mantissa << 13);
    }
  }
  return values;
}

/** Nearest, ties to even; magnitudes from 65520 on become infinite, every NaN the quiet NaN 0x7e00. */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(words.length);
  const scratch = new Float32Array(1);
  const scratchWord = new Uint32Array(scratch.buffer);
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? 0;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      bits[index] = 0x7e00;
    } else if (magnitude >= 0x477ff000) {
      bits[index] = sign | 0x7c00;
    } else if (magnitude >= 0x38800000) {
      const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
      bits[index] = sign | ((rounded - 0x38000000) >>> 13);
    } else {
      // Below 2^-14: from 0.5 on, float32 is spaced by 2^-24, the smallest float16, so that adding 0.5 rounds to it.
      scratch[0] = Math.abs(values[index] ?? 0) + 0.5;
      bits[index] = sign | ((scratchWord[0] ?? 0) - 0x3f000000);
    }
  }
  return bits;
}
