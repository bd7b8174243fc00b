// sisa inspect: what a model is made of and what its heads learned.

import { resolve } from "node:path";
import { DataError, parameterCount } from "@sisa/core";
import { type HeadTable, type HeadValues, headTable, measureLogDecay } from "@sisa/train";
import { textFiles } from "@sisa/train/node";
import type { Command } from "commander";
import { type BackendOptions, openBackend } from "../backends.ts";
import { backendOption, type Context, command, jsonOption, threadsOption } from "../context.ts";
import { cacheBytes, parametersByPart } from "../inspection.ts";
import { type Io, paint, printJson, printLine } from "../io.ts";
import { addModelOptions, loadSource, type ModelOptions, type ModelSource } from "../model-source.ts";
import { byteText, countText, shortNumber, textTable } from "../table.ts";

interface Options extends ModelOptions, BackendOptions {
  readonly text?: string;
  readonly json?: boolean;
}

/** Tokens of text on which decays are measured, at most. */
const measuredTokens = 4096;

export function inspectCommand({ io }: Context): Command {
  const created = command("inspect", "show parameters by part, lambda and half-life by head, and the cache", [
    "sisa inspect runs/latest",
    "sisa inspect my-model --text book.txt",
    "sisa inspect checkpoint.pt --json",
  ])
    .argument("<model>", "model folder, run, checkpoint, .pt file or URL")
    .option("--text <path>", "file or folder: measure the half-life on this text too");
  return addModelOptions(created)
    .addOption(backendOption())
    .addOption(threadsOption())
    .addOption(jsonOption())
    .action(async (place: string, options: Options) => {
      const source = await loadSource(place, io.cwd, options);
      const decay = options.text === undefined ? undefined : await measureOn(source, options.text, options, io);
      const heads = headTable(source.parameters, decay);
      if (options.json) printJson(io, asJson(source, heads));
      else print(io, source, heads);
    });
}

/** Mean log decay by layer and head on the beginning of a text. */
async function measureOn(
  { model, parameters, tokenizer }: ModelSource,
  text: string,
  options: BackendOptions,
  io: Io,
): Promise<HeadValues | undefined> {
  const { training, heldOut } = await textFiles(resolve(io.cwd, text), tokenizer);
  const all = Int32Array.from([
    ...(await training.read(0, Math.min(training.length, measuredTokens))),
    ...(await heldOut.read(0, Math.min(heldOut.length, measuredTokens))),
  ]).subarray(0, measuredTokens);
  const length = Math.min(all.length, model.config.maximumLength);
  if (length < 1) throw new DataError(`${text}: expected text to measure on, got none`);
  const rows = Math.floor(all.length / length);
  await using backend = await openBackend(options);
  return await measureLogDecay(model, parameters, backend, { ids: all.slice(0, rows * length), rows });
}

function print(io: Io, { model, path, tokenizer }: ModelSource, heads: HeadTable | undefined): void {
  const { config } = model;
  const { mixers, width, heads: headCount, feedForwardWidth, stateWidth, form, maximumLength } = config;
  const total = parameterCount(model);
  const heading = (text: string): void => {
    printLine(io, "");
    printLine(io, paint(io, io.stdout, "bold", text));
  };
  const kinds = [...new Set(mixers)].map((kind) => `${mixers.filter((mixer) => mixer === kind).length} ${kind}`);
  printLine(io, paint(io, io.stdout, "bold", path));
  const sizes = [
    ["layers", kinds.join(", ")],
    ["width", countText(width)],
    ["heads", `${headCount} of width ${width / headCount}`],
    ["feed-forward width", countText(feedForwardWidth)],
    ...(mixers.includes("sisa") ? [["state width per head", `${stateWidth}, form ${form}`]] : []),
    ["vocabulary", `${countText(config.vocabularySize)} (tokenizer ${countText(tokenizer.size)})`],
    ["positions", countText(maximumLength)],
  ];
  for (const line of textTable(sizes)) printLine(io, line);

  heading("Parameters");
  const shares = [...parametersByPart(model)].map(([part, count]) => [
    part,
    countText(count),
    `${((100 * count) / total).toFixed(1)} %`,
  ]);
  for (const line of textTable([...shares, ["all", countText(total), ""]])) printLine(io, line);

  const { perToken, fixed } = cacheBytes(model);
  const tokenBytes = sumOf(perToken);
  const fixedBytes = sumOf(fixed);
  const table = (rows: ReadonlyMap<string, number>, all: number): void => {
    const lines = [...rows].map(([entry, bytes]) => [entry, countText(bytes)]);
    for (const line of textTable([...lines, ["all", countText(all)]])) printLine(io, line);
  };
  if (tokenBytes > 0) {
    heading("Cache, bytes for a token in float32");
    table(perToken, tokenBytes);
  }
  if (fixedBytes > 0) {
    heading("State of a sequence, bytes in float32, however long it is");
    table(fixed, fixedBytes);
  }
  const all = byteText(tokenBytes * maximumLength + fixedBytes);
  printLine(io, `  ${all} for ${countText(maximumLength)} tokens`);

  if (heads === undefined) return;
  const printHeads = (title: string, values: HeadValues): void => {
    heading(title);
    const columns = Array.from({ length: headCount }, (_, head) => `head ${head}`);
    const lines = values.map((row, index) => [`layer ${heads.layers[index] ?? index}`, ...row.map(shortNumber)]);
    for (const line of textTable([["", ...columns], ...lines])) printLine(io, line);
  };
  printHeads("Lambda, weight of the importance in the score", heads.lambda);
  printHeads("Half-life in tokens, by the learned bias", heads.halfLife);
  if (heads.measuredHalfLife !== undefined)
    printHeads("Half-life in tokens, measured on the text", heads.measuredHalfLife);
}

function asJson({ model, path }: ModelSource, heads: HeadTable | undefined): object {
  const { perToken, fixed } = cacheBytes(model);
  return {
    path,
    config: model.config,
    parameters: { all: parameterCount(model), ...Object.fromEntries(parametersByPart(model)) },
    cacheBytesPerToken: Object.fromEntries(perToken),
    stateBytes: Object.fromEntries(fixed),
    ...(heads === undefined ? {} : { heads }),
  };
}

function sumOf(bytes: ReadonlyMap<string, number>): number {
  return [...bytes.values()].reduce((sum, value) => sum + value, 0);
}
