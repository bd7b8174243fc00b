// Text generation over token ids.

import { DataError } from "../errors.ts";
import { RandomStream } from "../random.ts";
import { Decoder, type DecoderOptions } from "./decoder.ts";
import { checkSampling, type SamplingOptions } from "./sampler.ts";

/** A prompt, how to choose what follows it, and when to end. */
export interface GenerateOptions extends Omit<DecoderOptions, "batch">, SamplingOptions {
  /** The prompt, at least one token. */
  readonly tokens: readonly number[];
  /** How many tokens to add at most. Default: what the capacity leaves. */
  readonly maxTokens?: number;
  /** Same seed, same text. Default 0. */
  readonly seed?: number;
  /** Ends before any of these tokens, such as end-of-text. Default none. */
  readonly stopTokens?: readonly number[];
  /**
   * Ends with the signal's reason once it is aborted: an AbortSignal, whose type the language itself does not know.
   * Default none.
   */
  readonly signal?: {
    /** Throws the reason once aborted. */
    throwIfAborted(): void;
  };
}

/**
 * Generates tokens one by one: each is computed when it is asked for, by a device one ahead. What was compiled is freed at
 * the end, also where the loop over it is left early.
 *
 * @returns ids of the tokens after the prompt
 * @throws ConfigError for impossible options; DataError where the prompt is empty or longer than the capacity, or form
 *   `sdpa` would clamp
 */
export async function* generate(options: GenerateOptions): AsyncGenerator<number, void, void> {
  checkSampling(options);
  const { tokens, model, seed = 0, stopTokens = [], signal } = options;
  const capacity =
    options.capacity ??
    Math.min(model.config.maximumLength, tokens.length + (options.maxTokens ?? Number.POSITIVE_INFINITY));
  if (tokens.length === 0)
    throw new DataError("generate: the prompt is empty; give at least one token, such as end-of-text");
  if (tokens.length > capacity) {
    throw new DataError(`generate: the prompt has ${tokens.length} tokens, more than the ${capacity} that fit`);
  }
  const limit = Math.min(options.maxTokens ?? Number.POSITIVE_INFINITY, capacity - tokens.length);
  const random = new RandomStream(seed, "sample");
  await using decoder = await Decoder.create({ ...options, capacity, batch: 1 });
  const choice = (index: number) => [{ ...options, uniform: random.uniform(index) }];
  let pending: Promise<readonly number[]> | undefined;
  try {
    for (let index = 0; index < limit; index++) {
      signal?.throwIfAborted();
      const current =
        index === 0 ? await decoder.next([tokens], [0], choice(0)) : (pending ?? decoder.follow(choice(index)));
      // A device works on the next token while this one is read and looked at.
      pending = decoder.runsAhead && index + 1 < limit ? decoder.follow(choice(index + 1)) : undefined;
      pending?.catch(() => undefined);
      const [token = -1] = await current;
      if (stopTokens.includes(token)) return;
      yield token;
    }
  } finally {
    await pending?.catch(() => undefined);
  }
}
