// The table of what works where, written from what was run and from what operations say about themselves.

import type { Op } from "@sisa/core";
import { operations } from "./operations.ts";
import { counts, type Mode, markdownTable, type Row } from "./result.ts";

/** Text of docs/features.md. */
export function featureTable(tables: readonly { readonly backend: string; readonly rows: readonly Row[] }[]): string {
  const head = ["operation", "kind", "gradient", ...tables.flatMap(({ backend }) => [backend, `${backend}, gradient`])];
  const rows = [...operations.values()].map((op) => [
    `\`${op.name}\``,
    op.kind,
    gradientOf(op),
    ...tables.flatMap(({ rows }) => [cell(rows, op.name, "forward"), cell(rows, op.name, "grad")]),
  ]);
  const command = `node packages/conformance/run.mjs ${tables.map(({ backend }) => `--backend ${backend}`).join(" ")}`;
  return [
    "# Operations, and what runs them",
    "",
    "Written by this command; do not edit:",
    "",
    "```sh",
    `${command} --features docs/features.md`,
    "```",
    "",
    "A cell counts the cases of packages/conformance that a backend passes: `12` where it passes all of them, `9 of 12`",
    "where it refuses the others, and `-` where there is nothing to run.",
    "",
    ...tables.map(({ backend, rows }) => refusals(backend, rows)),
    "",
    markdownTable(head, rows),
    "",
  ].join("\n");
}

/** How many cases a backend refuses, and why. */
function refusals(backend: string, rows: readonly Row[]): string {
  const refused = rows.filter(({ status }) => status === "unsupported");
  const reasons = new Set(refused.map(({ error = "" }) => error.replace(/^.*cannot run "[^"]*": |, got .*$/g, "")));
  const why = refused.length === 0 ? "" : `: ${[...reasons].sort().join("; ")}`;
  return `- ${backend} refuses ${refused.length} of ${rows.length} cases${why}.`;
}

function gradientOf({ kind, vjp }: Op): string {
  if (typeof vjp === "function") return kind === "primitive" ? "rule" : "own rule";
  if (vjp !== undefined) return `none: ${vjp.reason}`;
  return "of its composition";
}

function cell(rows: readonly Row[], op: string, mode: Mode): string {
  const own = rows.filter((row) => row.op === op && row.mode === mode);
  const { passed } = counts(own);
  if (own.length === 0) return "-";
  const failures = counts(own).failed;
  const short = passed === own.length ? `${passed}` : `${passed} of ${own.length}`;
  return failures === 0 ? short : `${short} (${failures} failed)`;
}
