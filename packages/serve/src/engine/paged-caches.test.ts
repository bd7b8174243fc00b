// Sequences that share one pool of pages: what they compute, what they share, and what becomes of those for which there is
// no room.
import { type Backend, ConfigError, DeviceError, reference } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { describe, expect, test } from "vitest";
import { asDevice } from "../../test/device.ts";
import { tinyModel } from "../../test/tiny.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import { PagedCaches } from "./paged-caches.ts";
import type { GenerationRequest } from "./request.ts";
import { Slots } from "./slots.ts";

const own = tinyModel({ mixers: ["sisa"] });
const V = own.model.config.vocabularySize;
const { tokenizer } = own;
const text =
  "The ferry left before the fog had lifted, and nobody on the pier could say which of its lamps had been lit";
const tokens = tokenizer.encode(text.repeat(2));

const paged = () => asDevice({ pagedCaches: true });

describe("slots", () => {
  test("that began with pages of another go on without disturbing it, nor it them", async () => {
    await using plain = reference();
    await using alone = await Slots.create({ ...own, backend: plain, slots: 1, contextLength: 192 });
    const logitsOf = async (ids: readonly number[]) => {
      const { logits } = await alone.run([{ slot: 0, tokens: ids, count: ids.length }]);
      return logits.slice();
    };
    await using backend = paged();
    await using slots = await Slots.create({ ...own, backend, slots: 4, contextLength: 192 });
    const compute = async (slot: number, ids: readonly number[]) => {
      let found = new Float32Array();
      for (let done = slots.length(slot); done < ids.length; ) {
        const end = Math.min(ids.length, done + 64);
        found = (await slots.run([{ slot, tokens: ids.slice(0, end), count: end - done }])).logits.slice();
        done = end;
      }
      return found;
    };
    const expectSame = async (found: Float32Array, ids: readonly number[]) => {
      const wanted = await logitsOf(ids);
      const worst = Math.max(...wanted.map((value, at) => Math.abs(value - (found[at] ?? Number.NaN))));
      expect(worst).toBeLessThan(1e-5);
    };
    const first = tokens.slice(0, 130);
    await slots.begin(0, { slot: 0, count: 0 }, 192, []);
    await expectSame(await compute(0, first), first);
    // A page as it is; a page and a copied one; two pages.
    const sequences = [first];
    for (const [slot, count] of [
      [1, 64],
      [2, 70],
      [3, 128],
    ] as const) {
      const ids = [...tokens.slice(0, count), slot, 2 * slot, 7];
      expect(await slots.begin(slot, { slot: 0, count }, 192, [])).toBe(count);
      await expectSame(await compute(slot, ids), ids);
      sequences.push(ids);
    }
    for (let step = 0; step < 2; step++) {
      const lanes = [3, 0, 2].map((slot) => {
        sequences[slot] = [...(sequences[slot] ?? []), 40 + slot];
        return { slot, tokens: sequences[slot] ?? [], count: 1 };
      });
      const { logits } = await slots.run(lanes);
      for (const [lane, { tokens: ids }] of lanes.entries()) {
        await expectSame(logits.slice(lane * V, (lane + 1) * V), ids);
      }
    }
    // Its own beginning, cut where others have the page too.
    const again = [...tokens.slice(0, 60), 1, 2, 3];
    expect(await slots.begin(0, { slot: 0, count: 60 }, 192, [])).toBe(60);
    await expectSame(await compute(0, again), again);
    sequences[1] = [...(sequences[1] ?? []), 9];
    await expectSame(await compute(1, sequences[1]), sequences[1]);
  });

  test("have room as long as there are pages, which equal beginnings share", async () => {
    await using backend = paged();
    const caches = new PagedCaches({ ...own, backend, slots: 4, contextLength: 256, cacheTokens: 256 });
    const nothing = (slot: number) => ({ slot, count: 0 });
    expect(await caches.begin(0, nothing(0), 130, [])).toEqual({ count: 0, emptied: [] });
    // Three of four pages are taken.
    expect(await caches.begin(1, nothing(1), 65, [])).toBeUndefined();
    expect(await caches.begin(1, nothing(1), 64, [])).toEqual({ count: 0, emptied: [] });
    expect(await caches.begin(2, { slot: 0, count: 128 }, 129, [])).toBeUndefined();
    caches.release(1, 0);
    expect(await caches.begin(2, { slot: 0, count: 128 }, 129, [])).toEqual({ count: 128, emptied: [] });
    caches.release(0, 130);
    // Two pages are those of the third slot too, so that emptying the first gives one.
    expect(await caches.begin(3, nothing(3), 65, [0])).toBeUndefined();
    expect(await caches.begin(3, nothing(3), 64, [0])).toEqual({ count: 0, emptied: [0] });
    caches.release(2, 0);
    caches.release(3, 0);
    // What nobody misses goes first, and only as much as is needed.
    for (const slot of [0, 1, 2, 3]) expect(await caches.begin(slot, nothing(slot), 64, [])).toBeDefined();
    expect(await caches.begin(3, { slot: 3, count: 10 }, 128, [2, 0, 1, 3])).toEqual({ count: 10, emptied: [2] });
    // A beginning that stands in the way of all of it is given up.
    expect(await caches.begin(0, { slot: 1, count: 40 }, 256, [0, 1, 2, 3])).toMatchObject({ count: 0 });
    await caches.close();
    expect(backend.memory().deviceBytes).toBe(0);
  });

  test("lose no page where one cannot be copied, and copy it the next time", async () => {
    await using device = paged();
    let failing = true;
    const broken = new Proxy(device, {
      get(target, name) {
        if (name === "compile" && failing) return () => Promise.reject(new DeviceError("no memory for a program"));
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const caches = new PagedCaches({ ...own, backend: broken, slots: 2, contextLength: 256, cacheTokens: 256 });
    expect(await caches.begin(0, { slot: 0, count: 0 }, 128, [])).toEqual({ count: 0, emptied: [] });
    await expect(caches.begin(1, { slot: 0, count: 70 }, 128, [])).rejects.toThrow("no memory for a program");
    for (const slot of [0, 1]) caches.release(slot, 0);
    expect(await caches.begin(0, { slot: 0, count: 0 }, 256, [])).toEqual({ count: 0, emptied: [] });
    // Those before them are for what nobody reads.
    const { data } = caches.placesOf([{ slot: 0, tokens: [], count: 1 }]).pages ?? {};
    expect(new Set(data?.subarray(0, 4))).toEqual(new Set([2, 3, 4, 5]));
    caches.release(0, 128);
    failing = false;
    expect(await caches.begin(1, { slot: 0, count: 70 }, 128, [])).toEqual({ count: 70, emptied: [] });
    await caches.close();
    expect(device.memory().deviceBytes).toBe(0);
  });
});

async function answer(engine: Engine, request: GenerationRequest) {
  const result = { text: "", cachedTokens: -1 };
  for await (const event of engine.generate(request)) {
    result.text += event.text;
    if (event.prompt) result.cachedTokens = event.prompt.cachedTokens;
  }
  return result;
}

describe("an engine", () => {
  const open = (backend: Backend, options: Partial<EngineOptions> = {}) =>
    Engine.create({ ...own, backend, slots: 3, contextLength: 192, ...options });
  const request = (prompt: string, maxTokens: number): GenerationRequest => {
    return { tokens: tokenizer.encode(prompt), maxTokens, temperature: 0, ignoreEndOfText: true };
  };
  const requests = [
    request(text, 3),
    request(`${text.slice(0, 70)}!`, 4),
    request("x".repeat(60), 10),
    request(text.slice(0, 66), 2),
    request(text, 20),
  ];

  test("gives each answer that it gives alone, with less memory than all would need at once", async () => {
    await using plain = asDevice();
    await using alone = await open(plain);
    const wanted = [];
    for (const each of requests) wanted.push((await answer(alone, each)).text);
    await using backend = paged();
    let [mostRunning, sawWaiting] = [0, false];
    const stepDone = () => {
      const { running, waiting } = engine.counts;
      mostRunning = Math.max(mostRunning, running);
      sawWaiting ||= waiting > 0 && running < 3;
    };
    await using engine = await open(backend, { cacheTokens: 256, observer: { stepDone } });
    const answers = await Promise.all(requests.map((each) => answer(engine, each)));
    expect(answers.map((each) => each.text)).toEqual(wanted);
    // Two pages for the first, one more for the second, which begins as it does; the third needs two.
    expect(mostRunning).toBe(2);
    // A page as it is, and one of which a part is copied while another still computes in it.
    expect(answers[1]?.cachedTokens).toBe(70);
    expect(sawWaiting).toBe(true);
    await expect.poll(() => engine.counts).toMatchObject({ running: 0, waiting: 0 });
    expect(backend.memory().deviceBytes).toBeLessThan(plain.memory().deviceBytes);
  });

  test("whose run fails ends all answers whose memory is lost, and goes on", async () => {
    const device = paged();
    let failing = false;
    const broken = new Proxy(device, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (name !== "compile") return typeof value === "function" ? value.bind(target) : value;
        return async (...args: Parameters<Backend["compile"]>) => {
          const program = await target.compile(...args);
          const run: typeof program.run = (inputs) => {
            if (failing) throw new DeviceError("the device is gone");
            return program.run(inputs);
          };
          return { run, close: () => program.close() };
        };
      },
    });
    await using engine = await open(broken, { slots: 2 });
    using admission = engine.admit(2);
    const long = admission.submit(request("ab", 100));
    for await (const event of long) if (event.tokens.length > 0) break;
    const [one, other] = [request("xyz", 50), request("uvw", 50)].map((each) => answer(engine, each));
    await expect.poll(() => engine.counts.running).toBe(2);
    failing = true;
    const ends = await Promise.allSettled([one, other]);
    expect(ends.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    failing = false;
    expect((await answer(engine, request("xyz", 2))).cachedTokens).toBe(0);
    expect(engine.healthy).toBe(true);
  });

  test("refuses memory that holds not even one sequence, or that its backend does not share", async () => {
    await using backend = paged();
    await expect(open(backend, { cacheTokens: 191 })).rejects.toThrow(
      "cacheTokens must be a whole number >= the context length 192, got 191",
    );
    await using other = await onnxruntime();
    await expect(open(other, { cacheTokens: 1000 })).rejects.toThrow(ConfigError);
  });
});
