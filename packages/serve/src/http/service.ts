// What the routes share: the engine, the model's name, and requests on their way through admission to answers.

import type { Admission, Engine } from "../engine/engine.ts";
import type { Generation } from "../engine/generation.ts";
import type { GenerationEvent, GenerationRequest } from "../engine/request.ts";
import type { ChatTemplate } from "./chat-template.ts";
import { ApiError } from "./errors.ts";
import { limits, type SamplingFields, type Usage } from "./schemas.ts";
import { merge } from "./stream.ts";

export interface Service {
  readonly engine: Engine;
  readonly modelName: string;
  /** Seconds since 1970 at which serving began. */
  readonly created: number;
  readonly fingerprint: string;
  readonly template: ChatTemplate | undefined;
  /** Where a request says nothing. */
  readonly defaults: { readonly temperature?: number; readonly topK?: number; readonly topP?: number };
}

/** @throws ApiError for a model that is not served */
export function checkModel({ modelName }: Service, model: string | null | undefined): void {
  if (typeof model !== "string" || model === modelName) return;
  const message = `the model "${model}" does not exist; this server has "${modelName}"`;
  throw new ApiError(404, message, { param: "model", code: "model_not_found" });
}

/** Answers to several prompts, in the order of prompts, then samples. */
export class Answers {
  readonly generations: readonly Generation[];
  readonly promptTokens: number;
  readonly #perPrompt: number;
  readonly #admission: Admission;
  readonly #stopping = new AbortController();
  readonly #cached = new Map<number, number>();

  /**
   * Takes room for all answers, then makes the requests: nothing is tokenized for a request that there is no room for.
   *
   * @param perPrompt answers to each prompt
   * @param requests  one for each prompt, called once there is room
   */
  constructor(
    { engine }: Service,
    signal: AbortSignal,
    { prompts, perPrompt }: { readonly prompts: number; readonly perPrompt: number },
    requests: () => readonly GenerationRequest[],
  ) {
    const choices = prompts * perPrompt;
    const most = Math.min(limits.choices, engine.mostAdmitted);
    if (choices > most) {
      throw new ApiError(400, `at most ${most} answers fit in one request, ${choices} were asked for`, { param: "n" });
    }
    this.#perPrompt = perPrompt;
    this.#admission = engine.admit(choices);
    try {
      const each = requests();
      // A signal each: Node warns of a leak where many listen to one.
      const combined = () => AbortSignal.any([signal, this.#stopping.signal]);
      this.generations = each.flatMap((request) =>
        Array.from({ length: perPrompt }, (_, sample) => {
          // Of the largest seeds a sum would lose the bits that count.
          const seed = ((request.seed ?? 0) >>> 0) + sample;
          return this.#admission.submit({ ...request, seed, signal: combined() });
        }),
      );
      this.promptTokens = each.reduce((sum, { tokens }) => sum + tokens.length, 0);
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /** Ends what is still running, and gives the room back. */
  readonly stop = (): void => {
    this.#stopping.abort();
    this.#admission.release();
  };

  async *events(): AsyncGenerator<readonly [choice: number, event: GenerationEvent], void, void> {
    try {
      for await (const [choice, event] of merge(this.generations)) {
        if (event.prompt) this.#cached.set(choice, event.prompt.cachedTokens);
        yield [choice, event];
      }
    } finally {
      this.stop();
    }
  }

  usage(): Usage {
    const generated = this.generations.reduce((sum, generation) => sum + generation.generated, 0);
    // A prompt counts once, however many answers it has; so does what the first of them found.
    const first = this.generations.map((_, choice) => choice).filter((choice) => choice % this.#perPrompt === 0);
    const cached = first.map((choice) => this.#cached.get(choice) ?? 0);
    return {
      prompt_tokens: this.promptTokens,
      completion_tokens: generated,
      total_tokens: this.promptTokens + generated,
      prompt_tokens_details: { cached_tokens: cached.reduce((a, b) => a + b, 0) },
    };
  }
}

/** What a request is answered with. */
export interface Reply<Response extends object> {
  readonly answers: Answers;
  /** Everything, once it has come. */
  whole(): Promise<Response>;
  /** The same in chunks. */
  chunks(): AsyncGenerator<object, void, void>;
}

/** What sampling fields mean to the engine. */
export function samplingOf(body: SamplingFields, { defaults, engine }: Service): Omit<GenerationRequest, "tokens"> {
  const temperature = body.temperature ?? defaults.temperature;
  const topK = body.top_k ?? defaults.topK;
  const topP = body.top_p ?? defaults.topP;
  return {
    ...(temperature === undefined ? {} : { temperature }),
    ...(topK === undefined ? {} : { topK: Math.max(0, topK) }),
    ...(topP === undefined ? {} : { topP }),
    seed: body.seed ?? Math.floor(Math.random() * 2 ** 32),
    stop: typeof body.stop === "string" ? [body.stop] : (body.stop ?? []),
    logitBias: biasOf(body.logit_bias ?? {}, engine.vocabularySize),
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    ignoreEndOfText: body.ignore_eos ?? false,
  };
}

/** Biases of zero change nothing, whatever they are for. */
function biasOf(fields: Readonly<Record<string, number>>, vocabularySize: number): Map<number, number> {
  const entries = Object.entries(fields).filter(([, bias]) => bias !== 0);
  if (entries.length > limits.biases) {
    throw new ApiError(400, `logit_bias: at most ${limits.biases} tokens, got ${entries.length}`, {
      param: "logit_bias",
    });
  }
  return new Map(
    entries.map(([key, bias]) => {
      const id = /^\d{1,9}$/.test(key) ? Number(key) : Number.NaN;
      if (!(id < vocabularySize)) {
        const message = `logit_bias: expected token ids from 0 to ${vocabularySize - 1}, got "${key}"`;
        throw new ApiError(400, message, { param: "logit_bias" });
      }
      return [id, bias];
    }),
  );
}
