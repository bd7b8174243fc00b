import { expect, it } from "vitest";
import { StopMatcher } from "./stop-matcher.ts";

function shown(stops: readonly string[], pieces: readonly string[]): { text: string; stopped: boolean } {
  const matcher = new StopMatcher(stops);
  const text = pieces.map((piece) => matcher.push(piece)).join("") + matcher.flush();
  return { text, stopped: matcher.stopped };
}

it("gives the same text however it is cut", () => {
  const text = "one two STOP three";
  for (let first = 0; first <= text.length; first++) {
    for (let second = first; second <= text.length; second++) {
      const pieces = [text.slice(0, first), text.slice(first, second), text.slice(second)];
      expect(shown(["STOP"], pieces)).toEqual({ text: "one two ", stopped: true });
    }
  }
});

it("shows at the end what only looked like a stop", () => {
  expect(shown(["STOP"], ["a ST", "O"])).toEqual({ text: "a STO", stopped: false });
  expect(shown(["aab"], ["aa", "ab", "c"])).toEqual({ text: "a", stopped: true });
  expect(shown([], ["a", "b"])).toEqual({ text: "ab", stopped: false });
});

it("ends before the first of several", () => {
  expect(shown(["world", "lo"], ["hel", "lo world"])).toEqual({ text: "hel", stopped: true });
});
