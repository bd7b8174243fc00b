// Questions with several answers, of which a model takes the most likely one: HellaSwag, ARC, PIQA, WinoGrande.
// Sources: tlstngud/sisa-experiment, run_bench_original.py; lm-evaluation-harness 0.4, tasks hellaswag, arc_easy, piqa,
// winogrande, and `process_results` of api/task.py.
import { DataError } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { areTexts, type ItemFile, indexBelow, isText, readItems } from "./json-lines.ts";
import { harnessRow, paperRow, rowFrom } from "./rows.ts";
import type { RowScore, ScoredRow } from "./scorer.ts";
import { type Measures, meansOf, type Task, type TaskItem } from "./task.ts";

const paper = "paper (run_bench_original.py)";
const harness = (task: string): string => `lm-evaluation-harness 0.4 (${task})`;

/** Place of the largest value; the first of equal ones. */
function largest(values: readonly number[]): number {
  return values.indexOf(Math.max(...values));
}

/** The paper's rule: the answer with the largest log-probability a token. */
function paperItem(rows: readonly ScoredRow[], label: number, lengths: readonly number[]): TaskItem {
  return {
    rows,
    measure(scores: readonly RowScore[]): Measures {
      const means = scores.map(({ logProbability }, index) => logProbability / Math.max(1, lengths[index] ?? 1));
      return { accuracy: largest(means) === label ? 1 : 0 };
    },
  };
}

/**
 * The harness's rule: `acc` takes the largest log-probability, `acc_norm` the largest a character of the answer. It counts
 * characters (code points), without the space before the answer.
 */
function harnessItem(rows: readonly ScoredRow[], label: number, answers?: readonly string[]): TaskItem {
  return {
    rows,
    measure(scores: readonly RowScore[]): Measures {
      const sums = scores.map(({ logProbability }) => logProbability);
      const acc = largest(sums) === label ? 1 : 0;
      if (answers === undefined) return { acc };
      const means = sums.map((sum, index) => sum / [...(answers[index] ?? "")].length);
      return { acc, acc_norm: largest(means) === label ? 1 : 0 };
    },
  };
}

/** The builder of a task out of its items. */
type Build = (file: ItemFile, tokenizer: Tokenizer, maximumLength: number) => Task;

const targetLengths = (rows: readonly ScoredRow[]): number[] => rows.map((row) => row.targets.length);

// HellaSwag: a described scene and four ways to go on. Zellers et al. 2019, arXiv:1905.07830.

interface Scene {
  readonly context: string;
  /** With the activity before it, and the second part beginning with a capital. */
  readonly query: string | undefined;
  readonly endings: readonly string[];
  readonly label: number;
}

function readScenes(file: ItemFile): Scene[] {
  const expected = '{"activity_label", "ctx", "ctx_a" and "ctx_b", "endings": [...], "label"} of HellaSwag';
  return readItems(file, expected, ({ activity_label, ctx, ctx_a, ctx_b, ctx_cap, endings, label }) => {
    const gold = areTexts(endings) ? indexBelow(endings.length, label) : undefined;
    if (!isText(ctx) || !areTexts(endings) || gold === undefined) return undefined;
    const whole = isText(ctx_a) && isText(ctx_b) ? `${ctx_a} ${capitalized(ctx_b)}` : ctx_cap;
    const query = isText(activity_label) && isText(whole) ? cleaned(`${activity_label}: ${whole}`) : undefined;
    return { context: ctx, query, endings, label: gold };
  });
}

/** As Python's str.capitalize. */
function capitalized(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase();
}

/** Without the marks that the WikiHow part of the set holds. */
function cleaned(text: string): string {
  return text
    .trim()
    .replaceAll(" [title]", ". ")
    .replace(/\[.*?\]/g, "")
    .replaceAll("  ", " ");
}

/** The paper's: context and ending joined without a space, as its script does. */
export const hellaswag: Build = (file, tokenizer, maximumLength) => ({
  name: "hellaswag",
  protocol: paper,
  headline: "accuracy",
  items: readScenes(file).map(({ context, endings, label }) => {
    const rows = endings.map((ending) => paperRow(tokenizer, context, ending, maximumLength));
    return paperItem(rows, label, targetLengths(rows));
  }),
  summarize: meansOf,
});

export const hellaswagHarness: Build = (file, tokenizer, maximumLength) => ({
  name: "hellaswag:harness",
  protocol: harness("hellaswag"),
  headline: "acc_norm",
  items: readScenes(file).map(({ query, endings, label }, index) => {
    if (query === undefined) {
      throw new DataError(
        `${file.path}: item ${index + 1}: expected "activity_label", and "ctx_a" with "ctx_b", which hellaswag:harness ` +
          "puts together; got none",
      );
    }
    const answers = endings.map(cleaned);
    return harnessItem(
      answers.map((answer) => harnessRow(tokenizer, query, ` ${answer}`, maximumLength)),
      label,
      answers,
    );
  }),
  summarize: meansOf,
});

// ARC and PIQA: a question and its answers. Clark et al. 2018, arXiv:1803.05457; Bisk et al. 2019, arXiv:1911.11641.

