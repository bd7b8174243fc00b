// Makes a test fail that writes to the console; a test about console output replaces the method with `vi.spyOn`.
import { format } from "node:util";
import { afterEach, beforeEach } from "vitest";

const methods = ["debug", "error", "info", "log", "trace", "warn"] as const;
let written: string[] = [];

beforeEach(() => {
  written = [];
  for (const method of methods) {
    console[method] = (...values: unknown[]) => {
      written.push(`console.${method}: ${format(...values)}`);
    };
  }
});

afterEach(() => {
  if (written.length > 0) throw new Error(`expected no console output, got:\n${written.join("\n")}`);
});
