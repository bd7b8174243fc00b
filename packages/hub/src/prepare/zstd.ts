// Streaming decompression of .zst on every version of Node, by the zstd library compiled to WebAssembly. Windows of up
// to 128 MiB are accepted, as `zstd --long=27` makes them; memory is the window and one chunk.

import { ZSTDDecoder } from "zstddec/stream";

/**
 * Calls in a row that may give no output. A sound call ends its chunk, fills the output, or ends a frame, so there are
 * many only where a chunk has as many empty frames; where data are damaged the library would repeat the call for ever.
 */
const maximumIdleCalls = 1024;

/**
 * The content of a .zst file, chunk by chunk.
 * @throws Error where it is not zstd, damaged or cut short
 */
export async function* decompressZstd(compressed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const library = new ZSTDDecoder();
  await library.init();
  // The library pulls its input synchronously, one chunk at a time; the next one is fetched before it asks.
  const source = compressed[Symbol.asyncIterator]();
  const feed = new Feed();
  const output = library.decodeStreaming(feed);
  try {
    for (let idle = 0; ; ) {
      if (feed.isEmpty) {
        const next = await source.next();
        feed.offer(next.done ? undefined : next.value);
        idle = 0;
      }
      const { value, done } = output.next();
      if (done) return;
      if (value.length > 0) {
        idle = 0;
        yield value;
      } else if (++idle > maximumIdleCalls) {
        throw new Error("the data are damaged");
      }
    }
  } finally {
    await source.return?.();
  }
}

/** Holds the one chunk that the library takes next. */
class Feed implements Iterable<Uint8Array> {
  #chunk: Uint8Array | undefined;
  #isOver = false;

  get isEmpty(): boolean {
    return this.#chunk === undefined && !this.#isOver;
  }

  offer(chunk: Uint8Array | undefined): void {
    this.#chunk = chunk;
    this.#isOver = chunk === undefined;
  }

  *[Symbol.iterator](): Generator<Uint8Array> {
    while (!this.#isOver) {
      const chunk = this.#chunk;
      if (chunk === undefined) throw new Error("the zstd library asked for input before it was there");
      this.#chunk = undefined;
      yield chunk;
    }
  }
}
