// Ids collected in as few bytes as their vocabulary allows.

export type TokenDType = "uint16" | "uint32";
export type TokenArray = Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** uint16 where every id of a tokenizer of this size fits into it. */
export function tokenDTypeFor(tokenizerSize: number): TokenDType {
  return tokenizerSize <= 2 ** 16 ? "uint16" : "uint32";
}

/** A row of ids that grows by doubling. */
export class TokenBuffer {
  #ids: TokenArray;
  #length = 0;

  constructor(dtype: TokenDType) {
    this.#ids = dtype === "uint16" ? new Uint16Array(4096) : new Uint32Array(4096);
  }

  get length(): number {
    return this.#length;
  }

  /** The ids collected so far, in place: valid until the next change. */
  get ids(): TokenArray {
    return this.#ids.subarray(0, this.#length);
  }

  /** Adds ids from `start` up to `end` of a list. */
  append(ids: ArrayLike<number>, start = 0, end = ids.length): void {
    const length = this.#length + end - start;
    if (length > this.#ids.length) {
      const size = Math.max(length, 2 * this.#ids.length);
      const larger = this.#ids instanceof Uint16Array ? new Uint16Array(size) : new Uint32Array(size);
      larger.set(this.ids);
      this.#ids = larger;
    }
    for (let index = start; index < end; index++) this.#ids[this.#length + index - start] = ids[index] ?? 0;
    this.#length = length;
  }

  clear(): void {
    this.#length = 0;
  }
}
