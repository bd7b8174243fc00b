// sisa experiment: a comparison as a whole. Each run is a process of its own, so that its memory is measured by itself and
// its end ends nothing else.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { CheckpointError, ConfigError, SisaError } from "@sisa/core";
import { type ComparedRun, compareRuns, comparisonMarkdown, comparisonReport } from "@sisa/train";
import { readMetrics } from "@sisa/train/node";
import type { Command } from "commander";
import { nameOfConfig, readConfigFile } from "../config-file.ts";
import { type Context, command, jsonOption, threadsOption } from "../context.ts";
import { exitCode, InterruptedError } from "../exit-codes.ts";
import { type Experiment, type PlannedRun, planExperiment } from "../experiment/plan.ts";
import { describeRun, executeRun, experimentFolder, type RunResult, readResult } from "../experiment/run.ts";
import { forPeople, type Io, note, printJson, printLine, type Signal } from "../io.ts";
import { shownPath } from "../next-steps.ts";
import { checkpointsFolder, metricsFileName, replaceFile, reportFile, requireFolder, runFile } from "../run-folder.ts";

interface Options {
  readonly only?: string;
  readonly run?: string;
  readonly threads?: number;
  readonly json?: boolean;
}

export function experimentCommand({ io }: Context): Command {
  return command("experiment", "train and measure several models alike, and compare them", [
    "sisa experiment experiments/cpu-smoke.ts",
    "sisa experiment experiments/cpu-smoke.ts --only recall/sisa",
    "sisa experiment experiments/cpu-smoke.ts --run text/sisa-1m-seed0",
  ])
    .argument("<file>", "families, sizes, seeds and workloads, in .json or .ts")
    .option("--only <text>", "only the runs whose name holds this text")
    .option("--run <name>", "one run by its whole name, in this process")
    .addOption(threadsOption())
    .addOption(jsonOption())
    .action(async (file: string, options: Options) => {
      const path = resolve(io.cwd, file);
      const experiment = planExperiment(await readConfigFile(path), nameOfConfig(path));
      const folder = experimentFolder(experiment, io.cwd);
      await requireFolder(folder, "output");
      const session = new Session(io, experiment, folder, options.threads);
      if (options.run !== undefined) {
        const result = await session.runHere(session.find(options.run));
        if (options.json) printJson(io, result);
        return;
      }
      const runs = experiment.runs.filter(({ id }) => id.includes(options.only ?? ""));
      if (runs.length === 0)
        throw new ConfigError(`--only: no run holds "${options.only}"; there are ${session.names()}`);
      await session.runAll(runs, file);
      const table = await session.writeTable();
      const shown = forPeople(io, options.json);
      printLine(shown, table.trimEnd());
      printLine(
        shown,
        `table ${shownPath(io, join(folder, "table.md"))}, report ${shownPath(io, join(folder, reportFile))}`,
      );
      if (options.json) printLine(io, await readFile(join(folder, "table.json"), "utf8").then((text) => text.trim()));
    });
}

class Session {
  readonly #io: Io;
  readonly #experiment: Experiment;
  readonly #folder: string;
  readonly #threads: number | undefined;

  constructor(io: Io, experiment: Experiment, folder: string, threads: number | undefined) {
    this.#io = io;
    this.#experiment = experiment;
    this.#folder = folder;
    this.#threads = threads;
  }

  names(): string {
    return this.#experiment.runs.map(({ id }) => id).join(", ");
  }

  find(id: string): PlannedRun {
    const run = this.#experiment.runs.find((planned) => planned.id === id);
    if (run === undefined) throw new ConfigError(`--run: expected one of ${this.names()}, got "${id}"`);
    return run;
  }

