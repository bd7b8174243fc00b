// Ends a stream of text before the first of some texts, and never shows a part of one.

/** Finds stop texts in a stream, however they are cut into pieces, and holds back what may still become one. */
export class StopMatcher {
  readonly #stops: readonly string[];
  /** Text that may be the beginning of a stop. */
  #held = "";
  #stopped = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** True once a stop was seen; what comes after it is dropped. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Text that can be shown now that this has come. */
  push(text: string): string {
    if (this.#stopped) return "";
    this.#held += text;
    const places = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((place) => place >= 0);
    if (places.length > 0) {
      this.#stopped = true;
      const shown = this.#held.slice(0, Math.min(...places));
      this.#held = "";
      return shown;
    }
    const shown = this.#held.slice(0, this.#held.length - this.#beginning());
    this.#held = this.#held.slice(shown.length);
    return shown;
  }

  /** Length of the longest end of the held text that begins a stop. */
  #beginning(): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.#held.length); length > 0; length--) {
      const end = this.#held.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }

  /** What is held, at the end of the text. */
  flush(): string {
    const shown = this.#held;
    this.#held = "";
    return shown;
  }
}
