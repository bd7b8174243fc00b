// A server with the tiny model on a free port, and requests to it.
import { onnxruntime } from "@sisa/onnx";
import { afterAll } from "vitest";
import { type ServeOptions, type Server, serve } from "../src/node.ts";
import { tinyModel } from "./tiny.ts";

export const template =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

/** Starts a server, which is closed after the tests of the file. */
export async function startServer(
  options: Partial<ServeOptions> = {},
  change: Parameters<typeof tinyModel>[0] = {},
  loadedChange: Partial<ReturnType<typeof tinyModel>> = {},
): Promise<Server> {
  const backend = await onnxruntime({ threads: 1 });
  const loaded = { ...tinyModel(change), ...loadedChange, generationConfig: {}, assets: {} };
  const server = await serve(loaded, {
    backend,
    port: 0,
    modelName: "tiny",
    chatTemplate: template,
    slots: 4,
    ...options,
  });
  afterAll(async () => {
    await server.close(0);
    await backend.close();
  });
  return server;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests read fields of JSON and compare them
  readonly json: any;
}

export async function post(server: Server, path: string, body: unknown, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(server.url + path, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...init,
    headers: { "content-type": "application/json", ...init.headers },
  });
  return { status: response.status, headers: response.headers, json: await response.json() };
}

/** Data of the frames of a stream, the last of which is [DONE]. */
export async function frames(server: Server, path: string, body: object): Promise<Answer["json"][]> {
  const response = await fetch(server.url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
  });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
  const parts = text.split("\n\n").filter((part) => part !== "" && !part.startsWith(":"));
  if (parts.pop() !== "data: [DONE]") throw new Error(`the stream does not end with [DONE]: ${text}`);
  return parts.map((part) => JSON.parse(part.replace(/^data: /, "")));
}
