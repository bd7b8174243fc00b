// The description of the API in OpenAPI 3.1, whose schemas are JSON Schema: those that requests are checked by.

import { z } from "zod";
import { errorSchema } from "./errors.ts";
import * as schemas from "./schemas.ts";

interface Route {
  readonly method: "get" | "post";
  readonly path: string;
  readonly summary: string;
  readonly body?: z.ZodType;
  readonly answer: z.ZodType | "text/plain" | "text/html";
  /** What the answer is where the request asks for a stream. */
  readonly streams?: boolean;
  /** Needs no key. */
  readonly open?: boolean;
  readonly errors: readonly number[];
}

const generating = [400, 401, 404, 413, 500, 503];

export const routes = {
  completions: {
    method: "post",
    path: "/v1/completions",
    summary: "Continue a text",
    body: schemas.completionRequest,
    answer: schemas.completionResponse,
    streams: true,
    errors: generating,
  },
  chat: {
    method: "post",
    path: "/v1/chat/completions",
    summary: "Answer a conversation",
    body: schemas.chatRequest,
    answer: schemas.chatResponse,
    streams: true,
    errors: generating,
  },
  models: {
    method: "get",
    path: "/v1/models",
    summary: "The served model, as a list",
    answer: schemas.modelList,
    errors: [401],
  },
  model: {
    method: "get",
    path: "/v1/models/{model}",
    summary: "The served model",
    answer: schemas.modelResponse,
    errors: [401, 404],
  },
  tokenize: {
    method: "post",
    path: "/tokenize",
    summary: "Tokens of a text or a conversation",
    body: schemas.tokenizeRequest,
    answer: schemas.tokenizeResponse,
    errors: [400, 401, 404, 413],
  },
  detokenize: {
    method: "post",
    path: "/detokenize",
    summary: "Text of tokens",
    body: schemas.detokenizeRequest,
    answer: schemas.detokenizeResponse,
    errors: [400, 401, 404, 413],
  },
  tokenizerInfo: {
    method: "get",
    path: "/tokenizer_info",
    summary: "The tokenizer's configuration",
    answer: schemas.tokenizerInfo,
    errors: [401],
  },
  health: {
    method: "get",
    path: "/health",
    summary: "Whether the model runs",
    answer: schemas.statusResponse,
    open: true,
    errors: [503],
  },
  ready: {
    method: "get",
    path: "/ready",
    summary: "Whether requests are taken",
    answer: schemas.statusResponse,
    open: true,
    errors: [503],
  },
  metrics: {
    method: "get",
    path: "/metrics",
    summary: "Measurements for Prometheus",
    answer: "text/plain",
    errors: [401],
  },
  version: {
    method: "get",
    path: "/version",
    summary: "Version of the server",
    answer: schemas.versionResponse,
    errors: [401],
  },
  openapi: {
    method: "get",
    path: "/openapi.json",
    summary: "This document",
    answer: z.looseObject({ openapi: z.string() }),
    errors: [401],
  },
  page: { method: "get", path: "/", summary: "A page to chat on", answer: "text/html", errors: [401] },
} as const satisfies Record<string, Route>;

/** Paths that are answered without a key. */
export const openPaths: ReadonlySet<string> = new Set(
  Object.values<Route>(routes).flatMap(({ open, path }) => (open ? [path] : [])),
);

export function openApiDocument(version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of Object.values<Route>(routes)) {
    paths[route.path] = { ...paths[route.path], [route.method]: operation(route) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "SISA server", version, description: "Language models, in the manner of OpenAI's API." },
    paths,
    components: {
      schemas: { Error: jsonSchema(errorSchema, "output") },
      securitySchemes: { key: { type: "http", scheme: "bearer" } },
    },
    security: [{ key: [] }],
  };
}

function operation({ path, summary, body, answer, streams, open, errors }: Route): object {
  const content =
    typeof answer === "string"
      ? { [answer]: { schema: { type: "string" } } }
      : { "application/json": { schema: jsonSchema(answer, "output") } };
  const failures = errors.map((status) => [
    String(status),
    {
      description: "What went wrong",
      content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
    },
  ]);
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
  return {
    summary,
    ...(open ? { security: [] } : {}),
    ...(names.length === 0
      ? {}
      : { parameters: names.map((name) => ({ name, in: "path", required: true, schema: { type: "string" } })) }),
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { "application/json": { schema: jsonSchema(body, "input") } } } }),
    responses: {
      "200": {
        description: "Done",
        content: streams ? { ...content, "text/event-stream": { schema: { type: "string" } } } : content,
      },
      ...Object.fromEntries(failures),
    },
  };
}

function jsonSchema(schema: z.ZodType, io: "input" | "output"): object {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io });
  return rest;
}
