// A needle in a haystack: a sentence "The secret code is ALPHA." hidden in a repeated one, and its beginning at the end.
// `niah` is the paper's (tlstngud/sisa-experiment, run_bench_original.py), drawn with Python's random numbers. `niah:grid`
// and `niah:several` are made of the same sentences and ask for the whole value, since its first token may be a mere space.
import { ConfigError, RandomStream } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { PythonRandom } from "./python-random.ts";
import { continuationRow } from "./rows.ts";
import type { RowScore, ScoredRow } from "./scorer.ts";
import { type Measures, meanOf, meansOf, type Task, type TaskItem } from "./task.ts";

const pairs: readonly [readonly [string, string], ...(readonly [string, string])[]] = [
  ["The secret code is", "ALPHA"],
  ["The password is", "BRAVO"],
  ["The answer is", "CHARLIE"],
  ["The key number is", "DELTA"],
  ["The magic word is", "ECHO"],
];

const sentence = "The quick brown fox jumps over the lazy dog. ";

/** Where the numbers of the paper's items come from. */
const paper = { contextLength: 512, items: 200, seed: 42, repeats: 50 };

export interface NeedleItem {
  readonly key: string;
  readonly value: string;
  /** Place of the needle's first token. */
  readonly position: number;
  readonly ids: readonly number[];
  /** The token that has to be the most likely one after the ids. */
  readonly answer: number;
}

/** The items of the paper. */
export function paperNeedles(tokenizer: Tokenizer): NeedleItem[] {
  const random = new PythonRandom(paper.seed);
  const fillerIds = tokenizer.encode(sentence.repeat(paper.repeats));
  return Array.from({ length: paper.items }, () => {
    const [key, value] = random.choice(pairs);
    const needle = tokenizer.encode(`${key} ${value}.`);
    const query = tokenizer.encode(` ${key}`);
    const available = paper.contextLength - needle.length - query.length - 10;
    const position = random.integer(5, Math.floor(available / 2));
    // The filler begins anew after the needle.
    const ids = [...fillerIds.slice(0, position), ...needle, ...fillerIds.slice(0, available - position), ...query];
    const [answer = 0] = tokenizer.encode(` ${value}`);
    return { key, value, position, ids: ids.slice(0, paper.contextLength), answer };
  });
}

/** How many of the paper's needles are found: the first token of the value is the most likely one. */
export function niah(tokenizer: Tokenizer, maximumLength: number): Task {
  const needles = paperNeedles(tokenizer);
  requireLength("niah", Math.max(...needles.map(({ ids }) => ids.length)), maximumLength);
  return {
    name: "niah",
    protocol: "paper (run_bench_original.py, seed 42)",
    headline: "accuracy",
    items: needles.map(({ ids, answer }) => ({
      rows: [continuationRow(ids, [answer], ids.length + 1)],
      measure: ([score]): Measures => ({ accuracy: score?.correct ?? 0 }),
    })),
    summarize: meansOf,
  };
}

function requireLength(task: string, length: number, maximumLength: number): void {
  if (length > maximumLength) {
    throw new ConfigError(`${task}: needs ${length} positions, the model has ${maximumLength}`);
  }
}

/** Whether every token of the row's value is the most likely one. */
function found(score: RowScore | undefined, row: ScoredRow): number {
  return score?.correct === row.targets.length ? 1 : 0;
}

/** Sentences with needles between them, `length` tokens in all; undefined where the needles alone are longer. */
function haystack(
  tokenizer: Tokenizer,
  needles: readonly { readonly text: string; readonly depth: number }[],
  length: number,
  firstWord: number,
): number[] | undefined {
  const encoded = needles.map(({ text, depth }) => ({ ids: tokenizer.encode(` ${text}`), depth }));
  const room = length - encoded.reduce((sum, { ids }) => sum + ids.length, 0);
  if (room < encoded.length) return undefined;
  const words = sentence.trim().split(" ");
  const piece = tokenizer.encode(` ${[...words.slice(firstWord), ...words.slice(0, firstWord)].join(" ")}`);
  const filler = Array.from({ length: room }, (_, index) => piece[index % piece.length] ?? 0);
  const ids: number[] = [];
  let taken = 0;
  for (const needle of encoded.toSorted((a, b) => a.depth - b.depth)) {
    const upTo = Math.round(needle.depth * room);
    ids.push(...filler.slice(taken, upTo), ...needle.ids);
    taken = upTo;
  }
  return [...ids, ...filler.slice(taken)];
}

/** A question at the end of a haystack, and its answer. */
interface Question {
  readonly query: readonly number[];
  readonly answer: readonly number[];
  /** Tokens that are read besides the haystack. */
  readonly length: number;
}

function questionOf(tokenizer: Tokenizer, key: string, value: string): Question {
  const query = tokenizer.encode(` ${key}`);
  const answer = tokenizer.encode(` ${value}`);
  return { query, answer, length: query.length + answer.length - 1 };
}

function ask(body: readonly number[], { query, answer }: Question): ScoredRow {
  return continuationRow([...body, ...query], answer, body.length + query.length + answer.length);
}

export interface GridOptions {
  /** Tokens of the haystacks. Default: 128, 256, 512, ... up to the model's positions. */
  readonly lengths?: readonly number[];
  /** How many depths, from the first token to right before the query. Default 5. */
  readonly depths?: number;
  /** Needles in each cell. Default 10. */
  readonly itemsPerCell?: number;
}

