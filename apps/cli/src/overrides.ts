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
    const { isFlag, mayBeBare } = kindOf(name);
    // A flag takes only what says yes or no; another word after it is the configuration file.
    if (next !== undefined && !next.startsWith("--") && (!isFlag || next === "true" || next === "false")) {
      overrides.push([name, next]);
      index++;
    } else if (mayBeBare) {
      overrides.push([name, "true"]);
    } else {
      throw new ConfigError(`--${name}: expected a value after it`);
    }
  }
  return file === undefined ? { overrides } : { file, overrides };
}

interface FieldKind {
  /** It is on or off, nothing else. */
  readonly isFlag: boolean;
  /** Its name alone switches it on, as in `--resume`. */
  readonly mayBeBare: boolean;
}

function kindOf(name: string): FieldKind {
  return kinds.get(plain(name)) ?? { isFlag: false, mayBeBare: false };
}

const kinds: ReadonlyMap<string, FieldKind> = new Map(
  fieldsOf(configFields).map(({ path, field }) => [
    plain(path),
    { isFlag: field.expected === "true or false", mayBeBare: "value" in field.check(true) },
  ]),
);

/** Names without what may be spelled differently. */
function plain(name: string): string {
  return name.replace(/[-_]/g, "").toLowerCase();
}
