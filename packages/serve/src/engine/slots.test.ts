// What all promises of the engine rest on: a token's logits have the same bits whatever is computed with it.
import { type Backend, ConfigError, type DeviceTensor, f32, RandomStream, reference, sampleToken } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { asDevice } from "../../test/device.ts";
import { tinyModel } from "../../test/tiny.ts";
import { Slots } from "./slots.ts";

const length = 200;
const random = new RandomStream(3, "tokens");
const tokens = Array.from({ length }, (_, index) => random.below(257, index));
const others = Array.from({ length }, (_, index) => random.below(257, 1000 + index));

let backend: Backend;
beforeAll(async () => {
  backend = await onnxruntime();
});
afterAll(() => backend.close());

describe.each<[string, Parameters<typeof tinyModel>[0]]>([
  ["sisa", { mixers: ["sisa", "sisa"] }],
  ["sisa with heads by four, which runs of one token are made for", { mixers: ["sisa", "attention"], heads: 4 }],
  ["sisa with an odd number of heads", { mixers: ["sisa"], width: 18, heads: 3, stateWidth: 2 }],
  ["attention", { mixers: ["attention", "attention"] }],
  ["FoX", { mixers: ["fox"], mixerSettings: { fox: { kind: "attention", positions: "none", forget: true } } }],
  ["ALiBi", { mixers: ["alibi"], heads: 4, mixerSettings: { alibi: { kind: "attention", positions: "alibi" } } }],
  ["attention in windows", { mixers: ["near"], heads: 4, mixerSettings: { near: { kind: "attention", window: 40 } } }],
])("logits of %s", (_name, change) => {
  const own = tinyModel(change);
  const V = own.model.config.vocabularySize;
  const open = (slots: number, contextLength = 256) => Slots.create({ ...own, backend, slots, contextLength });

  /** Logits after every token, from runs of 64. */
  async function expected(): Promise<Float32Array[]> {
    await using slots = await open(1);
    const rows: Float32Array[] = [];
    for (let end = 64; rows.length < length; end += 64) {
      const until = tokens.slice(0, end);
      const { logits } = await slots.run([{ slot: 0, tokens: until, count: until.length - rows.length }], "all");
      for (let at = 0; at < logits.length; at += V) rows.push(logits.slice(at, at + V));
    }
    return rows;
  }

  test.each([1, 2, 5, 37, 63, 200])("in runs of %i tokens, in a cache of another size", async (size) => {
    const rows = await expected();
    await using slots = await open(1, 203);
    for (let done = 0; done < length; ) {
      const end = Math.min(length, done + size);
      const { logits } = await slots.run([{ slot: 0, tokens: tokens.slice(0, end), count: end - done }]);
      expect(logits).toEqual(rows[end - 1]);
      done = end;
    }
  });

  test("together with any other sequences", async () => {
    const rows = await expected();
    await using slots = await open(5);
    const places = [150, 1, 64, 30];
    const sequence = (slot: number, end: number) => (slot === 3 ? others : tokens).slice(0, end);
    for (const [slot, end] of places.entries()) {
      await slots.run([{ slot, tokens: sequence(slot, end), count: end }]);
    }
    for (let step = 1; step <= 40; step++) {
      // Some take part in some steps only; the fifth slot never.
      const taking = [0, 1, 2, 3].filter((slot) => (step + slot) % 3 > 0 || slot === 1);
      const lanes = taking.map((slot) => ({ slot, tokens: sequence(slot, slots.length(slot) + 1), count: 1 }));
      const { logits } = await slots.run(lanes);
      lanes.forEach(({ slot, tokens: { length: end } }, lane) => {
        if (slot !== 3) expect(logits.slice(lane * V, (lane + 1) * V)).toEqual(rows[end - 1]);
      });
    }
  });

  test("behind a beginning that was copied, at any token", async () => {
    const rows = await expected();
    await using slots = await open(3);
    await slots.run([{ slot: 0, tokens, count: length }]);
    await slots.run([{ slot: 1, tokens: others, count: length }]);
    for (const shared of [199, 129, 128, 64, 63, 2, 1]) {
      expect(slots.commonPrefix(0, tokens.slice(0, shared))).toBe(shared);
      await slots.begin(1, { slot: 0, count: shared }, length, []);
      expect(slots.length(1)).toBe(shared);
      const { logits } = await slots.run([{ slot: 1, tokens, count: length - shared }]);
      expect(logits).toEqual(rows[length - 1]);
    }
  });
});

test("backends of fixed sizes give the same logits, with caches in pages too", async () => {
  const own = tinyModel({ mixers: ["sisa"] });
  const results: Float32Array[][] = [];
  for (const make of [reference, asDevice, () => asDevice({ pagedCaches: true })]) {
    await using other = make();
    await using slots = await Slots.create({ ...own, backend: other, slots: 2, contextLength: 128 });
    const some = tokens.slice(0, 90);
    await slots.begin(0, { slot: 0, count: 0 }, 128, []);
    const first = await slots.run([{ slot: 0, tokens: some.slice(0, 30), count: 30 }], "all");
    const second = await slots.run([{ slot: 0, tokens: some.slice(0, 80), count: 50 }]);
    await slots.begin(1, { slot: 0, count: 70 }, 128, []);
    const third = await slots.run([
      { slot: 0, tokens: some.slice(0, 81), count: 1 },
      { slot: 1, tokens: some.slice(0, 71), count: 1 },
    ]);
    results.push([first.logits.slice(), second.logits.slice(), third.logits.slice()]);
  }
  // The reference rounds where a run begins.
  for (const other of results.slice(1)) {
    results[0]?.forEach((logits, index) => {
      const worst = Math.max(...logits.map((value, at) => Math.abs(value - (other[index]?.[at] ?? Number.NaN))));
      expect(worst).toBeLessThan(1e-5);
    });
  }
});

