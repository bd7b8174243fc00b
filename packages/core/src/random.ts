// Random numbers by counter: value i of a stream depends on the seed, the stream's name and i alone, so that they are the
// same on every backend, in any order, and after a resume. Made on the host; backends get them as inputs.

const multiplierA = 0xd2511f53;
const multiplierB = 0xcd9e8d57;
const keyStepA = 0x9e3779b9;
const keyStepB = 0xbb67ae85;

/**
 * Philox-4x32-10: four random words from a 64-bit key and a 128-bit counter, the upper half of which is 0 here.
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
export function philox(key: readonly [number, number], counter: number): readonly [number, number, number, number] {
  let [k0, k1] = key;
  let x0 = counter >>> 0;
  let x1 = Math.floor(counter / 2 ** 32) >>> 0;
  let x2 = 0;
  let x3 = 0;
  for (let round = 0; round < 10; round++) {
    const a = multiply(multiplierA, x0);
    const b = multiply(multiplierB, x2);
    x0 = (b.high ^ x1 ^ k0) >>> 0;
    x2 = (a.high ^ x3 ^ k1) >>> 0;
    x1 = b.low;
    x3 = a.low;
    k0 = (k0 + keyStepA) >>> 0;
    k1 = (k1 + keyStepB) >>> 0;
  }
  return [x0, x1, x2, x3];
}

/** 32 x 32 bits to 64, in halves. */
function multiply(a: number, b: number): { readonly high: number; readonly low: number } {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middle = aHigh * bLow + Math.floor(low / 65536);
  const cross = aLow * bHigh + (middle % 65536);
  const high = aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(cross / 65536);
  return { high: high >>> 0, low: Math.imul(a, b) >>> 0 };
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

  /** Number `index` of the stream, uniform in [0, 1), a multiple of 2^-32. */
  uniform(index: number): number {
    return (philox(this.#key, Math.floor(index / 4))[index % 4] ?? 0) / 2 ** 32;
  }

  /** Whole number `index` of the stream, uniform from 0 to below `bound` (at most 2^32). */
  below(bound: number, index: number): number {
    return Math.floor(this.uniform(index) * bound);
  }

  /** `count` numbers from a normal distribution. Source: Box & Muller 1958. */
  normal(
    count: number,
    { mean = 0, deviation = 1 }: { readonly mean?: number; readonly deviation?: number } = {},
  ): Float32Array {
    const values = new Float32Array(count);
    for (let i = 0; i < count; i += 4) {
      const [a, b, c, d] = philox(this.#key, i / 4);
      const pairs = [...boxMuller(a, b), ...boxMuller(c, d)];
      for (let j = 0; j < 4 && i + j < count; j++) values[i + j] = mean + deviation * (pairs[j] ?? 0);
    }
    return values;
  }

  /** `count` numbers uniform in [low, high). */
  uniforms(count: number, { low = 0, high = 1 }: { readonly low?: number; readonly high?: number } = {}): Float32Array {
    return Float32Array.from({ length: count }, (_, index) => low + (high - low) * this.uniform(index));
  }
}

function boxMuller(a: number, b: number): readonly [number, number] {
  // The first is moved off zero, whose logarithm is infinite.
  const radius = Math.sqrt(-2 * Math.log((a + 1) / 2 ** 32));
  const angle = (2 * Math.PI * b) / 2 ** 32;
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}
