// sisa generate: text from a model, as it comes.
import { ConfigError, type GenerateOptions, generate, type Precision } from "@sisa/core";
import { StopMatcher } from "@sisa/serve";
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
import { InterruptedError } from "../exit-codes.ts";
import { forPeople, note, printJson } from "../io.ts";
import { addModelOptions, loadSource, type ModelOptions } from "../model-source.ts";

interface Options extends ModelOptions, BackendOptions {
  readonly precision: Precision;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly echo?: boolean;
  readonly allowClamp?: boolean;
  readonly json?: boolean;
}

/** Where neither the command line nor the model says anything. */
const fallback = { temperature: 0.8, maxTokens: 200 };

export function generateCommand({ io }: Context): Command {
  const number = (flag: string, description: string, bounds: Parameters<typeof numberWithin>[0]): Option =>
    new Option(flag, description).argParser(numberWithin(bounds));
  const created = command("generate", "continue a text; the continuation streams to the standard output", [
    'sisa generate runs/latest "The secret code is" --max-tokens 20',
    "echo Once upon a time | sisa generate my-model --temperature 0.7 --top-p 0.9 --seed 7",
    "sisa generate checkpoint.pt --tokenizer 20B_tokenizer.json 'The answer is' --temperature 0",
  ])
    .argument("<model>", "model folder, run, checkpoint, .pt file or URL")
    .argument("[prompt]", "text to continue; without it, the standard input")
    .addOption(
      number("--max-tokens <number>", "tokens to add at most (default: the model's, or 200)", {
        whole: true,
        minimum: 1,
      }),
    )
    .addOption(
      number("--temperature <number>", "0 takes the likeliest token (default: the model's, or 0.8)", { minimum: 0 }),
    )
    .addOption(number("--top-k <number>", "only that many likeliest tokens; 0 for all", { whole: true, minimum: 0 }))
    .addOption(number("--top-p <number>", "only the likeliest tokens that together reach this", { minimum: 0 }))
    .addOption(
      number("--seed <number>", "same seed, same text (default: 0)", { whole: true, minimum: 0, maximum: 2 ** 32 - 1 }),
    )
    .option("--stop <text>", "end before this text; may be given several times", (text: string, before?: string[]) => {
      if (text === "") throw new ConfigError("--stop: expected a text, got nothing");
      return [...(before ?? []), text];
    })
    .option("--echo", "print the prompt first")
    .option("--allow-clamp", "go on where form sdpa would clamp, although it then differs from a full pass");
  return addModelOptions(created)
    .addOption(backendOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addOption(jsonOption())
    .action(async (place: string, given: string | undefined, options: Options) => {
      const source = await loadSource(place, io.cwd, options);
      const { tokenizer, generationConfig } = source;
      const prompt = given ?? (await readPrompt());
      const tokens = tokenizer.encode(prompt);
      const { endOfText } = tokenizer;
      if (tokens.length === 0 && endOfText !== undefined) tokens.push(endOfText);
      const { temperature, topK, topP, maxTokens } = { ...fallback, ...generationConfig, ...defined(options) };

      await using backend = await openBackend(options);
      const stopping = new AbortController();
      const offSignal = io.onSignal((signal) => stopping.abort(new InterruptedError(signal, "stopped")));
      const request: GenerateOptions = {
        model: source.model,
        parameters: source.parameters,
        backend,
        precision: options.precision,
        tokens,
        maxTokens,
        temperature,
        seed: options.seed ?? 0,
        stopTokens: endOfText === undefined ? [] : [endOfText],
        signal: stopping.signal,
        allowClamp: options.allowClamp === true,
        ...(topK === undefined ? {} : { topK }),
        ...(topP === undefined ? {} : { topP }),
      };
      const shown = forPeople(io, options.json);
      if (options.echo) shown.stdout.write(prompt);
      const decoder = tokenizer.streamDecoder();
      const matcher = new StopMatcher(options.stop ?? []);
      let text = "";
      let count = 0;
      const show = (part: string): void => {
        text += part;
        if (part !== "") shown.stdout.write(part);
      };
      const startMs = performance.now();
      let firstMs = startMs;
      try {
        for await (const id of generate(request)) {
          if (count++ === 0) firstMs = performance.now();
          show(matcher.push(decoder.push(id)));
          if (matcher.stopped) break;
        }
        if (!matcher.stopped) show(matcher.push(decoder.flush()));
        show(matcher.flush());
      } finally {
        offSignal();
        // What was refused before the first token has no output to end.
        if (count > 0 || options.echo) shown.stdout.write("\n");
      }
      const seconds = (performance.now() - firstMs) / 1000;
      // The first token includes reading the prompt and compiling.
      const tokensPerSecond = count > 1 ? (count - 1) / seconds : undefined;
      const speed = tokensPerSecond === undefined ? "" : `, ${tokensPerSecond.toFixed(1)} tokens/s`;
      note(io, `${count} tokens${speed}, first after ${((firstMs - startMs) / 1000).toFixed(2)} s`);
      if (options.json) {
        const reason = matcher.stopped ? "stop" : count < maxTokens ? "end" : "length";
        printJson(io, { prompt, text, tokens: count, reason, tokensPerSecond });
      }
    });

  async function readPrompt(): Promise<string> {
    const text = await io.readStdin();
    // The line end that `echo` adds is not meant.
    return text?.replace(/\r?\n$/, "") ?? "";
  }
}

/** Options that were given. */
function defined(options: Options): { temperature?: number; topK?: number; topP?: number; maxTokens?: number } {
  const { temperature, topK, topP, maxTokens } = options;
  const given = Object.entries({ temperature, topK, topP, maxTokens }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given);
}
