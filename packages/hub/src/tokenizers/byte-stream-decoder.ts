// Streaming decoding where tokens are runs of bytes: exact, and a character is given out as soon as its last byte came.

import type { StreamDecoder } from "./tokenizer.ts";

/** What an id stands for: bytes that may be part of a character, or text that stands alone, such as a special token. */
export type TokenContent = Uint8Array | string;

/** A decoder over `contentOf`, which throws for unknown ids. */
export function byteStreamDecoder(contentOf: (id: number) => TokenContent): StreamDecoder {
  // Without ignoreBOM a byte order mark at the start of a text would be lost.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    push(id) {
      const content = contentOf(id);
      return typeof content === "string" ? decoder.decode() + content : decoder.decode(content, { stream: true });
    },
    flush() {
      return decoder.decode();
    },
  };
}
