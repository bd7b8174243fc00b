// What every command gets, and helpers to declare options alike.
import { precisions } from "@sisa/core";
import { Command, InvalidArgumentError, Option } from "commander";
import { backendChoices, defaultBackend } from "./backends.ts";
import type { Io } from "./io.ts";

export interface Context {
  readonly io: Io;
  /** The whole command line after the program's name. */
  readonly words: readonly string[];
  /** Ends the program with this code once the command is done. */
  finish(code: number): void;
}

/** A command of the program, with examples under its help. */
export function command(name: string, description: string, examples: readonly string[]): Command {
  const lines = examples.map((example) => `  $ ${example}`);
  return new Command(name).description(description).addHelpText("after", `\nExamples:\n${lines.join("\n")}`);
}

export function backendOption(): Option {
  const names = backendChoices.map((choice) => choice.name).join(", ");
  return new Option("--backend <name>", `what runs the model: ${names}`).default(defaultBackend);
}

export function precisionOption(): Option {
  const description = "widths of weights, caches and what is computed; those but float32 need a GPU";
  return new Option("--precision <name>", description).choices(precisions).default("float32");
}

export function threadsOption(): Option {
  const description = "threads of backend onnxruntime (default: one for each core)";
  return new Option("--threads <number>", description).argParser(numberWithin({ whole: true, minimum: 1 }));
}

export function jsonOption(): Option {
  return new Option("--json", "one JSON document on the standard output, and nothing else there");
}

interface Bounds {
  readonly whole?: boolean;
  readonly minimum?: number;
  readonly maximum?: number;
}

/** Parser of an option's number. */
export function numberWithin({ whole = false, minimum, maximum }: Bounds): (text: string) => number {
  const limits = [
    minimum === undefined ? "" : ` >= ${minimum}`,
    minimum === undefined || maximum === undefined ? "" : " and",
    maximum === undefined ? "" : ` <= ${maximum}`,
  ].join("");
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text.replaceAll("_", ""));
    const fits = value >= (minimum ?? Number.NEGATIVE_INFINITY) && value <= (maximum ?? Number.POSITIVE_INFINITY);
    if (!Number.isFinite(value) || (whole && !Number.isSafeInteger(value)) || !fits) {
      throw new InvalidArgumentError(`Expected a ${whole ? "whole " : ""}number${limits}.`);
    }
    return value;
  };
}

/** Words of one option, separated by commas. */
export function wordList(text: string): string[] {
  return text
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");
}

/** Whole numbers of one option, separated by commas. */
export function wholeNumbers(text: string): number[] {
  return wordList(text).map(numberWithin({ whole: true, minimum: 1 }));
}
