// The table of what works where, written from what was recorded and from what operations say about themselves.

import type { Op } from "@sisa/core";
import { allCases } from "./cases/index.ts";
import { operations } from "./operations.ts";
import { type Recording, recordedBackends, type Tally } from "./recording.ts";
import { markdownTable } from "./result.ts";

/**
 * Text of docs/features.md.
 * @param recordings by backend
 */
export function featureTable(recordings: ReadonlyMap<string, Recording>): string {
  const head = ["operation", "kind", "gradient", ...recordedBackends];
  const rows = [...operations.values()].map((op) => [
    `\`${op.name}\``,
    op.kind,
    gradientOf(op),
    ...recordedBackends.map((name) => cell(recordings.get(name), op.name)),
  ]);
  return [
    "# Operations, and what runs them",
    "",
    "Each backend's columns are written by this command, where the backend runs; do not edit:",
    "",
    "```sh",
    "node packages/conformance/run.mjs --backend reference --backend onnxruntime --features docs/features.md",
    "```",
    "",
    "`webgpu` is another word in place of these, `webgpu:swiftshader` where there is no GPU, and `cuda`.",
    "",
    "A cell counts the cases of packages/conformance that a backend passes, forward and then gradient: `12, 10` where it",
    "passes all of them, `9 of 12, 7 of 10` where it refuses the others, `12` where there is no gradient to run. It is",
    "`outdated` where cases came after the run, and `not recorded` where no run was kept.",
    "",
    ...recordedBackends.map((name) => summaryOf(name, recordings.get(name))),
    "",
    markdownTable(head, rows),
    "",
  ].join("\n");
}

/** What ran where and when, how many cases it refused, and why. */
function summaryOf(name: string, recording: Recording | undefined): string {
  if (recording === undefined) return `- ${name}: not recorded by operation.`;
  const { device, date, refusals } = recording;
  const tallies = Object.values(recording.operations).flatMap(({ forward, gradient = {} }) => [forward, gradient]);
  const total = tallies.reduce((sum, tally) => sum + sizeOf(tally), 0);
  const refused = tallies.reduce((sum, { unsupported = 0 }) => sum + unsupported, 0);
  const why = refusals.length === 0 ? "" : `: ${refusals.join("; ")}`;
  return `- ${name}, on ${device}, ${date}: refuses ${refused} of ${total} cases${why}.`;
}

function gradientOf({ kind, vjp }: Op): string {
  if (typeof vjp === "function") return kind === "primitive" ? "rule" : "own rule";
  if (vjp !== undefined) return `none: ${vjp.reason}`;
  return "of its composition";
}

function cell(recording: Recording | undefined, op: string): string {
  if (recording === undefined) return "not recorded";
  const { forward, gradient } = recording.operations[op] ?? { forward: {} };
  if (sizeOf(forward) !== caseCount(op)) return "outdated";
  return [forward, gradient].flatMap((tally) => (tally === undefined ? [] : [passedOf(tally)])).join(", ");
}

function passedOf(tally: Tally): string {
  const { passed = 0, failed = 0 } = tally;
  const short = passed === sizeOf(tally) ? `${passed}` : `${passed} of ${sizeOf(tally)}`;
  return failed === 0 ? short : `${short} (${failed} failed)`;
}

function sizeOf({ passed = 0, failed = 0, unsupported = 0 }: Tally): number {
  return passed + failed + unsupported;
}

/** How many cases an operation has by now, each of which every backend passes, refuses or fails. */
export function caseCount(op: string): number {
  const cases = allCases.find((one) => one.op === op)?.cases ?? [];
  return cases.filter(({ perf }) => !perf).length;
}
