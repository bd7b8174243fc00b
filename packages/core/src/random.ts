// Random numbers by counter: value i of a stream depends on the seed, the stream's name and i alone, so that they are the
// same on every backend, in any order, and after a resume. Made on the host; backends get them as inputs.

const multiplierA = 0xd2511f53;
const multiplierB = 0xcd9e8d57;
const keyStepA = 0x9e3779b9;
const keyStepB = 0xbb67ae85;

type Words = readonly [number, number, number, number];

/**
 * Philox-4x32-10: four random words from a 64-bit key and a 128-bit counter.
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
export function philox(key: readonly [number, number], counter: Words): Words {
  let [k0, k1] = key;
  let [x0, x1, x2, x3] = counter;
  for (let round = 0; round < 10; round++) {
    const highA = multiplyHigh(multiplierA, x0);
    const lowA = Math.imul(multiplierA, x0);
    const highB = multiplyHigh(multiplierB, x2);
    const lowB = Math.imul(multiplierB, x2);
    x0 = highB ^ x1 ^ k0;
    x1 = lowB;
    x2 = highA ^ x3 ^ k1;
    x3 = lowA;
    k0 = (k0 + keyStepA) | 0;
    k1 = (k1 + keyStepB) | 0;
  }
  return [x0 >>> 0, x1 >>> 0, x2 >>> 0, x3 >>> 0];
}

/** The upper half of the 64-bit product of two 32-bit words. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (cross >>> 16)) | 0;
}

/** FNV-1a over the UTF-16 units of a name. */
function hash(name: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) value = Math.imul(value ^ name.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

/** A named stream of random numbers. Streams of different names or seeds have nothing to do with each other. */
export class RandomStream {
  readonly #key: readonly [number, number];

  /** @param seed whole number; its lower 32 bits count. @param name what the numbers are for */
  constructor(seed: number, name: string) {
    this.#key = [seed >>> 0, hash(name)];
  }

  /** Four words of the stream, from number 4 * block on. */
  #words(block: number): Words {
    return philox(this.#key, [block | 0, Math.floor(block / 2 ** 32), 0, 0]);
  }

  /** Number `index` of the stream, uniform in [0, 1), a multiple of 2^-32. */
  uniform(index: number): number {
    return (this.#words(Math.floor(index / 4))[index % 4] ?? 0) / 2 ** 32;
  }

  /** Whole number `index` of the stream, uniform from 0 to below `bound` (at most 2^32). */
  below(bound: number, index: number): number {
    return Math.floor(this.uniform(index) * bound);
  }

  /**
   * `count` numbers from a normal distribution. Source: Box & Muller 1958.
   * @param options.mean      default 0
   * @param options.deviation standard deviation; default 1
   */
  normal(count: number, options: { readonly mean?: number; readonly deviation?: number } = {}): Float32Array {
    const { mean = 0, deviation = 1 } = options;
    const values = new Float32Array(count);
    for (let i = 0; i < count; i += 4) {
      const [a, b, c, d] = this.#words(i / 4);
      const [first, second] = boxMuller(a, b);
      const [third, fourth] = boxMuller(c, d);
      // Writing past the end does nothing.
      values[i] = mean + deviation * first;
      values[i + 1] = mean + deviation * second;
      values[i + 2] = mean + deviation * third;
      values[i + 3] = mean + deviation * fourth;
    }
    return values;
  }

  /**
   * `count` numbers uniform in [low, high).
   * @param options.low  default 0
   * @param options.high default 1
   */
  uniforms(count: number, options: { readonly low?: number; readonly high?: number } = {}): Float32Array {
    const { low = 0, high = 1 } = options;
    const values = new Float32Array(count);
    // Rounding to float32 may reach `high` itself.
    const largest = float32Below(high);
    for (let i = 0; i < count; i += 4) {
      const words = this.#words(i / 4);
      for (let j = 0; j < 4; j++) values[i + j] = Math.min(low + (high - low) * ((words[j] ?? 0) / 2 ** 32), largest);
    }
    return values;
  }
}

/** The largest float32 below a number. */
function float32Below(value: number): number {
  const rounded = Math.fround(value);
  if (rounded < value) return rounded;
  const bits = new Int32Array(Float32Array.of(rounded === 0 ? -0 : rounded).buffer);
  bits[0] = (bits[0] ?? 0) + (rounded > 0 ? -1 : 1);
  return new Float32Array(bits.buffer)[0] ?? 0;
}

function boxMuller(a: number, b: number): readonly [number, number] {
  // The first is moved off zero, whose logarithm is infinite.
  const radius = Math.sqrt(-2 * Math.log((a + 1) / 2 ** 32));
  const angle = (2 * Math.PI * b) / 2 ** 32;
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}
