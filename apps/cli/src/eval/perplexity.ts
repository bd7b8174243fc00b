// How well a model predicts text it has not seen: nats a token, and bits a byte, which compares across tokenizers.
import { DataError } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import type { TokenSource } from "@sisa/train";
import type { Scorer } from "./scorer.ts";

export interface PerplexityOptions {
  /** Tokens of a window; every window begins without context. */
  readonly sequenceLength: number;
  /** Windows at once. Default 8. */
  readonly rows?: number;
  /** Stops after so many tokens. Default: all. */
  readonly mostTokens?: number;
  readonly onTokens?: (done: number, all: number) => void;
}

export interface Perplexity {
  /** Tokens that were predicted. */
  readonly tokens: number;
  /** Nats a token. */
  readonly loss: number;
  readonly perplexity: number;
  /** Absent where nobody knows the bytes of a token. */
  readonly bitsPerByte?: number;
}

/**
 * The mean loss over all tokens of a source but the first, in windows side by side; the last one may be shorter.
 * @throws DataError below two tokens
 */
export async function measurePerplexity(
  scorer: Scorer,
  source: TokenSource,
  tokenizer: Tokenizer | undefined,
  options: PerplexityOptions,
): Promise<Perplexity> {
  const { sequenceLength, rows = 8, mostTokens = Number.POSITIVE_INFINITY, onTokens } = options;
  const tokens = Math.min(source.length - 1, mostTokens);
  if (tokens < 1) throw new DataError(`perplexity: expected at least 2 tokens of text, got ${source.length}`);
  let nats = 0;
  let bytes = 0;
  const decoder = tokenizer?.streamDecoder();
  for (let start = 0; start < tokens; ) {
    const whole = Math.floor((tokens - start) / sequenceLength);
    const count = Math.max(1, Math.min(rows, whole));
    const length = whole === 0 ? tokens - start : sequenceLength;
    const ids = await source.read(start, count * length + 1);
    const targets = ids.slice(1);
    nats += (await scorer.loss(ids.slice(0, -1), targets, count)) * count * length;
    for (const id of targets) {
      // End-of-text stands for no byte of the text.
      if (id !== tokenizer?.endOfText) bytes += bytesOf(decoder?.push(id));
    }
    start += count * length;
    onTokens?.(start, tokens);
  }
  bytes += bytesOf(decoder?.flush());
  const loss = nats / tokens;
  const result = { tokens, loss, perplexity: Math.exp(loss) };
  return bytes === 0 ? result : { ...result, bitsPerByte: nats / Math.LN2 / bytes };
}

/** Bytes in UTF-8. */
function bytesOf(text = ""): number {
  return Buffer.byteLength(text);
}
