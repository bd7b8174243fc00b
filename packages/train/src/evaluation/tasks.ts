// Every task by name. A bare name is the paper's protocol where the paper has one, or the project's own; "NAME:harness" is
// lm-evaluation-harness's.
import { ConfigError } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { nearestPath } from "../config/table.ts";
import type { TextDocument } from "../data/text-documents.ts";
import type { TokenSource } from "../data/training-data.ts";
import type { ItemFile } from "./json-lines.ts";
import { lambada, lambadaHarness } from "./lambada.ts";
import {
  arcEasy,
  arcEasyHarness,
  hellaswag,
  hellaswagHarness,
  piqaHarness,
  winogrande,
  winograndeHarness,
} from "./multiple-choice.ts";
import { niah, niahGrid, niahSeveral } from "./needles.ts";
import { perplexity, perplexityHarness } from "./perplexity.ts";
import { mqar, parity } from "./synthetic-tasks.ts";
import type { Task } from "./task.ts";

/** What tasks are made from. Text and items are read only where a task asks for them. */
export interface TaskSource {
  /** Of the model. */
  readonly tokenizer: Tokenizer;
  /** Positions of the model. */
  readonly maximumLength: number;
  /** Of the model. */
  readonly vocabularySize: number;
  /** The lines of a public set, by the name of the set: "hellaswag". */
  items(set: string): Promise<ItemFile>;
  /** @returns tokens for `perplexity`, and how many make a window */
  text(): Promise<{ readonly tokens: TokenSource; readonly sequenceLength: number }>;
  /** Documents for `perplexity:harness`. */
  documents(): Promise<readonly TextDocument[]>;
  /** Lengths for niah:grid; the one length of niah:several, mqar and parity. */
  readonly lengths?: readonly number[] | undefined;
  /** Depths of niah:grid. */
  readonly depths?: number | undefined;
  /** Needles of niah:several. */
  readonly needles?: number | undefined;
  /** At most so many items, or for `perplexity` tokens. */
  readonly limit?: number | undefined;
}

/** A task by name, before it is made for a model. */
export interface TaskDescription {
  /** One line. */
  readonly description: string;
  /** The public set that it needs, where it needs one. */
  readonly set?: string;
  /** Makes it for a model. @throws ConfigError, DataError where the model or the set does not do */
  readonly create: (source: TaskSource) => Promise<Task>;
}

type FromItems = (file: ItemFile, tokenizer: Tokenizer, maximumLength: number) => Task;

function ofSet(set: string, description: string, build: FromItems): TaskDescription {
  return {
    set,
    description,
    async create({ items, tokenizer, maximumLength, limit }) {
      const file = await items(set);
      return build(firstLines(file, limit), tokenizer, maximumLength);
    },
  };
}

/** Only the lines that are asked for are encoded. */
function firstLines({ path, text }: ItemFile, limit: number | undefined): ItemFile {
  if (limit === undefined) return { path, text };
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return { path, text: lines.slice(0, limit).join("\n") };
}

const first = (task: Task, limit: number | undefined): Task => ({ ...task, items: task.items.slice(0, limit) });

/** All tasks by name, as `sisa eval --tasks` takes them. */
export const tasks: Readonly<Record<string, TaskDescription>> = {
  perplexity: {
    description: "loss, perplexity and bits a byte of text, in windows side by side",
    async create({ text, tokenizer, limit }) {
      const { tokens, sequenceLength } = await text();
      return perplexity(tokens, tokenizer, { sequenceLength, ...(limit === undefined ? {} : { mostTokens: limit }) });
    },
  },
  "perplexity:harness": {
    description: "word, byte perplexity and bits a byte of documents, rolling",
    async create({ documents, tokenizer, maximumLength, limit }) {
      return first(perplexityHarness(await documents(), tokenizer, maximumLength), limit);
    },
  },
  lambada: ofSet("lambada", "the last word of a passage, guessed (paper)", lambada),
  "lambada:harness": ofSet("lambada", "the same as lambada_openai, with the word's perplexity", lambadaHarness),
  niah: {
    description: "the paper's 200 needles in 512 tokens",
    create: async ({ tokenizer, maximumLength, limit }) => first(niah(tokenizer, maximumLength), limit),
  },
  "niah:grid": {
    description: "one needle by depth and length, as a heat map",
    create: async ({ tokenizer, maximumLength, lengths, depths, limit }) =>
      niahGrid(tokenizer, maximumLength, {
        ...(lengths === undefined ? {} : { lengths }),
        ...(depths === undefined ? {} : { depths }),
        ...(limit === undefined ? {} : { itemsPerCell: limit }),
      }),
  },
  "niah:several": {
    description: "several needles in one haystack, each asked for",
    create: async ({ tokenizer, maximumLength, lengths, needles, limit }) =>
      niahSeveral(tokenizer, maximumLength, {
        ...oneLength("niah:several", lengths),
        ...(needles === undefined ? {} : { needles }),
        ...(limit === undefined ? {} : { items: limit }),
      }),
  },
  hellaswag: ofSet("hellaswag", "how a scene goes on (paper: by token, no space between)", hellaswag),
  "hellaswag:harness": ofSet("hellaswag", "the same by lm-evaluation-harness: acc, acc_norm", hellaswagHarness),
  arc_easy: ofSet("arc_easy", "school questions (paper: no template, by token)", arcEasy),
  "arc_easy:harness": ofSet("arc_easy", "the same by lm-evaluation-harness: acc, acc_norm", arcEasyHarness),
  winogrande: ofSet("winogrande", "who a gap means (paper: whole sentence, by token)", winogrande),
  "winogrande:harness": ofSet("winogrande", "the same by lm-evaluation-harness: acc", winograndeHarness),
  "piqa:harness": ofSet("piqa", "which way works; the paper measures it by the harness too", piqaHarness),
  mqar: {
    description: "multi-query associative recall, for models trained on it",
    create: async ({ vocabularySize, lengths, limit }) => mqar(synthetic("mqar", vocabularySize, lengths, limit)),
  },
  parity: {
    description: "parity of the bits so far, for models trained on it",
    create: async ({ vocabularySize, lengths, limit }) => parity(synthetic("parity", vocabularySize, lengths, limit)),
  },
};

function synthetic(name: string, vocabularySize: number, lengths?: readonly number[], items?: number) {
  return { vocabularySize, ...oneLength(name, lengths), ...(items === undefined ? {} : { items }) };
}

function oneLength(name: string, lengths: readonly number[] | undefined): { readonly length?: number } {
  const [length, ...others] = lengths ?? [];
  if (others.length > 0) throw new ConfigError(`${name}: expected one length, got ${lengths?.join(", ")}`);
  return length === undefined ? {} : { length };
}

/** Names of all tasks. */
export const taskNames: readonly string[] = Object.keys(tasks);

/**
 * A task by name. A name without a protocol of the paper, such as "piqa", is the harness's.
 * @throws ConfigError for a name that is none
 */
export function findTask(name: string): TaskDescription {
  for (const known of [name, `${name}:harness`]) {
    const task = Object.hasOwn(tasks, known) ? tasks[known] : undefined;
    if (task !== undefined) return task;
  }
  const nearest = nearestPath(name, taskNames);
  const hint = nearest === undefined ? "" : `; did you mean "${nearest}"?`;
  throw new ConfigError(`tasks: expected ${taskNames.join(", ")}, got "${name}"${hint}`);
}