/** One needle at every depth of haystacks of every length, as a heat map. @throws ConfigError for lengths that do not fit */
export function niahGrid(tokenizer: Tokenizer, maximumLength: number, options: GridOptions = {}): Task {
  const { depths = 5, itemsPerCell = 10 } = options;
  const lengths = options.lengths ?? doublings(128, maximumLength);
  requireLength("niah:grid", Math.max(...lengths), maximumLength);
  const shares = Array.from({ length: depths }, (_, index) => (depths === 1 ? 0.5 : index / (depths - 1)));
  const random = new RandomStream(0, "niah:grid");
  const cells = shares.flatMap((depth) => lengths.map((length) => ({ depth, length })));
  const items = cells.flatMap(({ depth, length }, cell) =>
    Array.from({ length: itemsPerCell }, (_, index): TaskItem => {
      const [key, value] = pairs[index % pairs.length] ?? pairs[0];
      const firstWord = random.below(sentence.split(" ").length - 1, cell * itemsPerCell + index);
      const question = questionOf(tokenizer, key, value);
      const needle = { text: `${key} ${value}.`, depth };
      const body = haystack(tokenizer, [needle], length - question.length, firstWord);
      if (body === undefined) throw new ConfigError(`niah:grid: expected lengths that hold a needle, got ${length}`);
      const row = ask(body, question);
      return { rows: [row], measure: ([score]) => ({ accuracy: found(score, row) }) };
    }),
  );
  return {
    name: "niah:grid",
    protocol: `own: ${itemsPerCell} needles a cell, all tokens of the value`,
    headline: "accuracy",
    items,
    summarize(measures) {
      const values = measures.map(({ accuracy = Number.NaN }) => accuracy);
      const means = cells.map((_, cell) => meanOf(values.slice(cell * itemsPerCell, (cell + 1) * itemsPerCell)).value);
      return {
        metrics: { accuracy: meanOf(values) },
        heatMap: {
          title: "Needles found, by depth and length",
          rows: { name: "depth", values: shares.map((depth) => `${Math.round(100 * depth)} %`) },
          columns: { name: "tokens", values: lengths.map(String) },
          values: shares.map((_, row) => means.slice(row * lengths.length, (row + 1) * lengths.length)),
        },
      };
    },
  };
}

function doublings(first: number, last: number): number[] {
  const lengths: number[] = [];
  for (let length = first; length <= last; length *= 2) lengths.push(length);
  return lengths.length === 0 ? [last] : lengths;
}

export interface SeveralOptions {
  /** Tokens of a haystack. Default 512, or what the model has. */
  readonly length?: number;
  /** Needles in each, at most 5. Default 4. */
  readonly needles?: number;
  /** Haystacks. Default 50. */
  readonly items?: number;
}

/**
 * Several needles in one haystack, each asked for by itself: the others mislead. Values change hands from haystack to
 * haystack, so that a key does not tell its value.
 * @throws ConfigError for a length that does not fit
 */
export function niahSeveral(tokenizer: Tokenizer, maximumLength: number, options: SeveralOptions = {}): Task {
  const { needles = 4, items = 50, length = Math.min(512, maximumLength) } = options;
  requireLength("niah:several", length, maximumLength);
  if (!(needles >= 1 && needles <= pairs.length)) {
    throw new ConfigError(`niah:several: expected 1 to ${pairs.length} needles, got ${needles}`);
  }
  return {
    name: "niah:several",
    protocol: `own: ${needles} needles in ${length} tokens, all tokens of the value`,
    headline: "accuracy",
    items: Array.from({ length: items }, (_, item): TaskItem => {
      const random = new RandomStream(item, "niah:several");
      const keys = shuffle(
        pairs.map(([key]) => key),
        (bound, index) => random.below(bound, index),
      ).slice(0, needles);
      const values = shuffle(
        pairs.map(([, value]) => value),
        (bound, index) => random.below(bound, 16 + index),
      );
      const hidden = keys.map((key, index) => ({ key, value: values[index] ?? "", depth: random.uniform(32 + index) }));
      const texts = hidden.map(({ key, value, depth }) => ({ text: `${key} ${value}.`, depth }));
      const questions = hidden.map(({ key, value }) => questionOf(tokenizer, key, value));
      const longest = Math.max(...questions.map((question) => question.length));
      const body = haystack(tokenizer, texts, length - longest, random.below(9, 48));
      if (body === undefined) throw new ConfigError(`niah:several: ${length} tokens do not hold ${needles} needles`);
      const rows = questions.map((question) => ask(body, question));
      return {
        rows,
        measure(scores) {
          const hits = rows.map((row, index) => found(scores[index], row));
          return { accuracy: meanOf(hits).value, all: Math.min(...hits) };
        },
      };
    }),
    summarize: meansOf,
  };
}

/** A new order of items (Fisher and Yates). @param below a random whole number below a bound, by index */
function shuffle<T>(items: readonly T[], below: (bound: number, index: number) => number): T[] {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last--) {
    const other = below(last + 1, last);
    [result[last], result[other]] = [result[other] as T, result[last] as T];
  }
  return result;
}
