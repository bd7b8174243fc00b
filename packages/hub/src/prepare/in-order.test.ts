import { describe, expect, it } from "vitest";
import { inOrder } from "./in-order.ts";

async function* numbers(count: number): AsyncGenerator<number> {
  for (let number = 0; number < count; number++) yield number;
}

/** Promises that are settled by hand, by number. */
function byHand(): { run: (item: number) => Promise<string>; started: number[]; settle: (item: number) => void } {
  const started: number[] = [];
  const settle = new Map<number, () => void>();
  return {
    started,
    run(item) {
      started.push(item);
      return new Promise((resolve) => settle.set(item, () => resolve(`result ${item}`)));
    },
    settle: (item) => settle.get(item)?.(),
  };
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

describe("inOrder", () => {
  it("hands results over in the order of the items, whichever comes first", async () => {
    const results: string[] = [];
    for await (const [item, result] of inOrder(numbers(20), 4, async (number) => {
      if (number % 3 === 0) await settled();
      return `result ${number}`;
    })) {
      results.push(`${item}: ${result}`);
    }
    expect(results).toEqual(Array.from({ length: 20 }, (_, number) => `${number}: result ${number}`));
  });

  it("works ahead, but not further than it may", async () => {
    const { run, started, settle } = byHand();
    const results = inOrder(numbers(10), 3, run);
    const first = results.next();
    await settled();
    expect(started).toEqual([0, 1, 2]);
    settle(2);
    settle(1);
    await settled();
    expect(started).toEqual([0, 1, 2]);
    settle(0);
    expect(await first).toEqual({ done: false, value: [0, "result 0"] });
    await settled();
    expect(started).toEqual([0, 1, 2]);
    await results.next();
    expect(started).toEqual([0, 1, 2, 3]);
  });

  it("ends with the first failure in order, and leaves none unhandled", async () => {
    const results: number[] = [];
    const failing = async (): Promise<void> => {
      for await (const [item] of inOrder(numbers(10), 4, async (number) => {
        if (number > 1) throw new Error(`item ${number} failed`);
      })) {
        results.push(item);
      }
    };
    await expect(failing()).rejects.toThrow("item 2 failed");
    expect(results).toEqual([0, 1]);
    await settled();
  });
});
