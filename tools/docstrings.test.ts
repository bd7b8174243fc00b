// Every public name says what has to be known of it: the reference of the documentation is made from these comments.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import ts from "typescript";
import { expect, test } from "vitest";
import { complaints } from "./docstrings.ts";
import { entries, publicPackages } from "./packages.ts";
import { root } from "./run.mjs";

const { config } = ts.readConfigFile(path.join(root, "tsconfig.json"), ts.sys.readFile);
const { options } = ts.parseJsonConfigFileContent(config, { ...ts.sys, readDirectory: () => [] }, root);

test("comments of public names say what has to be known", { timeout: 300_000 }, () => {
  const sources = publicPackages()
    .flatMap(entries)
    .map(({ source }) => source);
  expect(sources.length).toBeGreaterThan(8);
  const found = complaints(sources, options);
  expect(found.map(({ name, what, file, line }) => `${path.relative(root, file)}:${line} ${name} ${what}`)).toEqual([]);
});

/** What is found in one file that a package exports, as "name what". */
async function complaintsOf(source: string): Promise<string[]> {
  const folder = await mkdtemp(path.join(tmpdir(), "sisa-docstrings-"));
  try {
    const entry = path.join(folder, "index.ts");
    await writeFile(path.join(folder, "inner.ts"), source);
    await writeFile(entry, 'export * from "./inner.ts";\n');
    return complaints([entry], { ...options, types: [] }).map(({ name, what }) => `${name} ${what}`);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test("names without a comment are found wherever they are public", async () => {
  const found = await complaintsOf(`
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
  `);
  const names = [
    ...["Box.kept", "Box.sum", "Choice.count", "Options", "Options.nested", "Options.nested.depth", "Options.size"],
    ...["lonelyOp", "renamed", "run.result", "run.unknown"],
  ];
  expect(found.sort()).toEqual(names.map((name) => `${name} has no comment`));
});

test("errors that a function throws must be told, and be public", async () => {
  const found = await complaintsOf(`
    class SisaError extends Error {}
    /** Wrong sizes. */
    export class ShapeError extends SisaError {}
    /** Wrong values. */
    export class ConfigError extends SisaError {}
    class HiddenError extends SisaError {}
    /** Silent. */
    export function silent(x: number): void {
      if (x < 0) throw new ShapeError();
    }
    /** Told. @throws ShapeError below 0; TypeError is the language's */
    export function told(x: number): void {
      if (x < 0) throw new ShapeError();
    }
    /** Handled here, and thrown by whoever calls what is returned. */
    export function handled(): () => void {
      try { throw new ShapeError(); } catch { return () => { throw new ShapeError(); }; }
    }
    /** Handed on. */
    export function handedOn(): void {
      try { throw new ShapeError(); } catch (error) { throw error; }
    }
    function helper(): void { throw new ShapeError(); }
    const arrow = (): void => { throw new ConfigError(); };
    /** By helpers. */
    export function byHelpers(xs: number[]): void {
      helper();
      for (const x of xs) if (x < 0) arrow();
    }
    /** By what it hands on. */
    export function byCallback(xs: number[]): void {
      xs.forEach(() => { throw new ShapeError(); });
    }
    /** A check. @throws ShapeError always */
    export function checkSize(): void { throw new ShapeError(); }
    /** By a check. */
    export function byCheck(): void { checkSize(); }
    /** A box. */
    export class Box {
      constructor() { throw new ConfigError(); }
      #fail(): void { throw new ShapeError(); }
      /** Fails. */
      fail(): void { this.#fail(); }
    }
    function define<T>(definition: T): T { return definition; }
    function apply<T>(op: T): T { return op; }
    /** Operation. */
    export const negOp = define({ check() { throw new ShapeError(); }, compose() { throw new ConfigError(); } });
    /** Applies. */
    export function neg(): unknown { return apply(negOp); }
    /** Names what nobody can catch. @throws HiddenError, LostError */
    export function hidden(): void { new HiddenError(); }
  `);
  expect(found).toEqual([
    "silent throws ShapeError without @throws",
    "handedOn throws ShapeError without @throws",
    "byHelpers throws ShapeError without @throws",
    "byHelpers throws ConfigError without @throws",
    "byCallback throws ShapeError without @throws",
    "byCheck throws ShapeError without @throws",
    "Box throws ConfigError without @throws",
    "Box.fail throws ShapeError without @throws",
    "neg throws ShapeError without @throws",
    "hidden @throws HiddenError, which is not public",
    "hidden @throws LostError, which is not public",
  ]);
});

test("types of objects that signatures name must be public", async () => {
  const found = await complaintsOf(`
    interface Hidden { size: number }
    type Anything = { [name: string]: number };
    type Words = "a" | "b";
    /** Seen. */
    export interface Seen {
      /** Hidden. */
      hidden: readonly Hidden[];
      /** A word. */
      word: Words;
      /** For us. @internal */
      ours: Hidden;
    }
    /** Runs. @param all of them */
    export function run<T>(seen: Seen, all: Promise<Hidden>, value: T, record: Anything): Hidden {
      return { size: seen.hidden.length };
    }
  `);
  expect(found).toEqual([
    "Seen.hidden names the type Hidden, which is not public",
    "run names the type Hidden, which is not public",
    "run names the type Hidden, which is not public",
  ]);
});

test("shapes of tensors, defaults of options and papers of operations must be told", async () => {
  const found = await complaintsOf(`
    /** A value. */
    export interface Tensor {
      /** Sizes. */
      shape: number[];
    }
    /** The same, see [there](elsewhere). */
    export function same(x: Tensor): Tensor { return x; }
    /** The same, [..., D]. */
    export function shaped(x: Tensor): Tensor { return x; }
    /** Two. @returns both */
    export function two(x: Tensor): { a: Tensor; b: Tensor } { return { a: x, b: x }; }
    /** A layer. */
    export class Layer {
      /** The newest. */
      get newest(): Tensor { return { shape: [] }; }
      /** Forward. @param x [B,T] */
      forward(x: Tensor): Tensor { return x; }
      /** Backward. */
      backward(x: Tensor): Tensor { return x; }
    }
    /** How. */
    export interface RunOptions {
      /** In bytes. */
      size?: number;
      /** In ms; default 5. */
      wait?: number;
      /** Needed. */
      name: string;
    }
    /**
     * Runs.
     * @param options.seed of all numbers
     * @param options.steps default 1
     */
    export function run(options: { seed?: number; steps?: number }): number { return options.seed ?? 0; }
    function define<T>(definition: T): T { return definition; }
    export const geluOp = define({ source: "Hendrycks & Gimpel 2016, arXiv:1606.08415" });
    /** A gate. */
    export function gelu(): unknown { return geluOp; }
    export const eluOp = define({ source: "arXiv:1511.07289, section 3" });
    /** A gate. Source: Clevert et al. 2015, arXiv:1511.07289. */
    export function elu(): unknown { return eluOp; }
  `);
  expect(found).toEqual([
    "same has no shape",
    "two has no shape",
    "Layer.backward has no shape",
    "RunOptions.size has no default",
    "run.seed has no default",
    "gelu does not name arXiv:1606.08415",
  ]);
});
