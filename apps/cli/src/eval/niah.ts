// A needle in a haystack: a sentence "The secret code is ALPHA." hidden in a repeated one, and its beginning at the end.
// The items are those of tlstngud/sisa-experiment's run_bench_original.py, drawn with Python's random numbers.
import type { Tokenizer } from "@sisa/hub";
import { PythonRandom } from "./python-random.ts";
import type { Scorer } from "./scorer.ts";

const contextLength = 512;
const itemCount = 200;
const seed = 42;

const pairs: readonly [readonly [string, string], ...(readonly [string, string])[]] = [
  ["The secret code is", "ALPHA"],
  ["The password is", "BRAVO"],
  ["The answer is", "CHARLIE"],
  ["The key number is", "DELTA"],
  ["The magic word is", "ECHO"],
];

const filler = "The quick brown fox jumps over the lazy dog. ".repeat(50);

export interface NeedleItem {
  readonly key: string;
  readonly value: string;
  /** Place of the needle's first token. */
  readonly position: number;
  readonly ids: readonly number[];
  /** The token that has to be the most likely one after the ids. */
  readonly answer: number;
}

/** The items of the protocol. */
export function needleItems(tokenizer: Tokenizer): NeedleItem[] {
  const random = new PythonRandom(seed);
  const fillerIds = tokenizer.encode(filler);
  return Array.from({ length: itemCount }, () => {
    const [key, value] = random.choice(pairs);
    const needle = tokenizer.encode(`${key} ${value}.`);
    const query = tokenizer.encode(` ${key}`);
    const available = contextLength - needle.length - query.length - 10;
    const position = random.integer(5, Math.floor(available / 2));
    // The filler begins anew after the needle.
    const ids = [...fillerIds.slice(0, position), ...needle, ...fillerIds.slice(0, available - position), ...query];
    const [answer = 0] = tokenizer.encode(` ${value}`);
    return { key, value, position, ids: ids.slice(0, contextLength), answer };
  });
}

/** How many of the needles are found: the first token of the value is the most likely one. */
export async function scoreNeedles(
  scorer: Scorer,
  items: readonly NeedleItem[],
  onItem: (done: number) => void = () => {},
): Promise<number> {
  let correct = 0;
  for (const [index, { ids, answer }] of items.entries()) {
    const predicted = await scorer.predictions(ids);
    if (predicted.at(-1) === answer) correct++;
    onItem(index + 1);
  }
  return correct;
}
