import { expect, it } from "vitest";
import { callOf, printNextSteps, shellWord, shownPath } from "./next-steps.ts";
import { testIo } from "./testing.ts";

it("calls the program as it was called", () => {
  expect(callOf(testIo("/w", { env: { npm_lifecycle_event: "demo" } }))).toBe("npm run sisa --");
  expect(callOf(testIo("/w", { env: { npm_command: "exec" } }))).toBe("npx @sisa/cli");
  expect(callOf(testIo("/w"))).toBe("sisa");
});

it("quotes words that a shell would take apart", () => {
  expect(["a-b/c.d", "two words", "it's", "$HOME", ""].map(shellWord)).toEqual([
    "a-b/c.d",
    "'two words'",
    "'it'\\''s'",
    "'$HOME'",
    "''",
  ]);
});

it("shows a path from where the user is, where that is shorter", () => {
  const io = testIo("/home/me/work");
  expect(shownPath(io, "/home/me/work/runs/a")).toBe("runs/a");
  expect(shownPath(io, "/home/me/work")).toBe(".");
  expect(shownPath(io, "/data")).toBe("/data");
});

it("lines up what each command is for", () => {
  const io = testIo("/w");
  printNextSteps(io, [
    ["a", "first"],
    ["long words", "second"],
  ]);
  expect(io.written.stdout).toBe("\nTo try next:\n  sisa a           # first\n  sisa long words  # second\n");
});
