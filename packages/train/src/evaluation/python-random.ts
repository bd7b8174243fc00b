// The part of Python's `random` that published protocols draw from, so that their items can be made again bit for bit.
// Sources: Matsumoto & Nishimura 1998 (MT19937, init_by_array); CPython's Lib/random.py and Modules/_randommodule.c.

const size = 624;
const shift = 397;

/** `random.Random(seed)` of Python 3.2 and later, for seeds below 2^32. */
export class PythonRandom {
  readonly #state: Uint32Array;
  #index = size;

  constructor(seed: number) {
    this.#state = seeded(seed);
  }

  /** 32 random bits. */
  #next(): number {
    if (this.#index >= size) this.#twist();
    let y = this.#state[this.#index++] ?? 0;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  #twist(): void {
    const state = this.#state;
    const at = (index: number): number => state[index % size] ?? 0;
    for (let i = 0; i < size; i++) {
      const y = (at(i) & 0x80000000) | (at(i + 1) & 0x7fffffff);
      state[i] = at(i + shift) ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#index = 0;
  }

  /** `_randbelow`: as many bits as the bound has, drawn again while they are too large. */
  #below(bound: number): number {
    const bits = 32 - Math.clz32(bound);
    for (;;) {
      const value = this.#next() >>> (32 - bits);
      if (value < bound) return value;
    }
  }

  /** `random.choice`. @param items not empty */
  choice<T>(items: readonly [T, ...T[]]): T {
    return items[this.#below(items.length)] ?? items[0];
  }

  /** `random.randint`: a whole number from `low` to `high`, both possible. */
  integer(low: number, high: number): number {
    return low + this.#below(high - low + 1);
  }
}

/** State after init_by_array([seed]). */
function seeded(seed: number): Uint32Array {
  const state = new Uint32Array(size);
  const at = (index: number): number => state[index] ?? 0;
  const mixed = (index: number): number => at(index - 1) ^ (at(index - 1) >>> 30);
  state[0] = 19650218;
  for (let i = 1; i < size; i++) state[i] = Math.imul(1812433253, mixed(i)) + i;
  let index = 1;
  const advance = (): void => {
    index++;
    if (index < size) return;
    state[0] = at(size - 1);
    index = 1;
  };
  for (let count = 0; count < size; count++) {
    state[index] = (at(index) ^ Math.imul(mixed(index), 1664525)) + seed;
    advance();
  }
  for (let count = 0; count < size - 1; count++) {
    state[index] = (at(index) ^ Math.imul(mixed(index), 1566083941)) - index;
    advance();
  }
  state[0] = 0x80000000;
  return state;
}
