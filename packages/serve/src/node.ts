// The HTTP server, in Node.

import { type AddressInfo, isIP } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { type Backend, ConfigError, type Precision } from "@sisa/core";
import type { LoadedModel } from "@sisa/hub";
import manifest from "../package.json" with { type: "json" };
import { Engine } from "./engine/engine.ts";
import { createApp, type LogEntry } from "./http/app.ts";
import { chatTemplate, tokenizerConfig } from "./http/chat-template.ts";
import { Metrics } from "./http/metrics.ts";

export type { LogEntry } from "./http/app.ts";

/** Where to listen, whom to answer, and how much to take on. */
export interface ServeOptions {
  /** Where the model runs. It is not closed. */
  readonly backend: Backend;
  /** Widths of weights, caches and what is computed, where the backend has them. Default "float32". */
  readonly precision?: Precision;
  /** 0 takes any that is free. Default 8080. */
  readonly port?: number;
  /** Default 127.0.0.1: this machine alone. */
  readonly host?: string;
  /** What clients call the model. Default "sisa". */
  readonly modelName?: string;
  /** Asked for everywhere but at /health and /ready. Default: no key. */
  readonly apiKey?: string;
  /** Sequences that are computed at once. Default 8. */
  readonly slots?: number;
  /** Sequences that may wait beyond those. Default 128. */
  readonly queueLength?: number;
  /** Tokens of a sequence, prompt included. Default: the model's maximum length. */
  readonly contextLength?: number;
  /** As in EngineOptions. Default slots * contextLength. */
  readonly cacheTokens?: number;
  /** A Jinja template for chats. Default: that of the tokenizer's configuration, where it has one. */
  readonly chatTemplate?: string;
  /** Bytes of a request's body at most. Default 4 MiB. */
  readonly bodyBytes?: number;
  /** Milliseconds of silence in a stream after which a comment is sent. Default 15,000. */
  readonly pingMs?: number;
  /** Milliseconds after which a client that takes nothing of its stream is hung up on. Default 60,000. */
  readonly stallMs?: number;
  /** Is told of every answer; never of keys or texts. Default: nobody. */
  readonly log?: (entry: LogEntry) => void;
}

/** A server that answers until it is closed. */
export interface Server extends AsyncDisposable {
  /** Where it is, such as `http://127.0.0.1:8080`. */
  readonly url: string;
  /** The one that was asked for, or found free. */
  readonly port: number;
  /** What computes the answers. */
  readonly engine: Engine;
  /**
   * Takes no new requests, finishes those it has, and closes. What is not finished in time ends with an error.
   * @param timeoutMs default 30,000
   */
  close(timeoutMs?: number): Promise<void>;
}

/**
 * Serves a model over HTTP in the manner of OpenAI's API.
 *
 * @throws ConfigError for an empty key, and what `Engine.create` refuses; CheckpointError for a chat template that
 *   cannot be used; an error of the system where the port is taken
 */
export async function serve(loaded: LoadedModel, options: ServeOptions): Promise<Server> {
  const { port = 8080, host = "127.0.0.1", modelName = "sisa", apiKey } = options;
  if (apiKey === "") throw new ConfigError("serve: the API key is empty; give one, or leave it out");
  const { model, parameters, tokenizer, generationConfig, assets } = loaded;
  const config = tokenizerConfig({ ...tokenizer.files, ...assets });
  const template = chatTemplate(config, options.chatTemplate);
  const metrics = new Metrics();
  const engine = await Engine.create({ ...options, model, parameters, tokenizer, observer: metrics.observer });
  metrics.watch(engine);
  const { temperature, topK, topP } = generationConfig;
  const app = createApp({
    service: {
      engine,
      modelName,
      created: Math.floor(Date.now() / 1000),
      fingerprint: `sisa-${manifest.version}-${options.backend.name}`,
      template,
      defaults: {
        ...(temperature === undefined ? {} : { temperature }),
        ...(topK === undefined ? {} : { topK }),
        ...(topP === undefined ? {} : { topP }),
      },
    },
    metrics,
    version: manifest.version,
    tokenizerConfig: config,
    apiKey,
    bodyBytes: options.bodyBytes ?? 4 * 2 ** 20,
    stream: { pingMs: options.pingMs ?? 15_000, stallMs: options.stallMs ?? 60_000 },
    log: options.log,
  });
  const http = createAdaptorServer({ fetch: app.fetch });
  try {
    await new Promise<void>((resolve, reject) => {
      http.once("error", reject);
      http.listen(port, host, resolve);
    });
  } catch (error) {
    await engine.close();
    throw error;
  }
  const bound = (http.address() as AddressInfo).port;

  let closing: Promise<void> | undefined;
  const close = async (timeoutMs: number): Promise<void> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([engine.drain(), late]);
    clearTimeout(timer);
    await engine.close();
    const closed = new Promise<void>((resolve) => {
      http.close(() => resolve());
    });
    // Answers that are on their way out are given a moment; connections that only wait are not.
    if ("closeIdleConnections" in http) http.closeIdleConnections();
    const hangUp = setTimeout(() => {
      if ("closeAllConnections" in http) http.closeAllConnections();
    }, 1000);
    await closed;
    clearTimeout(hangUp);
  };
  const closeOnce = (timeoutMs = 30_000): Promise<void> => {
    closing ??= close(timeoutMs);
    return closing;
  };
  return {
    url: `http://${isIP(host) === 6 ? `[${host}]` : host}:${bound}`,
    port: bound,
    engine,
    close: closeOnce,
    [Symbol.asyncDispose]: () => closeOnce(),
  };
}
