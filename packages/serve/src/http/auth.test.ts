import { timingSafeEqual } from "node:crypto";
import { Hono } from "hono";
import { beforeEach, expect, test, vi } from "vitest";
import { requireKey } from "./auth.ts";
import { toApiError } from "./errors.ts";

vi.mock("node:crypto", async (original) => {
  const crypto = await original<typeof import("node:crypto")>();
  return { ...crypto, timingSafeEqual: vi.fn(crypto.timingSafeEqual) };
});
const compared = vi.mocked(timingSafeEqual);
beforeEach(() => void compared.mockClear());

const app = new Hono();
app.use(requireKey("sk-correct"));
app.get("/", (context) => context.text("inside"));
app.onError((error, context) => context.json(toApiError(error).body, toApiError(error).status));

test.each([
  [undefined, 401],
  ["", 401],
  ["Bearer", 401],
  ["Bearer s", 401],
  ["Bearer sk-correcT", 401],
  [`Bearer ${"x".repeat(10_000)}`, 401],
  ["Bearer sk-correct", 200],
])("%s is compared in constant time, whatever its length", async (authorization, status) => {
  const answer = await app.request("/", { headers: authorization === undefined ? {} : { authorization } });
  expect(answer.status).toBe(status);
  expect(compared).toHaveBeenCalledOnce();
  const [given, expected] = compared.mock.calls[0] ?? [];
  expect(given?.byteLength).toBe(32);
  expect(expected?.byteLength).toBe(32);
});
