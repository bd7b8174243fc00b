// Every error a client can get, in the one form that clients of OpenAI's API read.

import { SisaError } from "@sisa/core";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { z } from "zod";
import { ContextLengthError, QueueFullError, ShuttingDownError } from "../engine/request.ts";

export const errorSchema = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable(),
    }),
  })
  .describe("What went wrong; the four keys are always there");

export type ErrorBody = z.infer<typeof errorSchema>;

interface Details {
  readonly type?: string;
  readonly param?: string;
  readonly code?: string;
  /** After how many seconds it is worth trying again. */
  readonly retryAfter?: number;
}

export class ApiError extends Error {
  readonly status: ContentfulStatusCode;
  readonly body: ErrorBody;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: ContentfulStatusCode, message: string, details: Details = {}) {
    super(message);
    const { type = "invalid_request_error", param = null, code = null, retryAfter } = details;
    this.status = status;
    this.body = { error: { message, type, param, code } };
    this.headers = retryAfter === undefined ? {} : { "retry-after": String(retryAfter) };
  }
}

/** The error that a client gets. What is not its fault is told without details. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (QueueFullError.isInstance(error)) {
    return new ApiError(503, error.message, { type: "service_unavailable_error", code: "queue_full", retryAfter: 1 });
  }
  if (ShuttingDownError.isInstance(error)) {
    const details = { type: "service_unavailable_error", code: "shutting_down", retryAfter: 5 };
    return new ApiError(503, error.message, details);
  }
  if (ContextLengthError.isInstance(error)) {
    return new ApiError(400, error.message, { code: "context_length_exceeded" });
  }
  if (SisaError.isInstance(error) && (error.code === "CONFIG" || error.code === "DATA")) {
    return new ApiError(400, error.message);
  }
  if (error instanceof HTTPException) return new ApiError(error.status as ContentfulStatusCode, error.message);
  return new ApiError(500, "the server failed to answer this request", { type: "server_error" });
}
