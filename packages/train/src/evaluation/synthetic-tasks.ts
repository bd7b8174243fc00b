// Associative recall and parity as tasks: sequences that training has not seen.
import { checkSynthetic, mqarPlaces, type SyntheticShape, syntheticSequence } from "../data/synthetic.ts";
import { type Measures, meansOf, type Task, type TaskItem } from "./task.ts";

export interface SyntheticOptions {
  /** Tokens of a sequence; default 64. */
  readonly length?: number;
  readonly vocabularySize: number;
  /** Sequences. Default 200. */
  readonly items?: number;
}

/** The share of values that are recalled, and of sequences in which all are. @throws ConfigError */
export function mqar({ length = 64, vocabularySize, items = 200 }: SyntheticOptions): Task {
  const shape: SyntheticShape = { kind: "mqar", length, vocabularySize };
  checkSynthetic(shape);
  const places = mqarPlaces(shape);
  return {
    name: "mqar",
    protocol: `own: multi-query associative recall, ${places.length} pairs in ${length} tokens (arXiv:2312.04927)`,
    headline: "accuracy",
    items: Array.from({ length: items }, (_, index): TaskItem => {
      const { ids, targets } = syntheticSequence(shape, "evaluation", index);
      return {
        rows: [{ ids, places, targets: places.map((place) => targets[place] ?? 0) }],
        measure: ([score]): Measures => {
          const correct = score?.correct ?? 0;
          return { accuracy: correct / places.length, all: correct === places.length ? 1 : 0 };
        },
      };
    }),
    summarize: meansOf,
  };
}

/** The share of places whose parity is right, and of sequences where the last one is. */
export function parity({ length = 64, vocabularySize, items = 200 }: SyntheticOptions): Task {
  const shape: SyntheticShape = { kind: "parity", length, vocabularySize };
  const all = Int32Array.from({ length }, (_, place) => place);
  const last = Int32Array.of(length - 1);
  return {
    name: "parity",
    protocol: `own: parity of ${length} bits, over the whole vocabulary`,
    headline: "accuracy",
    items: Array.from({ length: items }, (_, index): TaskItem => {
      const { ids, targets } = syntheticSequence(shape, "evaluation", index);
      return {
        rows: [
          { ids, places: all, targets },
          { ids, places: last, targets: targets.subarray(-1) },
        ],
        measure: ([everywhere, atEnd]): Measures => ({
          accuracy: (everywhere?.correct ?? 0) / length,
          last: atEnd?.correct ?? 0,
        }),
      };
    }),
    summarize: meansOf,
  };
}
