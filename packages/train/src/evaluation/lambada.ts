// LAMBADA: the last word of a passage, which needs the whole passage to guess.
// Sources: Paperno et al. 2016, arXiv:1606.06031; tlstngud/sisa-experiment, run_bench_original.py; lm-evaluation-harness
// 0.4, task lambada_openai.
import type { Tokenizer } from "@sisa/hub";
import { type ItemFile, isText, readItems } from "./json-lines.ts";
import { harnessRow, paperRow } from "./rows.ts";
import { type Measures, meanOf, meansOf, type Task, transformed } from "./task.ts";

interface Passage {
  readonly context: string;
  /** With the space before it. */
  readonly word: string;
}

function readPassages(file: ItemFile): Passage[] {
  return readItems(file, '{"text": "several words"}', ({ text }) => {
    if (!isText(text)) return undefined;
    const cut = text.lastIndexOf(" ");
    return cut < 1 ? undefined : { context: text.slice(0, cut), word: text.slice(cut) };
  });
}

/** The paper's: the share of passages whose last word is guessed, each token of it given those before. */
export function lambada(file: ItemFile, tokenizer: Tokenizer, maximumLength: number): Task {
  return {
    name: "lambada",
    protocol: "paper (run_bench_original.py)",
    headline: "accuracy",
    items: readPassages(file).map(({ context, word }) => {
      const row = paperRow(tokenizer, context, word, maximumLength);
      return {
        rows: [row],
        measure: ([score]): Measures => ({ accuracy: score?.correct === row.targets.length ? 1 : 0 }),
      };
    }),
    summarize: meansOf,
  };
}

/** lambada_openai: the same share, with context and word encoded together, and the perplexity of the word. */
export function lambadaHarness(file: ItemFile, tokenizer: Tokenizer, maximumLength: number): Task {
  return {
    name: "lambada:harness",
    protocol: "lm-evaluation-harness 0.4 (lambada_openai)",
    headline: "acc",
    items: readPassages(file).map(({ context, word }) => {
      const row = harnessRow(tokenizer, context, word, maximumLength);
      return {
        rows: [row],
        measure: ([score]): Measures => ({
          acc: score?.correct === row.targets.length ? 1 : 0,
          logProbability: score?.logProbability ?? Number.NaN,
        }),
      };
    }),
    summarize(measures) {
      const nats = meanOf(measures.map(({ logProbability = Number.NaN }) => -logProbability));
      return {
        metrics: {
          acc: meanOf(measures.map(({ acc = Number.NaN }) => acc)),
          perplexity: transformed(nats, Math.exp, Math.exp),
        },
      };
    },
  };
}
