// sisa train: a run from its configuration to its report.
import { realpath, stat } from "node:fs/promises";
import { totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import {
  CheckpointError,
  ConfigError,
  type LanguageModel,
  languageModel,
  type ModelConfig,
  parameterCount,
} from "@sisa/core";
import { checkTokenizer } from "@sisa/hub";
import {
  configHelp,
  htmlReport,
  leastTrainingBytes,
  type MetricsSink,
  modelConfigOf,
  parseTrainingConfig,
  progressLine,
  resolveSettings,
  settingsOf,
  type TrainingConfig,
  type TrainingData,
  type TrainingRun,
  train,
  withOverrides,
} from "@sisa/train";
import { metricsFile, readMetrics, tensorboardFolder } from "@sisa/train/node";
import type { Command } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { openBackend } from "../backends.ts";
import { nameOfConfig, readConfigFile } from "../config-file.ts";
import { type Context, command, jsonOption } from "../context.ts";
import { openTrainingData, withAbsolutePaths } from "../data-source.ts";
import { InterruptedError } from "../exit-codes.ts";
import { forPeople, type Io, note, printJson, printLine, type Signal } from "../io.ts";
import { callOf, printNextSteps, shellWord, shownPath } from "../next-steps.ts";
import { splitTrainWords } from "../overrides.ts";
import {
  beginRunFolder,
  checkpointsFolder,
  followPointer,
  makeRunFolder,
  metricsFileName,
  replaceFile,
  reportFile,
  requireFolder,
  requireWritable,
  runFile,
  runFolderFor,
  tensorboardFolderName,
} from "../run-folder.ts";
import { byteText, countOf, countText } from "../table.ts";

interface Options {
  readonly name?: string;
  readonly json?: boolean;
}

export function trainCommand({ io, words }: Context): Command {
  return command("train", "train a model; every field of the configuration can be given here as well", [
    "sisa train sisa.config.ts --steps 2000 --resume auto",
    "sisa train --data.text corpus/ --model.preset sisa --model.size 5m --steps 500",
    "sisa train sisa.config.json --optimizer.learning-rate 1e-3 --name faster --tensorboard",
  ])
    .usage("[options] [config.ts or config.json] [--field value ...]")
    .option("--name <name>", "folder of the run below the output folder (default: from the configuration file)")
    .addOption(jsonOption())
    .allowUnknownOption()
    .allowExcessArguments()
    .addHelpText("after", () => `\nFields:\n${configHelp()}`)
    .addHelpText(
      "after",
      "\nEnvironment:\n  SISA_DETERMINISTIC  1 for the same bits in every run on cuda, which takes longer",
    )
    .action(async (options: Options, self: Command) => {
      const { file, overrides } = splitTrainWords(self.args);
      const path = file === undefined ? undefined : resolve(io.cwd, file);
      const given = path === undefined ? {} : await readConfigFile(path);
      const config = parseTrainingConfig(withOverrides(given, overrides));
      const name = options.name ?? (path === undefined ? undefined : nameOfConfig(path)) ?? nameOfModel(config);
      const session = new TrainingSession(io, config, name, options.name !== undefined);
      const run = await session.run(words);
      session.print(run, options.json === true);
    });
}

/** The name of a run without a configuration file: "sisa-5m". */
function nameOfModel({ model }: TrainingConfig): string {
  return model !== undefined && "preset" in model ? `${model.preset}-${model.size}` : "run";
}

class TrainingSession {
  readonly #io: Io;
  readonly #config: TrainingConfig;
  readonly #name: string;
  readonly #isNamed: boolean;
  #folder = "";

  constructor(io: Io, config: TrainingConfig, name: string, isNamed: boolean) {
    this.#io = io;
    this.#config = config;
    this.#name = name;
    this.#isNamed = isNamed;
  }

  async run(words: readonly string[]): Promise<TrainingRun> {
    const io = this.#io;
    const config = this.#config;
    if (config.model === undefined) {
      throw new ConfigError(
        "model: expected a model, got nothing; say which: --model.preset sisa --model.size 5m, or a configuration file",
      );
    }
    const stopping = new AbortController();
    let stoppedBy: Signal | undefined;
    const offSignal = io.onSignal((signal) => {
      stoppedBy = signal;
      note(io, "\nStopping after this step, and saving. Once more leaves at once.");
      stopping.abort();
    });
    try {
      const data = await openTrainingData(config.data, io.cwd);
      const modelConfig = modelConfigOf(config.model, data.vocabularySize);
      requireTokenizer(data, modelConfig);
      const model = languageModel(modelConfig);
      requireMemory(model, config);
      const place = await this.#place();
      const { resume } = place;
      await requireWritable(place.folder, "output");
      await using backend = await openBackend(config);
      if (stoppedBy !== undefined) throw new InterruptedError(stoppedBy, "stopped before the first step");
      await using made = place.isNew ? await makeRunFolder(dirname(place.folder), this.#name) : undefined;
      const { folder } = made ?? place;
      this.#folder = folder;
      describe(io, data, modelConfig, parameterCount(model), shownPath(io, folder));

      const run = await train({
        model,
        backend,
        data,
        ...settingsOf(config),
        checkpoints: join(folder, checkpointsFolder),
        resume,
        signal: stopping.signal,
        metrics: this.#sinks(() => ({
          version: manifest.version,
          name: this.#name,
          parameters: parameterCount(model),
          model: modelConfig,
          data: data.description,
          config: withAbsolutePaths(config, io.cwd),
        })),
      });
      if (stoppedBy !== undefined && run.stopped) {
        throw new InterruptedError(stoppedBy, this.#howToGoOn(words, run));
      }
      if (config.report) await this.#writeReport(run);
      return run;
    } finally {
      offSignal();
    }
  }

  /**
   * Where the run lies, and what it goes on from, as `train` takes it. The folder of a new run is the one that is free now.
   */
  async #place(): Promise<{ folder: string; isNew: boolean; resume: boolean | string }> {
    const output = resolve(this.#io.cwd, this.#config.output);
    await requireFolder(output, "output");
    const { resume } = this.#config;
    if (typeof resume === "boolean" || resume === "auto") {
      const isNew = resume === false;
      return { folder: await runFolderFor(output, this.#name, !isNew), isNew, resume };
    }
    const from = await existingFolder(resolve(this.#io.cwd, resume));
    // A checkpoint lies two levels below its run.
    const run = [from, dirname(dirname(from))];
    const isRun = await Promise.all(run.map((folder) => isFile(join(folder, runFile))));
    const checkpoint = isRun[0] === true ? join(from, checkpointsFolder) : from;
    const own = isRun[0] === true ? run[0] : isRun[1] === true ? run[1] : undefined;
    if (own !== undefined && !this.#isNamed) return { folder: own, isNew: false, resume: checkpoint };
    return { folder: await runFolderFor(output, this.#name, false), isNew: true, resume: checkpoint };
  }

  #sinks(description: () => unknown): MetricsSink[] {
    const io = this.#io;
    const folder = this.#folder;
    const begin: MetricsSink = {
      // Everything that can be refused was checked by now.
      start: async (step) => {
        await beginRunFolder(folder, description());
        if (step > 0) note(io, `Going on from step ${step}.`);
      },
      write: () => {},
    };
    return [
      begin,
      metricsFile(join(folder, metricsFileName)),
      progressLine(io.stderr, { totalSteps: this.#config.steps ?? 0, name: this.#name }),
      ...(this.#config.tensorboard ? [tensorboardFolder(join(folder, tensorboardFolderName))] : []),
    ];
  }

  async #writeReport(run: TrainingRun): Promise<void> {
    const heads = await run.heads();
    const report = htmlReport([
      {
        name: this.#name,
        records: readMetrics(join(this.#folder, metricsFileName)),
        parameterCount: parameterCount(run.model),
        configuration: this.#config,
        ...(heads === undefined ? {} : { heads }),
      },
    ]);
    await replaceFile(join(this.#folder, reportFile), report);
  }

  #howToGoOn(words: readonly string[], { step, settings }: TrainingRun): string {
    const again = words.flatMap((word, index) =>
      word === "--resume" || word.startsWith("--resume=") || words[index - 1] === "--resume" ? [] : [shellWord(word)],
    );
    const call = `${callOf(this.#io)} ${again.join(" ")} --resume auto`;
    return `stopped and saved at step ${step} of ${settings.steps}; to go on: ${call}`;
  }

  print(run: TrainingRun, json: boolean): void {
    const io = forPeople(this.#io, json);
    const folder = shownPath(io, this.#folder);
    const bits = run.bitsPerByte === undefined ? "" : ` (${run.bitsPerByte.toFixed(3)} bits a byte)`;
    printLine(io, `held-out loss ${run.heldOutLoss.toFixed(4)} nats a token${bits} after ${run.step} steps`);
    printLine(io, `run ${folder}${this.#config.report ? `, report ${join(folder, reportFile)}` : ""}`);
    const place = shellWord(folder);
    const { synthetic, sequenceLength } = this.#config.data;
    const ofText = [
      [`generate ${place} "Once upon" --max-tokens 100`, "continue a text"],
      [`eval ${place} --tasks perplexity`, "all of the held-out text"],
    ] as const;
    const ofRules = [[`eval ${place} --tasks ${synthetic} --lengths ${sequenceLength}`, "new sequences"]] as const;
    printNextSteps(io, [
      ...(synthetic === undefined ? ofText : ofRules),
      [`inspect ${place}`, "parameters, lambda and half-life by head"],
    ]);
    if (!json) return;
    const { step, skipped, elapsedSeconds, heldOutLoss, bitsPerByte } = run;
    const result = { run: this.#folder, step, skipped, elapsedSeconds, heldOutLoss, bitsPerByte };
    printJson(this.#io, { ...result, parameters: parameterCount(run.model) });
  }
}

/** @throws ConfigError where the model and its batches can never fit this machine */
function requireMemory(model: LanguageModel, config: TrainingConfig): void {
  const parameters = parameterCount(model);
  const needed = leastTrainingBytes(model, resolveSettings(settingsOf(config), { parameterCount: parameters }));
  // 0 or more than there is where nothing limits the process.
  const limit = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  const available = Math.min(limit, totalmem());
  if (needed <= available) return;
  throw new ConfigError(
    `training ${countText(parameters)} parameters needs at least ${byteText(needed)} of memory, there is ` +
      `${byteText(available)}; choose a smaller model, microBatchSize or sequenceLength`,
  );
}

function describe(io: Io, data: TrainingData, config: ModelConfig, parameters: number, folder: string): void {
  const kinds = [...new Set(config.mixers)].join(" and ");
  const { name, documents, skippedFiles } = data.description;
  const skipped = skippedFiles > 0 ? `, ${countOf(skippedFiles, "file")} without text left out` : "";
  note(
    io,
    `model  ${kinds}, ${config.mixers.length} layers of width ${config.width}, ${countText(parameters)} parameters`,
  );
  note(
    io,
    `data   ${name}: ${countText(data.training.length)} tokens to train on, ${countText(data.heldOut.length)} held out, ` +
      `of ${countOf(documents, "document")}${skipped}`,
  );
  note(io, `run    ${folder}`);
}

/** Refuses early what could not be saved later. */
function requireTokenizer(data: TrainingData, config: ModelConfig): void {
  if (data.tokenizer === undefined) return;
  try {
    checkTokenizer(data.tokenizer, config, "model");
  } catch (cause) {
    throw new ConfigError(
      `model.vocabularySize: expected that of the tokenizer, ${data.tokenizer.size}, got ${config.vocabularySize}; ` +
        `give preset() vocabularySize: ${data.tokenizer.size}, or name the model's tokenizer under data.tokenizer`,
      { cause },
    );
  }
}

/**
 * The folder to resume from, with links followed.
 * @throws CheckpointError where there is none
 */
async function existingFolder(path: string): Promise<string> {
  const target = await followPointer(path);
  const found = await stat(target).catch(() => undefined);
  if (found?.isDirectory() === true) return await realpath(target);
  throw new CheckpointError(
    `${target}: expected the folder of a run or a checkpoint to resume, found ${found === undefined ? "nothing" : "a file"}`,
  );
}

async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true;
}