test("a device chooses tokens itself, and gives logits only where a lane needs them", async () => {
  const own = tinyModel();
  const V = own.model.config.vocabularySize;
  const lane = (slot: number, end: number) => ({ slot, tokens: tokens.slice(0, end), count: slot === 0 ? 9 : 1 });
  const choices = [
    { uniform: 0.3, temperature: 1.5 },
    { uniform: 0.9, topK: 40, topP: 0.9 },
  ];
  await using host = reference();
  await using plain = await Slots.create({ ...own, backend: host, slots: 3, contextLength: 128 });
  const logitsOf = async (end: number) =>
    (await plain.run([{ slot: 0, tokens: tokens.slice(0, end), count: end }])).logits.slice();
  const first = sampleToken(await logitsOf(9), 0.3, { temperature: 1.5 });
  const second = [await logitsOf(10), await logitsOf(1)];
  const expected = second.map((logits, index) => sampleToken(logits, choices[index]?.uniform ?? 0, choices[index]));
  // In the host's memory there is nothing to save.
  expect((await plain.next([lane(0, 9)], [undefined])).next[0]).toEqual(await logitsOf(9));

  const read: number[] = [];
  await using device = asDevice();
  const tensors: DeviceTensor = Object.getPrototypeOf(device.tensor(f32(1)));
  const { read: readNow } = tensors;
  const spy = vi.spyOn(tensors, "read").mockImplementation(async function (this: DeviceTensor) {
    const data = await readNow.call(this);
    read.push(data.length);
    return data;
  });
  await using slots = await Slots.create({ ...own, backend: device, slots: 3, contextLength: 128 });
  expect((await slots.next([lane(0, 9)], choices.slice(0, 1))).next).toEqual([first]);
  expect(read.splice(0)).toEqual([1]);
  const both = [
    { slot: 0, tokens: tokens.slice(0, 10), count: 1 },
    { slot: 1, tokens: tokens.slice(0, 1), count: 1 },
  ];
  expect((await slots.next(both, choices)).next).toEqual(expected);
  expect(read.splice(0)).toEqual([3]);
  const { next } = await slots.next(both, [undefined, choices[1]]);
  expect(read.splice(0).sort((a, b) => a - b)).toEqual([3, 3 * V]);
  expect(next[1]).toBe(expected[1]);
  const worst = Array.from(second[0] ?? [], (value, id) => Math.abs(value - ((next[0] as Float32Array)[id] ?? 0)));
  expect(Math.max(...worst)).toBeLessThan(1e-5);
  spy.mockRestore();
});

test("a run that fails leaves slots that work, and the memory as it was", async () => {
  const own = tinyModel();
  await using other = await onnxruntime();
  await using slots = await Slots.create({ ...own, backend: other, slots: 2, contextLength: 128 });
  const run = (end: number) => slots.run([{ slot: 0, tokens: tokens.slice(0, end), count: end }]);
  const expected = (await run(20)).logits.slice();
  const { deviceBytes } = other.memory();
  await expect(slots.run([{ slot: 0, tokens: [1, 10_000], count: 2 }])).rejects.toThrow("gather");
  expect(slots.length(0)).toBe(0);
  expect((await run(20)).logits).toEqual(expected);
  expect(other.memory().deviceBytes).toBe(deviceBytes);
});

test.each([false, true])(
  "what is appended without waiting counts once a run has ended well; in pages: %s",
  async (pagedCaches) => {
    const own = tinyModel();
    await using device = asDevice({ pagedCaches });
    await using slots = await Slots.create({ ...own, backend: device, slots: 2, contextLength: 200 });
    const until = (end: number, from: number) => ({ slot: 0, tokens: tokens.slice(0, end), count: end - from });
    const begin = () => slots.begin(0, { slot: 0, count: 0 }, 200, []);
    await begin();
    const expected = (await slots.run([until(64, 0)])) && (await slots.run([until(128, 64)])).logits.slice();

    await begin();
    await slots.append(until(64, 0));
    expect(slots.length(0)).toBe(64);
    expect((await slots.run([until(128, 64)])).logits).toEqual(expected);
    await slots.append(until(150, 128));
    // Its sequence ends before anything is known of the last run.
    slots.release(0);
    expect(slots.length(0)).toBe(128);

    await begin();
    await slots.append({ slot: 0, tokens: [1, 10_000], count: 2 });
    await expect(slots.run([{ slot: 0, tokens: [1, 10_000, 2], count: 1 }])).rejects.toThrow("gather");
    expect(slots.length(0)).toBe(0);
    await begin();
    await slots.append(until(64, 0));
    expect((await slots.run([until(128, 64)])).logits).toEqual(expected);
  },
);

test("refuses sizes that cannot be", async () => {
  const own = tinyModel({ maximumLength: 64 });
  await expect(Slots.create({ ...own, backend, slots: 0, contextLength: 64 })).rejects.toThrow(ConfigError);
  const refused = (change: Parameters<typeof tinyModel>[0]) =>
    Slots.create({ ...tinyModel(change), backend, slots: 1, contextLength: 64 });
  await expect(refused({ metaTokens: 2 })).rejects.toThrow("models with meta tokens are not served yet");
  const mixerSettings = { recurrent: { kind: "mamba2", headWidth: 8 } } as const;
  await expect(refused({ mixers: ["recurrent", "attention"], mixerSettings })).rejects.toThrow(
    "layers of kind mamba2 keep a state",
  );
  await expect(Slots.create({ ...own, backend, slots: 1, contextLength: 65 })).rejects.toThrow(
    "the context length must be 2 to the model's maximumLength 64, got 65",
  );
});
