// The engine on an NVIDIA GPU: caches in pages give the answers that a cache of its own for each slot gives. Reported as not
// run where there is no GPU.
import type { Backend } from "@sisa/core";
import { cuda } from "@sisa/kernels-cuda";
import { expect, test } from "vitest";
import { missingDevice } from "../../../kernels-cuda/src/testing.ts";
import { tinyModel } from "../../test/tiny.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { GenerationRequest } from "./request.ts";

const missing = await missingDevice();

/** The same GPU, saying that it has no pages. */
function withoutPages(backend: Backend): Backend {
  return new Proxy(backend, {
    get(target, name) {
      if (name === "limits") return { ...target.limits, pagedCaches: false };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

const text =
  "The ferry left before the fog had lifted, and nobody on the pier could say which of its lamps had been lit";

for (const mixers of [
  ["sisa", "attention"],
  ["attention", "fox"],
]) {
  test(`${mixers.join(" and ")}: answers from pages, together, are those from caches of their own, alone`, async ({
    skip,
  }) => {
    if (missing !== undefined) return skip(`not run: no device (${missing})`);
    // Heads as wide as the kernels of decoding take them.
    const own = tinyModel({
      mixers,
      ...{ width: 128, heads: 2, stateWidth: 16 },
      mixerSettings: { fox: { kind: "attention", positions: "none", forget: true } },
    });
    // The others are drawn for a width of 16.
    for (const [name, values] of Object.entries(own.parameters)) {
      if (name.endsWith(".weight") && !name.includes("norm")) values.set(values.map((value) => value / 3));
    }
    const request = (prompt: string, maxTokens: number): GenerationRequest => {
      return { tokens: own.tokenizer.encode(prompt), maxTokens, temperature: 0, ignoreEndOfText: true };
    };
    const requests = [
      request(text, 40),
      request(`${text.slice(0, 70)}!`, 30),
      request("x", 70),
      request(text.slice(0, 66), 9),
      request(text, 20),
      request(`${text}${text}`.slice(0, 200), 20),
    ];
    const answers = async (backend: Backend, options: Partial<EngineOptions>, together: boolean) => {
      await using engine = await Engine.create({ ...own, backend, contextLength: 256, ...options });
      const answer = async (each: GenerationRequest) => {
        const tokens: number[] = [];
        for await (const event of engine.generate(each)) tokens.push(...event.tokens);
        return tokens;
      };
      if (together) return await Promise.all(requests.map(answer));
      const found: number[][] = [];
      for (const each of requests) found.push(await answer(each));
      return found;
    };
    await using backend = await cuda();
    const wanted = await answers(withoutPages(backend), { slots: 1 }, false);
    expect(await answers(backend, { slots: 4 }, true)).toEqual(wanted);
    // With memory for two or three of them at once.
    expect(await answers(backend, { slots: 4, cacheTokens: 384 }, true)).toEqual(wanted);
  });
}
