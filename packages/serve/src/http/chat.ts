// POST /v1/chat/completions: a conversation becomes a prompt by the model's own template.

import type { Tokenizer } from "@sisa/hub";
import type { GenerationRequest } from "../engine/request.ts";
import type { TokenScore } from "../engine/scores.ts";
import type { ChatTemplate } from "./chat-template.ts";
import { tokenText } from "./completions.ts";
import { ApiError } from "./errors.ts";
import type { ChatLogprobs, ChatRequest, ChatResponse } from "./schemas.ts";
import { Answers, checkModel, type Reply, type Service, samplingOf } from "./service.ts";

/** @throws ApiError, and the engine's errors */
export function startChat(service: Service, body: ChatRequest, signal: AbortSignal): Reply<ChatResponse> {
  checkModel(service, body.model);
  refuseUnsupported(body);
  const { engine } = service;
  const template = templateOf(service);
  const n = body.n ?? 1;
  const answers = new Answers(service, signal, { prompts: 1, perPrompt: n }, () => {
    const tokens = engine.tokenizer.encode(template.render(messagesOf(body.messages)));
    const maxTokens = body.max_completion_tokens ?? body.max_tokens;
    const request: GenerationRequest = {
      ...samplingOf(body, service),
      tokens,
      ...(maxTokens == null ? {} : { maxTokens }),
      ...(body.logprobs ? { logprobs: body.top_logprobs ?? 0 } : {}),
    };
    return [request];
  });

  const base = {
    id: `chatcmpl-${crypto.randomUUID()}`,
    created: Math.floor(Date.now() / 1000),
    model: service.modelName,
    system_fingerprint: service.fingerprint,
  };
  const logprobsOf = (scores: readonly TokenScore[]): ChatLogprobs | null =>
    body.logprobs ? { content: scores.map((score) => scored(score, engine.tokenizer)), refusal: null } : null;

  return {
    answers,
    async whole() {
      const parts = answers.generations.map(() => ({ text: "", scores: [] as TokenScore[] }));
      for await (const [choice, event] of answers.events()) {
        const part = parts[choice];
        if (part === undefined) continue;
        part.text += event.text;
        part.scores.push(...event.scores);
      }
      const choices = parts.map(({ text, scores }, index) => ({
        index,
        message: { role: "assistant" as const, content: text, refusal: null },
        logprobs: logprobsOf(scores),
        finish_reason: answers.generations[index]?.finish ?? null,
      }));
      return { ...base, object: "chat.completion" as const, choices, usage: answers.usage() };
    },
    async *chunks() {
      const { include_usage: withUsage, continuous_usage_stats: always } = body.stream_options ?? {};
      const chunk = (index: number, delta: object, finish: string | null, scores: readonly TokenScore[] = []) => ({
        ...base,
        object: "chat.completion.chunk",
        choices: [{ index, delta, logprobs: scores.length > 0 ? logprobsOf(scores) : null, finish_reason: finish }],
        ...(always ? { usage: answers.usage() } : withUsage ? { usage: null } : {}),
      });
      const begun = new Set<number>();
      for await (const [index, event] of answers.events()) {
        if (!begun.has(index)) yield chunk(index, { role: "assistant", content: "" }, null);
        begun.add(index);
        const { text, scores, finish } = event;
        if (text !== "" || (body.logprobs && scores.length > 0)) yield chunk(index, { content: text }, null, scores);
        if (finish) yield chunk(index, {}, finish);
      }
      if (withUsage) yield { ...base, object: "chat.completion.chunk", choices: [], usage: answers.usage() };
    },
  };
}

/** @throws ApiError where the model has no template */
export function templateOf({ template, modelName }: Service): ChatTemplate {
  if (template) return template;
  const message = `"${modelName}" has no chat template: its tokenizer_config.json names none. Use /v1/completions, or start the server with a template`;
  throw new ApiError(400, message, { param: "messages", code: "no_chat_template" });
}

/** Messages as templates expect them: content is text, and who is called developer elsewhere is the system. */
export function messagesOf(messages: ChatRequest["messages"]): Record<string, unknown>[] {
  return messages.map(({ role, content, ...rest }) => {
    const text = Array.isArray(content) ? content.map((part) => part.text).join("") : (content ?? "");
    return { ...rest, role: role === "developer" ? "system" : role, content: text };
  });
}

function refuseUnsupported(body: ChatRequest): void {
  const refuse = (param: string, message: string): never => {
    throw new ApiError(400, `${param}: ${message}`, { param });
  };
  if (body.tools?.length && body.tool_choice !== "none") refuse("tools", "tool calls are not supported");
  if (body.functions?.length && body.function_call !== "none") refuse("functions", "function calls are not supported");
  const format = body.response_format?.type;
  if (format !== undefined && format !== "text") refuse("response_format", `expected "text", got "${format}"`);
  const modality = body.modalities?.find((name) => name !== "text");
  if (modality !== undefined) refuse("modalities", `expected "text", got "${modality}"`);
}

function scored({ token, logprob, top }: TokenScore, tokenizer: Tokenizer) {
  const entry = (id: number, value: number) => ({
    token: tokenText(id, tokenizer),
    logprob: value,
    bytes: id < tokenizer.size ? Array.from(tokenizer.tokenBytes(id)) : null,
  });
  return { ...entry(token, logprob), top_logprobs: top.map((other) => entry(other.token, other.logprob)) };
}
