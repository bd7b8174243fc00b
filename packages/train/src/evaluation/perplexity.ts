// How well a model predicts text it has not seen: nats a token, and bits a byte, which compares across tokenizers.
import { DataError } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import type { TextDocument } from "../data/text-documents.ts";
import type { TokenSource } from "../data/training-data.ts";
import { rowFrom } from "./rows.ts";
import type { ScoredRow } from "./scorer.ts";
import { type Measures, ratioOf, type Task, type TaskItem, transformed } from "./task.ts";

export interface PerplexityOptions {
  /** Tokens of a window; every window begins without context. */
  readonly sequenceLength: number;
  /** Stops after so many tokens. Default: all. */
  readonly mostTokens?: number;
}

/**
 * The loss over all tokens of a source but the first, in windows side by side; the last one may be shorter.
 *
 * @param tokenizer counts the bytes of the tokens; without it there are no bits a byte
 * @throws DataError below two tokens
 */
export async function perplexity(
  source: TokenSource,
  tokenizer: Tokenizer | undefined,
  { sequenceLength, mostTokens = Number.POSITIVE_INFINITY }: PerplexityOptions,
): Promise<Task> {
  const tokens = Math.min(source.length - 1, mostTokens);
  if (tokens < 1) throw new DataError(`perplexity: expected at least 2 tokens of text, got ${source.length}`);
  const decoder = tokenizer?.streamDecoder();
  const items: TaskItem[] = [];
  for (let start = 0; start < tokens; start += sequenceLength) {
    const ids = await source.read(start, Math.min(sequenceLength, tokens - start) + 1);
    let bytes = 0;
    // End-of-text stands for no byte of the text.
    for (const id of ids.subarray(1)) if (id !== tokenizer?.endOfText) bytes += bytesOf(decoder?.push(id));
    if (start + sequenceLength >= tokens) bytes += bytesOf(decoder?.flush());
    items.push(textItem([rowFrom(ids, 1)], { bytes }));
  }
  return {
    name: "perplexity",
    protocol: `own: windows of ${sequenceLength} tokens, each without context`,
    headline: "perplexity",
    items,
    summarize(measures) {
      const column = columnOf(measures);
      const loss = ratioOf(column("nats"), column("tokens"));
      const bytes = column("bytes");
      return {
        metrics: {
          loss,
          perplexity: transformed(loss, Math.exp, Math.exp),
          ...(bytes.some((count) => count > 0) ? { bitsPerByte: bits(ratioOf(column("nats"), bytes)) } : {}),
        },
      };
    },
  };
}

/**
 * lm-evaluation-harness's rule for perplexity (`loglikelihood_rolling`): every token of a document is predicted once, the
 * first after end-of-text, in windows of all positions that the model has; the last window reaches back to be full.
 * Its `wikitext` is this on WikiText-2's raw pages.
 *
 * @throws DataError without documents, or without an end-of-text token
 */
export function perplexityHarness(
  documents: readonly TextDocument[],
  tokenizer: Tokenizer,
  maximumLength: number,
): Task {
  const { endOfText } = tokenizer;
  if (endOfText === undefined) {
    throw new DataError(
      "perplexity:harness: expected a tokenizer with an end-of-text token to begin with, it has none",
    );
  }
  const items = documents.flatMap(({ text }) => {
    const ids = tokenizer.encode(text);
    if (ids.length === 0) return [];
    const bytes = bytesOf(text);
    const words = text.split(/\s+/).length;
    return [textItem(rollingRows([endOfText, ...ids], maximumLength), { bytes, words })];
  });
  if (items.length === 0) throw new DataError("perplexity:harness: expected documents, got none that hold text");
  return {
    name: "perplexity:harness",
    protocol: "lm-evaluation-harness 0.4 (loglikelihood_rolling)",
    headline: "bits_per_byte",
    items,
    summarize(measures) {
      const column = columnOf(measures);
      const byWord = ratioOf(column("nats"), column("words"));
      const byByte = ratioOf(column("nats"), column("bytes"));
      return {
        metrics: {
          word_perplexity: transformed(byWord, Math.exp, Math.exp),
          byte_perplexity: transformed(byByte, Math.exp, Math.exp),
          bits_per_byte: bits(byByte),
        },
      };
    },
  };
}

/** @param ids the first is context only */
function rollingRows(ids: readonly number[], maximumLength: number): ScoredRow[] {
  const rows: ScoredRow[] = [];
  for (let done = 1; done < ids.length; ) {
    const end = Math.min(done + maximumLength, ids.length);
    const start = Math.max(0, end - maximumLength - 1);
    rows.push(rowFrom(ids.slice(start, end), done - start));
    done = end;
  }
  return rows;
}

function textItem(rows: readonly ScoredRow[], sizes: Measures): TaskItem {
  const tokens = rows.reduce((sum, row) => sum + row.targets.length, 0);
  return {
    rows,
    measure: (scores) => ({ nats: -scores.reduce((sum, score) => sum + score.logProbability, 0), tokens, ...sizes }),
  };
}

const columnOf =
  (measures: readonly Measures[]) =>
  (name: string): number[] =>
    measures.map((measure) => measure[name] ?? 0);

const bits = (nats: ReturnType<typeof ratioOf>) =>
  transformed(
    nats,
    (value) => value / Math.LN2,
    () => 1 / Math.LN2,
  );

/** Bytes in UTF-8. U+FFFD stands for a byte that is part of no character here, and counts one. */
function bytesOf(text = ""): number {
  return new TextEncoder().encode(text.replaceAll("\ufffd", "?")).length;
}
