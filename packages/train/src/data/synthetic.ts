// Sequences made by rule, to train on and to be measured by: associative recall, and parity. Every sequence is a function
// of its number, so nothing is stored and a run never sees one twice.
import { ConfigError, RandomStream } from "@sisa/core";
import type { TokenSource, TrainingData } from "./training-data.ts";

/** What a model may be taught by rule. */
export type SyntheticKind = "mqar" | "parity";

/** One sequence: what is read, and what should be said after each token. */
export interface SyntheticSequence {
  readonly ids: Int32Array;
  readonly targets: Int32Array;
}

/** Which sequences are made by rule. */
export interface SyntheticShape {
  /** The rule: recall of pairs, or parity of bits. */
  readonly kind: SyntheticKind;
  /** Tokens of a sequence; for mqar a multiple of 4. */
  readonly length: number;
  /** mqar: keys are the lower half of the ids, values the upper half. parity uses ids 0 and 1. */
  readonly vocabularySize: number;
}

/** Token ids that a kind has where nothing else is said. */
export const syntheticVocabulary: Readonly<Record<SyntheticKind, number>> = { mqar: 256, parity: 2 };

/** Which sequences: those to train on, those held out, and those of evaluations have nothing in common. */
export type SyntheticPart = "training" | "held-out" | "evaluation";

const sequenceCounts = { training: 2 ** 24, "held-out": 2 ** 12 };

/** @throws ConfigError where a sequence of the length cannot be made */
export function checkSynthetic({ kind, length, vocabularySize }: SyntheticShape): void {
  if (kind === "parity") return;
  if (length % 4 !== 0) {
    throw new ConfigError(
      `mqar: expected a sequence length that is a multiple of 4, two tokens to show a pair and two to ask, got ${length}`,
    );
  }
  if (vocabularySize < length / 2) {
    throw new ConfigError(
      `mqar: ${length / 4} different keys and as many values need a vocabulary of ${length / 2}, got ${vocabularySize}`,
    );
  }
}

/**
 * Sequence `index` of a part.
 *
 * mqar (multi-query associative recall, Arora et al. 2023, arXiv:2312.04927): n pairs of a key and a value, then every key
 * once more in random order, each followed by its value; 4 n tokens. Keys differ from each other. After a key its value should
 * be said, and after a value that value again: only the second half can be known, and is what counts.
 *
 * parity (as in the paper's code, eval/parity.py): random bits; after each, whether the ones so far are odd in number.
 */
export function syntheticSequence(shape: SyntheticShape, part: SyntheticPart, index: number): SyntheticSequence {
  const random = new RandomStream(index, `${shape.kind} ${part}`);
  return shape.kind === "mqar" ? mqarSequence(shape, random) : paritySequence(shape, random);
}

function mqarSequence({ length, vocabularySize }: SyntheticShape, random: RandomStream): SyntheticSequence {
  const pairs = length / 4;
  const keyCount = Math.floor(vocabularySize / 2);
  let drawn = 0;
  const keys = new Set<number>();
  while (keys.size < pairs) keys.add(random.below(keyCount, drawn++));
  const shown = [...keys].map((key) => [key, keyCount + random.below(vocabularySize - keyCount, drawn++)] as const);
  const asked = [...shown];
  for (let last = pairs - 1; last > 0; last--) {
    const other = random.below(last + 1, drawn++);
    [asked[last], asked[other]] = [asked[other] ?? [0, 0], asked[last] ?? [0, 0]];
  }
  const ids = Int32Array.from([...shown, ...asked].flat());
  // Which key comes next is nothing that could be known, so that a value is followed by itself.
  return { ids, targets: ids.map((id, place) => (place % 2 === 0 ? (ids[place + 1] ?? 0) : id)) };
}

function paritySequence({ length }: SyntheticShape, random: RandomStream): SyntheticSequence {
  const ids = Int32Array.from({ length }, (_, place) => random.below(2, place));
  let odd = 0;
  return { ids, targets: ids.map((bit) => (odd ^= bit)) };
}

/** Places of an mqar sequence after which a value is asked for. */
export function mqarPlaces({ length }: SyntheticShape): Int32Array {
  return Int32Array.from({ length: length / 4 }, (_, query) => length / 2 + 2 * query);
}

/**
 * Sequences as training data. Training has to cut them where they end: with `sequenceLength` equal to `length`.
 * @throws ConfigError where a sequence of the length cannot be made
 */
export function syntheticData(shape: SyntheticShape): TrainingData {
  checkSynthetic(shape);
  const { kind, length, vocabularySize } = shape;
  return {
    training: syntheticSource(shape, "training"),
    heldOut: syntheticSource(shape, "held-out"),
    vocabularySize,
    fingerprint: `${kind} ${length} ${vocabularySize}`,
    description: {
      name: `${kind}, made by rule`,
      documents: sequenceCounts.training,
      split: "stored",
      skippedFiles: 0,
    },
  };
}

function syntheticSource(shape: SyntheticShape, part: "training" | "held-out"): TokenSource {
  const read = (name: keyof SyntheticSequence, start: number, count: number): Int32Array => {
    const result = new Int32Array(count);
    for (let done = 0; done < count; ) {
      const at = start + done;
      const sequence = syntheticSequence(shape, part, Math.floor(at / shape.length))[name];
      const piece = sequence.subarray(at % shape.length).subarray(0, count - done);
      result.set(piece, done);
      done += piece.length;
    }
    return result;
  };
  return {
    // One more, so that the last sequence is whole with the token after it.
    length: sequenceCounts[part] * shape.length + 1,
    read: (start, count) => read("ids", start, count),
    readTargets: (start, count) => read("targets", start, count),
  };
}
