// The routes. Each reads a checked body, asks the engine, and writes JSON or a stream of it.

import type { HttpBindings } from "@hono/node-server";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { requestId } from "hono/request-id";
import type { z } from "zod";
import { requireKey } from "./auth.ts";
import { messagesOf, startChat, templateOf } from "./chat.ts";
import { chatPage } from "./chat-page.ts";
import { specialToken } from "./chat-template.ts";
import { startCompletion, tokenText } from "./completions.ts";
import { ApiError, toApiError } from "./errors.ts";
import type { Metrics } from "./metrics.ts";
import { openApiDocument, routes } from "./openapi.ts";
import * as schemas from "./schemas.ts";
import { checkModel, type Reply, type Service } from "./service.ts";
import { eventStream, type StreamOptions } from "./stream.ts";

export interface AppOptions {
  readonly service: Service;
  readonly metrics: Metrics;
  readonly version: string;
  /** tokenizer_config.json */
  readonly tokenizerConfig: Readonly<Record<string, unknown>>;
  readonly apiKey?: string | undefined;
  readonly bodyBytes: number;
  readonly stream: Pick<StreamOptions, "pingMs" | "stallMs">;
  /** Is told of every answer; never of keys or texts. */
  readonly log?: ((entry: LogEntry) => void) | undefined;
}

/** One answered request. */
export interface LogEntry {
  /** As in the header `x-request-id` of the answer. */
  readonly requestId: string;
  /** "GET", "POST". */
  readonly method: string;
  /** Without its query. */
  readonly path: string;
  /** HTTP status of the answer. */
  readonly status: number;
  /** Until the answer began. */
  readonly durationMs: number;
  /** Of an answer that is not the client's fault. */
  readonly error?: unknown;
}

type App = Hono<{ Bindings: HttpBindings }>;

export function createApp(options: AppOptions): App {
  const { service, metrics, version } = options;
  const { engine, modelName } = service;
  const { tokenizer } = engine;
  const app: App = new Hono();
  const answer = async (context: Context<{ Bindings: HttpBindings }>, reply: Reply<object>, isStream: boolean) => {
    if (!isStream) return context.json(await reply.whole());
    return eventStream(reply.chunks(), (error) => toApiError(error).body, {
      ...options.stream,
      stop: reply.answers.stop,
      hangUp: () => context.env.outgoing.destroy(),
    });
  };

  app.use(requestId());
  app.use(async (context, next) => {
    const startMs = performance.now();
    await next();
    const { method, path } = context.req;
    const { error } = context;
    const durationMs = performance.now() - startMs;
    const { status } = context.res;
    options.log?.({
      requestId: context.get("requestId"),
      method,
      path,
      status,
      durationMs,
      ...(status >= 500 && error ? { error } : {}),
    });
  });
  if (options.apiKey !== undefined) app.use(requireKey(options.apiKey));
  app.use(
    bodyLimit({
      maxSize: options.bodyBytes,
      onError: () => {
        throw new ApiError(413, `the request's body is larger than ${options.bodyBytes} bytes`);
      },
    }),
  );
  app.onError((error, context) => {
    const { status, body, headers } = toApiError(error);
    return context.json(body, status, headers);
  });
  app.notFound((context) => {
    const { method, path } = context.req;
    const { status, body } = new ApiError(404, `there is no ${method} ${path}`, { type: "not_found_error" });
    return context.json(body, status);
  });

  app.post(routes.completions.path, async (context) => {
    const body = await read(context.req.raw, schemas.completionRequest);
    return answer(context, startCompletion(service, body, context.req.raw.signal), body.stream === true);
  });
  app.post(routes.chat.path, async (context) => {
    const body = await read(context.req.raw, schemas.chatRequest);
    return answer(context, startChat(service, body, context.req.raw.signal), body.stream === true);
  });

  const model = {
    id: modelName,
    object: "model" as const,
    created: service.created,
    owned_by: "sisa",
    max_model_len: engine.contextLength,
  };
  app.get(routes.models.path, (context) => context.json({ object: "list", data: [model] }));
  // Names may have slashes.
  app.get("/v1/models/:model{.+}", (context) => {
    checkModel(service, context.req.param("model"));
    return context.json(model);
  });

  app.post(routes.tokenize.path, async (context) => {
    const body = await read(context.req.raw, schemas.tokenizeRequest);
    checkModel(service, body.model);
    if ((body.prompt == null) === (body.messages == null)) {
      throw new ApiError(400, "expected either prompt or messages", { param: "prompt" });
    }
    const text = body.messages ? templateOf(service).render(messagesOf(body.messages)) : (body.prompt ?? "");
    const tokens = tokenizer.encode(text);
    return context.json({
      count: tokens.length,
      max_model_len: engine.contextLength,
      tokens,
      ...(body.return_token_strs ? { token_strs: tokens.map((id) => tokenText(id, tokenizer)) } : {}),
    });
  });
  app.post(routes.detokenize.path, async (context) => {
    const { model: name, tokens } = await read(context.req.raw, schemas.detokenizeRequest);
    checkModel(service, name);
    return context.json({ prompt: tokenizer.decode(tokens) });
  });
  app.get(routes.tokenizerInfo.path, (context) => {
    const config = options.tokenizerConfig;
    const endOfText = tokenizer.endOfText === undefined ? null : tokenText(tokenizer.endOfText, tokenizer);
    return context.json({
      ...config,
      bos_token: specialToken(config, "bos_token"),
      eos_token: specialToken(config, "eos_token") ?? endOfText,
      chat_template: service.template?.source ?? null,
    });
  });

  const unavailable = (code: string, message: string) =>
    new ApiError(503, message, { type: "service_unavailable_error", code });
  app.get(routes.health.path, (context) => {
    if (engine.healthy) return context.json({ status: "ok" });
    throw unavailable("run_failed", "the last run of the model failed");
  });
  app.get(routes.ready.path, (context) => {
    if (engine.ready) return context.json({ status: "ready" });
    throw unavailable("not_ready", "no requests are taken");
  });
  app.get(routes.metrics.path, async (context) =>
    context.text(await metrics.text(), 200, { "content-type": metrics.contentType }),
  );
  app.get(routes.version.path, (context) => context.json({ version }));
  app.get(routes.openapi.path, (context) => context.json(openApiDocument(version)));
  app.get(routes.page.path, (context) => {
    const page = chatPage(modelName, service.template !== undefined);
    return context.html(page, 200, {
      "content-security-policy":
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    });
  });
  return app;
}

/** A body of JSON that fits a schema. @throws ApiError that names the first field that does not fit */
async function read<S extends z.ZodType>(request: Request, schema: S): Promise<z.output<S>> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new ApiError(400, `expected content-type application/json, got "${type}"`);
  }
  const text = await request.text();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ApiError(400, "the request's body is not JSON");
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const param = issue?.path.join(".") ?? "";
  const message = issue?.message ?? "does not fit";
  throw new ApiError(400, param === "" ? message : `${param}: ${message}`, param === "" ? {} : { param });
}
