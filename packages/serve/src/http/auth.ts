// One key for everything but the health of the process.

import { createHash, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { ApiError } from "./errors.ts";
import { openPaths } from "./openapi.ts";

/**
 * Asks for the key as a bearer token, or as the password of HTTP's basic scheme, for which browsers have a dialog of their
 * own. It is compared in constant time and said nowhere.
 */
export function requireKey(key: string): MiddlewareHandler {
  const expected = digest(key);
  return async (context, next) => {
    if (
      !openPaths.has(context.req.path) &&
      !timingSafeEqual(digest(given(context.req.header("authorization"))), expected)
    ) {
      context.header("www-authenticate", 'Basic realm="sisa", charset="UTF-8"');
      throw new ApiError(401, "a valid API key is needed: Authorization: Bearer KEY", {
        type: "authentication_error",
        code: "invalid_api_key",
      });
    }
    await next();
  };
}

function given(header = ""): string {
  const [scheme = "", value = ""] = header.split(/ +/, 2);
  if (scheme.toLowerCase() === "bearer") return value;
  if (scheme.toLowerCase() !== "basic") return "";
  const credentials = Buffer.from(value, "base64").toString();
  return credentials.slice(credentials.indexOf(":") + 1);
}

/** Of equal length for all keys. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
