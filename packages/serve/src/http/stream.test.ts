import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { eventStream, merge } from "./stream.ts";

/** Counts what is asked of it. */
function counted() {
  const seen = { made: 0, stopped: 0, hungUp: 0 };
  async function* frames() {
    for (;;) {
      seen.made += 1;
      yield { number: seen.made };
    }
  }
  const options = {
    stop: () => void seen.stopped++,
    hangUp: () => void seen.hungUp++,
    pingMs: 1000,
    stallMs: 20,
  };
  return { seen, response: eventStream(frames(), () => ({}), options) };
}

test("a client that takes nothing gets nothing made, and is hung up on", async () => {
  const { seen, response } = counted();
  await expect.poll(() => seen.hungUp).toBe(1);
  expect(seen).toEqual({ made: 1, stopped: 1, hungUp: 1 });
  await response.body?.cancel();
});

test("one that takes slowly gets as much as it takes", async () => {
  const { seen, response } = counted();
  const reader = response.body?.getReader();
  for (let count = 1; count <= 5; count++) {
    const { value } = (await reader?.read()) ?? {};
    expect(new TextDecoder().decode(value)).toBe(`data: {"number":${count}}\n\n`);
    expect(seen.made).toBeLessThanOrEqual(count + 1);
  }
  await reader?.cancel();
  expect(seen.stopped).toBe(1);
});

/** A source that gives what it is given. */
function fed<T>() {
  const { readable, writable } = new TransformStream<T, T>({}, { highWaterMark: 1000 }, { highWaterMark: 1000 });
  return { source: readable as AsyncIterable<T>, writer: writable.getWriter() };
}

test("values of several sources come as they come, and errors with them", async () => {
  const [a, b] = [fed<string>(), fed<string>()];
  const merged = merge([a.source, b.source]);
  void b.writer.write("first");
  expect(await merged.next()).toEqual({ done: false, value: [1, "first"] });
  void a.writer.write("second");
  expect(await merged.next()).toEqual({ done: false, value: [0, "second"] });
  void a.writer.close();
  void b.writer.write("third");
  expect(await merged.next()).toEqual({ done: false, value: [1, "third"] });
  const failing = merged.next();
  void b.writer.abort(new Error("no more"));
  await expect(failing).rejects.toThrow("no more");
  expect(await merge([]).next()).toEqual({ done: true, value: undefined });
});

test("waiting for sources that say nothing takes no memory for every value of another", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const count = 10_000;
  async function* numbers() {
    for (let number = 0; number < count; number++) yield number;
  }
  const silent = Array.from({ length: 60 }, () => fed<number>());
  const merged = merge([numbers(), ...silent.map(({ source }) => source)]);
  await merged.next();
  collect();
  const before = process.memoryUsage().heapUsed;
  for (let number = 1; number < count; number++) await merged.next();
  collect();
  expect((process.memoryUsage().heapUsed - before) / 2 ** 20).toBeLessThan(5);
  for (const { writer } of silent) void writer.close();
  expect(await merged.next()).toEqual({ done: true, value: undefined });
});
