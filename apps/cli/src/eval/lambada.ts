// LAMBADA: the last word of a passage, which needs the whole passage to guess.
// Source of the protocol: tlstngud/sisa-experiment's run_bench_original.py; Paperno et al. 2016, arXiv:1606.06031.
import { DataError } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import type { Scorer } from "./scorer.ts";

export interface LastWordItem {
  readonly ids: readonly number[];
  /** How many of the last ids are the word. */
  readonly wordLength: number;
}

/**
 * Items from the lines of a JSONL file, `{"text": "..."}` each.
 * Context and last word are encoded apart, and what does not fit is cut from the left.
 *
 * @param location for messages
 * @throws DataError for a line of another form
 */
export function lastWordItems(jsonl: string, tokenizer: Tokenizer, longest: number, location: string): LastWordItem[] {
  const lines = jsonl.split("\n");
  return lines.flatMap((line, index) => {
    if (line.trim() === "") return [];
    const text = textOf(line);
    const cut = text?.lastIndexOf(" ") ?? -1;
    if (text === undefined || cut < 1) {
      throw new DataError(
        `${location}: line ${index + 1}: expected {"text": "several words"}, got ${line.slice(0, 60)}`,
      );
    }
    const word = tokenizer.encode(text.slice(cut));
    const ids = [...tokenizer.encode(text.slice(0, cut)), ...word];
    return [{ ids: ids.slice(-longest), wordLength: Math.min(word.length, longest - 1) }];
  });
}

function textOf(line: string): string | undefined {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null && "text" in value && typeof value.text === "string") {
      return value.text;
    }
  } catch {
    // Told by the caller, with the line's number.
  }
  return undefined;
}

/** How many last words are guessed: every token of the word is the most likely one, given those before it. */
export async function scoreLastWords(
  scorer: Scorer,
  items: readonly LastWordItem[],
  onItem: (done: number) => void = () => {},
): Promise<number> {
  let correct = 0;
  for (const [index, { ids, wordLength }] of items.entries()) {
    const predicted = await scorer.predictions(ids.slice(0, -1));
    const word = ids.slice(-wordLength);
    if (word.every((id, place) => predicted.at(place - wordLength) === id)) correct++;
    onItem(index + 1);
  }
  return correct;
}
