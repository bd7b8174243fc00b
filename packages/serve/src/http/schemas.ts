// What clients may send, in one place: requests are checked by these schemas, and /openapi.json is made from them.
// Fields that are not listed are passed over, as clients send many.

import { z } from "zod";

/** Bounds that do not depend on the model. */
export const limits = {
  /** Prompts times answers of one request. */
  choices: 128,
  stops: 16,
  stopLength: 256,
  biases: 1024,
  logprobs: 20,
  messages: 4096,
} as const;

const count = (maximum: number) => z.int().min(0).max(maximum);
const tokenId = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);
const most = 2 ** 31 - 1;

const sampling = {
  model: z.string().nullish().describe("The served model's name; left out, it is meant anyway"),
  n: z.int().min(1).max(limits.choices).nullish().describe("Answers to each prompt; answer k has seed + k"),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(-1).max(most).nullish().describe("0 or -1: all"),
  seed: z.int().nullish().describe("Same seed, same text, whatever else the server does; its lower 32 bits count"),
  stop: z
    .union([
      z.string().min(1).max(limits.stopLength),
      z.array(z.string().min(1).max(limits.stopLength)).max(limits.stops),
    ])
    .nullish(),
  logit_bias: z.record(z.string(), z.number().min(-100).max(100)).nullish().describe("By token id"),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  ignore_eos: z.boolean().nullish().describe("Go on after end-of-text"),
  stream: z.boolean().nullish(),
  stream_options: z
    .object({ include_usage: z.boolean().nullish(), continuous_usage_stats: z.boolean().nullish() })
    .nullish(),
};

export const completionRequest = z.object({
  ...sampling,
  prompt: z
    .union([z.string(), z.array(tokenId).min(1), z.array(z.string()).min(1), z.array(z.array(tokenId).min(1)).min(1)])
    .describe("A text, token ids, or several of one kind"),
  max_tokens: count(most).nullish().describe("Default 16"),
  best_of: count(limits.choices).nullish().describe("Answers to choose the n likeliest from; not while streaming"),
  echo: z.boolean().nullish().describe("Give the prompt back in front of the answer"),
  logprobs: count(limits.logprobs).nullish(),
  suffix: z.string().nullish().describe("Not supported: anything but an empty text is refused"),
});
export type CompletionRequest = z.infer<typeof completionRequest>;

const textPart = z.object({ type: z.literal("text"), text: z.string() });
const message = z.looseObject({
  role: z.enum(["system", "developer", "user", "assistant", "tool", "function"]),
  content: z.union([z.string(), z.array(textPart)]).nullish(),
});

export const chatRequest = z.object({
  ...sampling,
  messages: z.array(message).min(1).max(limits.messages),
  max_tokens: count(most).nullish().describe("Default: what the context leaves"),
  max_completion_tokens: count(most).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: count(limits.logprobs).nullish(),
  tools: z.array(z.unknown()).nullish().describe('Not supported: refused unless tool_choice is "none"'),
  tool_choice: z.unknown().optional(),
  functions: z.array(z.unknown()).nullish().describe('Not supported: refused unless function_call is "none"'),
  function_call: z.unknown().optional(),
  response_format: z.looseObject({ type: z.string() }).nullish().describe('Only "text"'),
  modalities: z.array(z.string()).nullish().describe('Only "text"'),
});
export type ChatRequest = z.infer<typeof chatRequest>;
export type SamplingFields = Omit<CompletionRequest, "prompt" | "best_of" | "echo" | "logprobs" | "suffix">;

export const tokenizeRequest = z.object({
  model: sampling.model,
  prompt: z.string().nullish(),
  messages: z.array(message).min(1).max(limits.messages).nullish(),
  return_token_strs: z.boolean().nullish(),
});
export const tokenizeResponse = z.object({
  count: z.int(),
  max_model_len: z.int(),
  tokens: z.array(z.int()),
  token_strs: z.array(z.string()).nullish(),
});

export const detokenizeRequest = z.object({ model: sampling.model, tokens: z.array(tokenId) });
export const detokenizeResponse = z.object({ prompt: z.string() });

const usage = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.object({ cached_tokens: z.int() }),
});
export type Usage = z.infer<typeof usage>;

const answer = { id: z.string(), created: z.int(), model: z.string(), system_fingerprint: z.string() };
const finishReason = z.enum(["stop", "length"]).nullable();

const completionLogprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
  text_offset: z.array(z.int()),
});
export type CompletionLogprobs = z.infer<typeof completionLogprobs>;

export const completionResponse = z.object({
  ...answer,
  object: z.literal("text_completion"),
  choices: z.array(
    z.object({
      index: z.int(),
      text: z.string(),
      logprobs: completionLogprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage: usage.nullish(),
});
export type CompletionResponse = z.infer<typeof completionResponse>;

const tokenLogprob = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()).nullable() });
const chatLogprobs = z.object({
  content: z.array(tokenLogprob.extend({ top_logprobs: z.array(tokenLogprob) })).nullable(),
  refusal: z.null(),
});
export type ChatLogprobs = z.infer<typeof chatLogprobs>;

export const chatResponse = z.object({
  ...answer,
  object: z.literal("chat.completion"),
  choices: z.array(
    z.object({
      index: z.int(),
      message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
      logprobs: chatLogprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage,
});
export type ChatResponse = z.infer<typeof chatResponse>;

const model = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  max_model_len: z.int(),
});
export const modelResponse = model;
export const modelList = z.object({ object: z.literal("list"), data: z.array(model) });
export const statusResponse = z.object({ status: z.string() });
export const versionResponse = z.object({ version: z.string() });
export const tokenizerInfo = z.looseObject({ eos_token: z.string().nullable() });
