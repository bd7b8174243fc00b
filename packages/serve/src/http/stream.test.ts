import { expect, test } from "vitest";
import { eventStream } from "./stream.ts";

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
