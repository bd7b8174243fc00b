// Streaming decoding for tokenizers that are not byte-level: their decoders work on whole lists (they drop a first
// space, join bytes), so text is found as the difference that an id makes to the text of the ids before it.

import { checkId, type StreamDecoder } from "./tokenizer.ts";

/** A decoder over the decoding of whole lists. */
export function textDifferenceDecoder(decode: (ids: number[]) => string, size: number): StreamDecoder {
  // The ids of the last text given out, as context, then those whose text is still held back.
  let ids: number[] = [];
  let contextLength = 0;

  function take(): string {
    const text = decode(ids).slice(decode(ids.slice(0, contextLength)).length);
    ids = ids.slice(contextLength);
    contextLength = ids.length;
    return text;
  }

  return {
    push(id) {
      checkId(id, size);
      ids.push(id);
      // An unfinished character decodes to U+FFFD. Where the text really has one, it comes with the next id.
      return decode(ids).endsWith("\ufffd") ? "" : take();
    },
    flush() {
      const text = take();
      ids = [];
      contextLength = 0;
      return text;
    },
  };
}