  /** What is not done yet, one after another. */
  async runAll(runs: readonly PlannedRun[], file: string): Promise<void> {
    for (const run of runs) await this.#requireSame(run);
    for (const [index, run] of runs.entries()) {
      if ((await readResult(this.#folder, run)) !== undefined) continue;
      note(this.#io, `${run.id} (${index + 1} of ${runs.length})`);
      if (this.#io.program === undefined) await this.runHere(run);
      else await this.#runApart(this.#io.program, run, file);
    }
  }

  /** @throws CheckpointError where the folder holds a run of the same name with other settings */
  async #requireSame(run: PlannedRun): Promise<void> {
    const path = join(this.#folder, run.id, runFile);
    // A run that never came to its first checkpoint has nothing to lose.
    if (!existsSync(join(this.#folder, run.id, checkpointsFolder))) return;
    const before = await readFile(path, "utf8").catch(() => undefined);
    if (before === undefined || before === describeRun(run, this.#io.cwd)) return;
    throw new CheckpointError(
      `${path}: holds a run of this name with other settings; give the experiment another name, or remove the folder`,
    );
  }

  async runHere(run: PlannedRun): Promise<RunResult> {
    await this.#requireSame(run);
    const stopping = new AbortController();
    const offSignal = this.#io.onSignal((signal) => {
      note(this.#io, "\nStopping, and saving. Once more leaves at once.");
      stopping.abort(new InterruptedError(signal, `${run.id}: stopped and saved; the same command goes on from there`));
    });
    try {
      return await executeRun(this.#experiment, run, this.#io, stopping.signal, this.#threads);
    } finally {
      offSignal();
    }
  }

  async #runApart([program = "", ...start]: readonly string[], run: PlannedRun, file: string): Promise<void> {
    const threads = this.#threads === undefined ? [] : ["--threads", String(this.#threads)];
    // A group of its own: Ctrl-C reaches it once, from here. The channel tells it when this process is gone.
    const child = spawn(program, [...start, "experiment", file, "--run", run.id, ...threads], {
      cwd: this.#io.cwd,
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      detached: true,
    });
    let stoppedBy: Signal | undefined;
    const offSignal = this.#io.onSignal((signal) => {
      stoppedBy = signal;
      child.kill(signal);
    });
    try {
      const code = await exitOf(child);
      if (stoppedBy !== undefined)
        throw new InterruptedError(stoppedBy, `stopped in ${run.id}; the same command goes on`);
      if (code !== exitCode.ok)
        throw new SisaError(`${run.id}: ended with ${code}; the same command goes on from there`);
    } finally {
      offSignal();
    }
  }

  /** Table and report of all runs that are done. */
  async writeTable(): Promise<string> {
    const done: ComparedRun[] = [];
    for (const run of this.#experiment.runs) {
      const result = await readResult(this.#folder, run);
      if (result === undefined) continue;
      const path = join(this.#folder, run.id, metricsFileName);
      const records = existsSync(path) ? readMetrics(path) : [];
      const heatMaps = result.tasks.flatMap(({ heatMap }) => heatMap ?? []);
      const { workload, model, seed } = run;
      done.push({ workload, model, seed, values: result.values, records, heatMaps });
    }
    const rows = compareRuns(done);
    const table = comparisonMarkdown(rows);
    const { name, runs } = this.#experiment;
    const subtitle = done.length === runs.length ? undefined : `${done.length} of ${runs.length} runs are done.`;
    const about = { title: name, ...(subtitle === undefined ? {} : { subtitle }) };
    await replaceFile(join(this.#folder, "table.json"), `${JSON.stringify({ experiment: name, rows })}\n`);
    await replaceFile(join(this.#folder, "table.md"), `${table}${subtitle === undefined ? "" : `\n${subtitle}\n`}`);
    await replaceFile(join(this.#folder, reportFile), comparisonReport(done, about));
    return subtitle === undefined ? table : `${table}\n${subtitle}\n`;
  }
}

async function exitOf(child: ChildProcess): Promise<number | string> {
  const [code, signal] = (await once(child, "exit")) as [number | null, string | null];
  return code ?? signal ?? "an unknown end";
}
