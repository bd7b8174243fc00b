// Some cases of the conformance suite in headless Chromium, whose WebGPU is the browser's own: kernels of every kind.

import { launchChromium, modulePage, openPage, serve } from "@sisa/browser-testing/node";
import { expect, test, vi } from "vitest";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

/** Operations whose kernels differ most from each other. */
const operations = ["matmul", "rmsNorm", "linearCrossEntropy", "cacheWrite", "softplus"];

test("chosen cases pass in Chromium, forward and backward", async () => {
  const script = await modulePage(
    `import { webgpu } from "./index.ts";
    import { allCases } from "../../conformance/src/cases/index.ts";
    import { runCases } from "../../conformance/src/run-case.ts";
    async function run() {
      await using backend = await webgpu();
      const rows = [];
      for (const cases of allCases) {
        if (!${JSON.stringify(operations)}.includes(cases.op)) continue;
        const some = { ...cases, cases: cases.cases.slice(0, 2) };
        for (const mode of ["forward", "grad"]) rows.push(...(await runCases(backend, some, mode, { part: "fast", ieee: false })));
      }
      return rows.map(({ op, case: name, mode, status, error }) => ({ op, name, mode, status, error }));
    }
    globalThis.result = run();`,
    import.meta.dirname,
  );
  await using chromium = await launchChromium();
  await using server = await serve(script, {});
  const { page, errors } = await openPage(chromium, server.url);
  const rows = (await page.evaluate("result")) as readonly { readonly op: string; readonly status: string }[];
  expect(errors).toEqual([]);
  expect(rows.filter(({ status }) => status === "failed")).toEqual([]);
  expect(new Set(rows.filter(({ status }) => status === "passed").map(({ op }) => op))).toEqual(new Set(operations));
});
