// Every public name says what it is: the reference of the documentation is made from these comments.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import ts from "typescript";
import { expect, test } from "vitest";
import { undocumented } from "./docstrings.ts";
import { entries, publicPackages } from "./packages.ts";
import { root } from "./run.mjs";

const { config } = ts.readConfigFile(path.join(root, "tsconfig.json"), ts.sys.readFile);
const { options } = ts.parseJsonConfigFileContent(config, { ...ts.sys, readDirectory: () => [] }, root);

test("every public name has a comment", () => {
  const sources = publicPackages()
    .flatMap(entries)
    .map(({ source }) => source);
  expect(sources.length).toBeGreaterThan(8);
  const found = undocumented(sources, options);
  expect(found.map(({ name, file, line }) => `${path.relative(root, file)}:${line} ${name}`)).toEqual([]);
});

test("names without a comment are found wherever they are public", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "sisa-docstrings-"));
  try {
    const entry = path.join(folder, "index.ts");
    const inner = `
      export interface Options {
        size: number;
        /** Told. */
        told: number;
        nested?: { depth: number };
      }
      /** A base. */
      export interface Base {
        /** Told here. */
        inherited: number;
      }
      /** A class. */
      export class Box implements Base {
        inherited = 1;
        kept = 2;
        #hidden = 3;
        private own = 4;
        sum(): number { return this.#hidden + this.own; }
      }
      /** @param options.known told */
      export function run(options: { known: number; unknown: number }): Promise<{ result: number }> {
        return Promise.resolve({ result: options.known });
      }
      /** Doubles. @returns two */
      export const double = (x: number): { one: number; two: number } => ({ one: x, two: x });
      export const addOp = 1;
      /** Adds. */
      export function add(): number { return addOp; }
      export const lonelyOp = 2;
      /** A choice. */
      export type Choice = { kind: "a"; count: number } | "b";
      const internal = { unseen: 1 };
      export { internal as renamed };
    `;
    await writeFile(path.join(folder, "inner.ts"), inner);
    await writeFile(entry, 'export * from "./inner.ts";\n');
    const names = undocumented([entry], options).map(({ name }) => name);
    expect(names.sort()).toEqual([
      "Box.kept",
      "Box.sum",
      "Choice.count",
      "Options",
      "Options.nested",
      "Options.nested.depth",
      "Options.size",
      "lonelyOp",
      "renamed",
      "run.result",
      "run.unknown",
    ]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
