import { expect, test } from "vitest";
import { Driver } from "./driver.ts";
import type { Library, Native } from "./native.ts";

/** A driver of which every call gives the code that `codeOf` says. */
function driverOf(codeOf: (name: string) => number): Driver {
  const func = (prototype: string) => {
    const name = /\w+(?=\()/.exec(prototype)?.[0] ?? "";
    return (...args: readonly unknown[]) => {
      if (name === "cuDriverGetVersion") (args[0] as number[])[0] = 13_000;
      if (name === "cuGetErrorName") (args[1] as string[])[0] = `ERROR_${args[0]}`;
      return name.startsWith("cuGetError") ? 0 : codeOf(name);
    };
  };
  return new Driver({} as Native, { path: "libcuda", func } as unknown as Library);
}

test.each([700, 716, 719])("after a crash (%i) is told, closing is quiet, and using is not", (crash) => {
  let code = 0;
  const driver = driverOf(() => code);
  driver.call("cuStreamSynchronize", 1);
  code = crash;
  // Whoever waits first learns of it, also where that is closing.
  expect(() => driver.call("cuStreamSynchronize", 1)).toThrow(`cuStreamSynchronize failed: ERROR_${crash}`);
  for (const name of ["cuStreamSynchronize", "cuMemFree", "cuModuleUnload", "cuStreamDestroy"] as const) {
    driver.call(name, 1);
  }
  expect(() => driver.handle("cuMemAlloc", 8)).toThrow(`ERROR_${crash}`);
  expect(() => driver.isDone(1)).toThrow(`ERROR_${crash}`);
});

test("a crash that a poll meets counts as told", () => {
  let code = 0;
  const driver = driverOf(() => code);
  code = 700;
  expect(() => driver.isDone(1)).toThrow("ERROR_700");
  driver.call("cuEventDestroy", 1);
});

test("what fails otherwise is told every time", () => {
  let code = 0;
  const driver = driverOf(() => code);
  code = 1;
  for (let time = 0; time < 2; time++) expect(() => driver.call("cuMemFree", 1)).toThrow("ERROR_1");
});
