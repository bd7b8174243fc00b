// A vitest reporter that writes how many tests passed and failed to the file that SISA_TEST_COUNTS names.
import { writeFileSync } from "node:fs";

/** @typedef {{ passed: number, failed: number }} Counts */

/** The line that ends a test run. */
export function summary(/** @type {Counts} */ { passed, failed }) {
  return `${passed} passed, ${failed} failed`;
}

/**
 * Counts the tests of finished modules. A module or suite that fails outside its tests (a broken import, a hook) and an error that
 * belongs to no test are one failure each.
 * @param {readonly import("vitest/node").TestModule[]} modules
 * @param {readonly unknown[]} unhandledErrors
 * @returns {Counts}
 */
export function count(modules, unhandledErrors) {
  const counts = { passed: 0, failed: unhandledErrors.length };
  for (const module of modules) {
    for (const test of module.children.allTests()) {
      const { state } = test.result();
      if (state === "passed") counts.passed++;
      if (state === "failed") counts.failed++;
    }
    for (const suite of [module, ...module.children.allSuites()]) {
      if (suite.errors().length > 0) counts.failed++;
    }
  }
  return counts;
}

/** Reporter for `--reporter=./tools/vitest/counts.mjs`. */
export default class CountsReporter {
  /** @type {NonNullable<import("vitest/node").Reporter["onTestRunEnd"]>} */
  onTestRunEnd(modules, unhandledErrors) {
    const file = process.env.SISA_TEST_COUNTS;
    if (file !== undefined) writeFileSync(file, JSON.stringify(count(modules, unhandledErrors)));
  }
}
