// Completion scripts for shells, written from the commands themselves, so that they never know less or more than `--help`.
import { presetFamilies, presetSizes } from "@sisa/core";
import { configFields, fieldsOf, flagOf, taskNames } from "@sisa/train";
import type { Command } from "commander";
import { backendChoices } from "./backends.ts";

/** An option as shells complete it. */
interface Flag {
  /** With its dashes: "--to". */
  readonly name: string;
  readonly description: string;
  /** A word follows it. */
  readonly takesValue: boolean;
  /** What that word can be, where the choice is known; files are offered otherwise. */
  readonly values: readonly string[];
}

interface Subcommand {
  readonly name: string;
  readonly description: string;
  readonly flags: readonly Flag[];
  /** What its argument can be, where the choice is known. */
  readonly words: readonly string[];
}

/** Words that are known of options which are checked elsewhere. In bash a colon begins a new word. */
const valuesByFlag: Readonly<Record<string, readonly string[]>> = {
  "--backend": backendChoices.map(({ name }) => name),
  "--tasks": taskNames.filter((name) => !name.includes(":")),
};

const scripts = { bash, zsh, fish } as const;

export type Shell = keyof typeof scripts;

export const shells = Object.keys(scripts) as readonly Shell[];

/**
 * The completion script of a shell.
 * @param program with all its commands
 */
export function completionScript(program: Command, shell: Shell): string {
  const commands = program.commands.map(subcommandOf);
  const topics = [...commands.map(({ name }) => name), "exit-codes"];
  return scripts[shell](commands.map((command) => (command.name === "help" ? { ...command, words: topics } : command)));
}

function subcommandOf(command: Command): Subcommand {
  const options = command.createHelp().visibleOptions(command);
  const flags = options.map(({ long, description, argChoices, required, optional }) => ({
    name: long ?? "",
    description,
    takesValue: required || optional,
    values: argChoices ?? valuesByFlag[long ?? ""] ?? [],
  }));
  return {
    name: command.name(),
    description: command.description(),
    flags: command.name() === "train" ? [...flags, ...trainingFields()] : flags,
    words: command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
  };
}

/** `sisa train` takes every field of its configuration, and the parts of a preset. */
function trainingFields(): Flag[] {
  const fields = fieldsOf(configFields).map(({ path, field }) => ({
    name: `--${flagOf(path)}`,
    description: field.description,
    takesValue: field.expected !== "true or false",
    values: valuesByFlag[`--${path}`] ?? field.choices ?? [],
  }));
  return [
    ...fields,
    { name: "--model.preset", description: "Family of the model.", takesValue: true, values: presetFamilies },
    { name: "--model.size", description: "Its size by name.", takesValue: true, values: presetSizes },
  ];
}

function bash(commands: readonly Subcommand[]): string {
  const list = (words: readonly string[]): string => `words="${words.join(" ")}"`;
  const values = commands.flatMap(({ name, flags }) => {
    const valued = flags.filter(({ takesValue }) => takesValue);
    const free = valued.filter((flag) => flag.values.length === 0).map((flag) => `"${name} ${flag.name}"`);
    const known = valued.filter((flag) => flag.values.length > 0);
    return [
      ...(free.length > 0 ? [`${free.join(" | ")}) ;;`] : []),
      ...known.map((flag) => `"${name} ${flag.name}") ${list(flag.values)} ;;`),
    ];
  });
  const flags = commands.map(({ name, flags }) => `"${name} "*" -"*) ${list(flags.map((flag) => flag.name))} ;;`);
  const words = commands
    .filter(({ words }) => words.length > 0)
    .map(({ name, words }) => `"${name} "*) ${list(words)} ;;`);
  // The first pattern that fits counts: what follows an option, an option, a word.
  return `# Completion of sisa in bash. For this shell: source <(sisa completion bash)
_sisa() {
  local word="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command="\${COMP_WORDS[1]}" words=""
  if (( COMP_CWORD == 1 )); then
    words="${commands.map(({ name }) => name).join(" ")} --help --version"
  else
    case "$command $previous" in
      ${values.join("\n      ")}
      *) case "$command $previous $word" in
        ${[...flags, ...words].join("\n        ")}
      esac ;;
    esac
  fi
  # Where nothing is known, "-o default" offers files.
  COMPREPLY=( $(compgen -W "$words" -- "$word") )
}
complete -o default -F _sisa sisa
`;
}

function zsh(commands: readonly Subcommand[]): string {
  const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const escaped = (text: string): string => text.replaceAll(/[[\]:\\]/g, "\\$&");
  const flag = ({ name, description, takesValue, values }: Flag): string => {
    const value = values.length > 0 ? `:value:(${values.join(" ")})` : ":value:_files";
    return quoted(`*${name}[${escaped(description)}]${takesValue ? value : ""}`);
  };
  const cases = commands.map(({ name, flags, words }) => {
    const rest = quoted(words.length > 0 ? `*:word:(${words.join(" ")})` : "*:file:_files");
    return `    ${name})\n      _arguments ${[...flags.map(flag), rest].join(" \\\n        ")} ;;`;
  });
  return `#compdef sisa
# Completion of sisa in zsh. For this shell: source <(sisa completion zsh)
_sisa() {
  local -a commands
  commands=(
${commands.map(({ name, description }) => `    ${quoted(`${name}:${escaped(description)}`)}`).join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
${cases.join("\n")}
  esac
}
if [[ "$funcstack[1]" == _sisa ]]; then _sisa "$@"; else compdef _sisa sisa; fi
`;
}

function fish(commands: readonly Subcommand[]): string {
  const quoted = (text: string): string => `'${text.replaceAll(/['\\]/g, "\\$&")}'`;
  const lines = commands.flatMap(({ name, description, flags, words }) => {
    const inCommand = `complete -c sisa -n '__fish_seen_subcommand_from ${name}'`;
    return [
      `complete -c sisa -f -n __fish_use_subcommand -a ${name} -d ${quoted(description)}`,
      ...(words.length > 0 ? [`${inCommand} -f -a ${quoted(words.join(" "))}`] : []),
      ...flags.map((flag) => {
        const value = flag.values.length > 0 ? ` -x -a ${quoted(flag.values.join(" "))}` : flag.takesValue ? " -r" : "";
        return `${inCommand} -l ${flag.name.slice(2)}${value} -d ${quoted(flag.description)}`;
      }),
    ];
  });
  return `# Completion of sisa in fish. For this shell: sisa completion fish | source\n${lines.join("\n")}\n`;
}
