// Splits the words after `sisa train` into a configuration file and fields that override it.
import { ConfigError } from "@sisa/core";
import { configFields, fieldsOf } from "@sisa/train";

export interface TrainWords {
  /** The configuration file, where one was named. */
  readonly file?: string;
  /** Names and texts of fields: `["steps", "2000"]`. A flag alone has the text "true". */
  readonly overrides: readonly (readonly [name: string, text: string])[];
}

/**
 * @param words such as `["sisa.config.ts", "--steps", "2000", "--optimizer.beta1=0.8", "--tensorboard"]`
 * @throws ConfigError for a second file, or a field without the value it needs
 */
export function splitTrainWords(words: readonly string[]): TrainWords {
  let file: string | undefined;
  const overrides: [string, string][] = [];
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? "";
    if (!word.startsWith("--")) {
      if (file !== undefined) {
        throw new ConfigError(
          `expected one configuration file, got "${file}" and "${word}"; fields are given as --name`,
        );
      }
      file = word;
      continue;
    }
    const [, name = "", text] = /^--([^=]*)(?:=(.*))?$/s.exec(word) ?? [];
    if (text !== undefined) {
      overrides.push([name, text]);
      continue;
    }
    const next = words[index + 1];
    if (next !== undefined && !next.startsWith("--") && takes(name, next)) {
      overrides.push([name, next]);
      index++;
    } else if (isFlag(name)) {
      overrides.push([name, "true"]);
    } else {
      throw new ConfigError(`--${name}: expected a value after it`);
    }
  }
  return file === undefined ? { overrides } : { file, overrides };
}

/** Whether the next word is the value of a field: a flag takes only what says yes or no. */
function takes(name: string, next: string): boolean {
  return !isFlag(name) || next === "true" || next === "false";
}

const flags = new Set(
  fieldsOf(configFields)
    .filter(({ field }) => field.expected === "true or false")
    .map(({ path }) => plain(path)),
);

function isFlag(name: string): boolean {
  return flags.has(plain(name));
}

/** Names without what may be spelled differently. */
function plain(name: string): string {
  return name.replace(/[-_]/g, "").toLowerCase();
}