interface Question {
  readonly question: string;
  readonly answers: readonly string[];
  readonly label: number;
}

const question = (text: unknown, answers: unknown, label: unknown): Question | undefined => {
  const gold = areTexts(answers) ? indexBelow(answers.length, label) : undefined;
  return isText(text) && areTexts(answers) && gold !== undefined ? { question: text, answers, label: gold } : undefined;
};

/** Lines of the published set, or with answers and label as plain fields. */
function readArc(file: ItemFile): Question[] {
  const expected = '{"question", "choices": {"text": [...], "label": [...]}, "answerKey"} of ARC';
  return readItems(file, expected, ({ question: text, choices, answerKey, label }) => {
    if (typeof choices !== "object" || choices === null || !("text" in choices) || !("label" in choices)) {
      return question(text, choices, label);
    }
    const gold = Array.isArray(choices.label) ? choices.label.indexOf(answerKey) : -1;
    return question(text, choices.text, gold);
  });
}

function readPiqa(file: ItemFile): Question[] {
  const expected = '{"goal", "sol1", "sol2", "label"} of PIQA';
  return readItems(file, expected, ({ goal, sol1, sol2, question: text, choices, label }) =>
    goal === undefined ? question(text, choices, label) : question(goal, [sol1, sol2], label),
  );
}

/** The paper's: question, a space, and the answer. An answer key past D is left out there, so it is here. */
export const arcEasy: Build = (file, tokenizer, maximumLength) => ({
  name: "arc_easy",
  protocol: paper,
  headline: "accuracy",
  items: readArc(file)
    .filter(({ label }) => label < 4)
    .map(({ question: text, answers, label }) => {
      const rows = answers.map((answer) => paperRow(tokenizer, text, ` ${answer}`, maximumLength));
      return paperItem(rows, label, targetLengths(rows));
    }),
  summarize: meansOf,
});

const questionsOfHarness =
  (name: string, read: (file: ItemFile) => Question[]): Build =>
  (file, tokenizer, maximumLength) => ({
    name: `${name}:harness`,
    protocol: harness(name),
    headline: "acc_norm",
    items: read(file).map(({ question: text, answers, label }) =>
      harnessItem(
        answers.map((answer) => harnessRow(tokenizer, `Question: ${text}\nAnswer:`, ` ${answer}`, maximumLength)),
        label,
        answers,
      ),
    ),
    summarize: meansOf,
  });

export const arcEasyHarness = questionsOfHarness("arc_easy", readArc);
export const piqaHarness = questionsOfHarness("piqa", readPiqa);

// WinoGrande: a sentence with a gap and two ways to fill it. Sakaguchi et al. 2019, arXiv:1907.10641.

interface Gap {
  /** The sentence up to the gap, filled in either way. */
  readonly beginnings: readonly string[];
  /** What follows the gap as it stands there. */
  readonly rest: string;
  readonly label: number;
}

/** Lines of the published set, or with `prefixes` and `suffix`, whose missing space is put back before a word. */
function readGaps(file: ItemFile): Gap[] {
  const expected = '{"sentence": "... _ ...", "option1", "option2", "answer"} of WinoGrande';
  return readItems(file, expected, ({ sentence, option1, option2, answer, prefixes, suffix, label }) => {
    if (areTexts(prefixes) && isText(suffix)) {
      const gold = indexBelow(2, label);
      const rest = /^[\p{L}\p{N}"(]/u.test(suffix) ? ` ${suffix}` : suffix;
      return gold === undefined ? undefined : { beginnings: prefixes, rest, label: gold };
    }
    if (!isText(sentence) || !isText(option1) || !isText(option2)) return undefined;
    const gap = sentence.indexOf("_");
    const gold = answer === "1" ? 0 : answer === "2" ? 1 : undefined;
    if (gap < 0 || gold === undefined) return undefined;
    const before = sentence.slice(0, gap);
    return { beginnings: [before + option1, before + option2], rest: sentence.slice(gap + 1), label: gold };
  });
}

/** The paper's: the whole sentence, its log-probability divided by the number of its tokens, the first included. */
export const winogrande: Build = (file, tokenizer, maximumLength) => ({
  name: "winogrande",
  protocol: paper,
  headline: "accuracy",
  items: readGaps(file).map(({ beginnings, rest, label }) => {
    const sentences = beginnings.map((beginning) => tokenizer.encode(beginning + rest).slice(-maximumLength));
    return paperItem(
      sentences.map((ids) => rowFrom(ids, 1)),
      label,
      sentences.map((ids) => ids.length),
    );
  }),
  summarize: meansOf,
});

/** The harness's: how likely the rest of the sentence is after either beginning. */
export const winograndeHarness: Build = (file, tokenizer, maximumLength) => ({
  name: "winogrande:harness",
  protocol: harness("winogrande"),
  headline: "acc",
  items: readGaps(file).map(({ beginnings, rest, label }) =>
    harnessItem(
      beginnings.map((beginning) => harnessRow(tokenizer, beginning, ` ${rest.trim()}`, maximumLength)),
      label,
    ),
  ),
  summarize: meansOf,
});
