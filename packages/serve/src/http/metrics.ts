// Measurements for Prometheus, named as vLLM names its own.

import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine, EngineObserver } from "../engine/engine.ts";

const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const tokens = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

export class Metrics {
  readonly observer: EngineObserver;
  readonly #registry = new Registry();

  constructor() {
    const registers = [this.#registry];
    const counter = (name: string, help: string) => new Counter({ name: `sisa:${name}`, help, registers });
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name: `sisa:${name}`, help, buckets, registers });

    const queries = counter("prefix_cache_queries_total", "Prompt tokens that were looked for in slots");
    const hits = counter("prefix_cache_hits_total", "Prompt tokens that were found there");
    const promptTokens = counter("prompt_tokens_total", "Prompt tokens that were computed");
    const generatedTokens = counter("generation_tokens_total", "Tokens that were generated");
    const success = new Counter({
      name: "sisa:request_success_total",
      help: "Answers that were completed",
      labelNames: ["finished_reason"],
      registers,
    });
    const failed = new Counter({
      name: "sisa:request_failure_total",
      help: "Answers that were cancelled by the client or failed",
      labelNames: ["reason"],
      registers,
    });
    const iteration = histogram("iteration_tokens_total", "Tokens in one run", tokens);
    const first = histogram("time_to_first_token_seconds", "From request to first token", seconds);
    const between = histogram("inter_token_latency_seconds", "Between two tokens of an answer", seconds);
    const total = histogram("e2e_request_latency_seconds", "From request to the end of its answer", seconds);
    const queue = histogram("request_queue_time_seconds", "Waiting for a slot", seconds);
    const prefill = histogram("request_prefill_time_seconds", "From slot to first token", seconds);
    const decode = histogram("request_decode_time_seconds", "From first token to last", seconds);
    const promptLength = histogram("request_prompt_tokens", "Tokens of a prompt", tokens);
    const answerLength = histogram("request_generation_tokens", "Tokens of an answer", tokens);

    this.observer = {
      promptStarted(count, cached) {
        queries.inc(count);
        hits.inc(cached);
      },
      stepDone({ promptTokens: prompt, generatedTokens: generated }) {
        promptTokens.inc(prompt);
        iteration.observe(prompt > 0 ? prompt : generated);
      },
      tokenDone(elapsed, isFirst) {
        generatedTokens.inc();
        (isFirst ? first : between).observe(elapsed);
      },
      ended(generation, outcome) {
        if (outcome === "cancelled" || outcome === "error") {
          failed.inc({ reason: outcome });
          return;
        }
        success.inc({ finished_reason: outcome });
        const { queuedMs, startedMs = queuedMs, endedMs = startedMs, firstTokenMs = endedMs } = generation;
        const { lastTokenMs = firstTokenMs } = generation;
        total.observe((endedMs - queuedMs) / 1000);
        queue.observe((startedMs - queuedMs) / 1000);
        prefill.observe((firstTokenMs - startedMs) / 1000);
        decode.observe((lastTokenMs - firstTokenMs) / 1000);
        promptLength.observe(generation.request.tokens.length);
        answerLength.observe(generation.generated);
      },
    };
  }

  /** Adds what the engine can be asked at any moment. */
  watch(engine: Engine): void {
    const gauge = (name: string, help: string, value: () => number) => {
      const created: Gauge = new Gauge({
        name: `sisa:${name}`,
        help,
        registers: [this.#registry],
        collect: () => created.set(value()),
      });
    };
    gauge("num_requests_running", "Sequences in slots", () => engine.counts.running);
    gauge("num_requests_waiting", "Sequences that wait for a slot", () => engine.counts.waiting);
    gauge("kv_cache_usage_perc", "Part of the slots' room for tokens that running sequences take, 1 is all", () => {
      return engine.counts.runningTokens / (engine.slotCount * engine.contextLength);
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    return await this.#registry.metrics();
  }
}
