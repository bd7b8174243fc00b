// sisa serve: a model behind an HTTP server in the manner of OpenAI's API, until it is told to stop.
import { readFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { CheckpointError, ConfigError, type Precision } from "@sisa/core";
import { type LogEntry, serve } from "@sisa/serve/node";
import { type Command, Option } from "commander";
import { type BackendOptions, openBackend } from "../backends.ts";
import {
  backendOption,
  type Context,
  command,
  jsonOption,
  numberWithin,
  precisionOption,
  threadsOption,
} from "../context.ts";
import { errorLine } from "../exit-codes.ts";
import { note, printJson, printLine } from "../io.ts";
import { addModelOptions, loadSource, type ModelOptions } from "../model-source.ts";

interface Options extends ModelOptions, BackendOptions {
  readonly precision: Precision;
  readonly port: number;
  readonly host: string;
  readonly name?: string;
  readonly slots: number;
  readonly queue: number;
  readonly context?: number;
  readonly cacheTokens?: number;
  readonly chatTemplate?: string;
  readonly shutdownTimeout: number;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

export function serveCommand({ io }: Context): Command {
  const count = (flag: string, description: string, minimum: number, maximum?: number): Option =>
    new Option(flag, description).argParser(
      numberWithin({ whole: true, minimum, ...(maximum === undefined ? {} : { maximum }) }),
    );
  const created = command("serve", "answer requests in the manner of OpenAI's API, with a page to chat on at /", [
    "sisa serve runs/latest --port 8080",
    "SISA_API_KEY=secret sisa serve my-model --host 0.0.0.0 --name my-model",
    "curl localhost:8080/v1/completions -H 'content-type: application/json' -d '{\"prompt\": \"Once\"}'",
  ])
    .argument("<model>", "model folder, run, checkpoint, .pt file or URL")
    .addOption(count("--port <number>", "0 takes any that is free", 0, 65_535).default(8080))
    .option("--host <address>", "0.0.0.0 to be reached from other machines", "127.0.0.1")
    .option("--name <name>", "what clients call the model (default: the last part of its place)")
    .addOption(count("--slots <number>", "sequences that are computed at once", 1).default(8))
    .addOption(count("--queue <number>", "sequences that may wait beyond those", 0).default(128))
    .addOption(count("--context <tokens>", "tokens of a sequence at most (default: the model's)", 2))
    .addOption(
      count("--cache-tokens <number>", "tokens in memory at once, on cuda (default: --slots times --context)", 2),
    )
    .option("--chat-template <file>", "Jinja template in place of the tokenizer's own")
    .addOption(
      new Option("--shutdown-timeout <seconds>", "after SIGTERM, how long answers may take to end")
        .argParser(numberWithin({ minimum: 0 }))
        .default(30),
    )
    .option("--quiet", "no line for every request");
  return addModelOptions(created)
    .addOption(backendOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nEnvironment:\n  SISA_API_KEY  asked for everywhere but at /health and /ready")
    .action(async (place: string, options: Options) => {
      const apiKey = io.env.SISA_API_KEY;
      if (apiKey === "") throw new ConfigError("SISA_API_KEY is empty; set a key, or unset it");
      const source = await loadSource(place, io.cwd, options);
      const chatTemplate =
        options.chatTemplate === undefined ? undefined : await readText(options.chatTemplate, io.cwd);
      await using backend = await openBackend(options);
      const stopped = new Promise<string>((resolveSignal) => io.onSignal(resolveSignal));
      const modelName = options.name ?? basename(source.run ?? source.path);
      const server = await serve(source, {
        backend,
        precision: options.precision,
        port: options.port,
        host: options.host,
        modelName,
        slots: options.slots,
        queueLength: options.queue,
        ...(options.context === undefined ? {} : { contextLength: options.context }),
        ...(options.cacheTokens === undefined ? {} : { cacheTokens: options.cacheTokens }),
        ...(apiKey === undefined ? {} : { apiKey }),
        ...(chatTemplate === undefined ? {} : { chatTemplate }),
        ...(options.quiet ? {} : { log: (entry: LogEntry) => note(io, logLine(entry)) }),
      });
      if (options.json) printJson(io, { url: server.url, port: server.port, model: modelName, path: source.path });
      else printLine(io, `serving ${source.path} at ${server.url}`);
      const signal = await stopped;
      note(io, `${signal}: taking no more requests; answers that were begun have ${options.shutdownTimeout} s`);
      await server.close(options.shutdownTimeout * 1000);
    });
}

async function readText(place: string, cwd: string): Promise<string> {
  const path = resolve(cwd, place);
  return await readFile(path, "utf8").catch((cause: unknown) => {
    throw new CheckpointError(`${path}: cannot be read: ${cause instanceof Error ? cause.message : cause}`, { cause });
  });
}

function logLine({ requestId, method, path, status, durationMs, error }: LogEntry): string {
  const failure = error === undefined ? "" : ` ${errorLine(error)}`;
  return `${new Date().toISOString()} ${method} ${path} ${status} ${durationMs.toFixed(0)} ms ${requestId}${failure}`;
}
