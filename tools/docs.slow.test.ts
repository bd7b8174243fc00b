// The documentation: its site builds with every link leading somewhere, and what its code blocks say is so.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { codeBlocks, exampleFolder, runExample } from "./examples.ts";
import { root, runProgram } from "./run.mjs";

const pages = readdirSync(path.join(root, "docs"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".md") && !/node_modules|^api|^dist|^onnx-example/.test(file))
  .sort();
const blocks = pages.flatMap((file) =>
  codeBlocks(readFileSync(path.join(root, "docs", file), "utf8")).map((block) => ({ file, ...block })),
);

/** What is not run says why. */
const programs = blocks.filter(({ language, note }) => language === "ts" && !note.startsWith("no-run: "));

test.each(programs)("$file:$line runs", async ({ code }) => {
  await using folder = await exampleFolder();
  await runExample(code, folder.path);
});

/** Lines such as `sisa train --steps 5`, with the options that they name. */
const commands = blocks
  .filter(({ language }) => language === "sh")
  .flatMap(({ file, line, code }) => code.split("\n").map((text) => ({ file, line, text })))
  .filter(({ text }) => text.startsWith("sisa "));

test("the commands in the pages exist, and take these options", () => {
  expect(commands.length).toBeGreaterThan(5);
  const sources = readdirSync(path.join(root, "apps/cli/src/commands"), { encoding: "utf8" })
    .filter((file) => !file.includes(".test."))
    .map((file) => [path.basename(file, ".ts"), readFileSync(path.join(root, "apps/cli/src/commands", file), "utf8")]);
  const known = new Map(sources as [string, string][]);
  for (const { file, line, text } of commands) {
    const [, name = ""] = text.split(" ");
    const source = known.get(name);
    expect(source, `${file}:${line}: sisa ${name}`).toBeDefined();
    // `train` takes every field of its configuration; its own tests reach each by its flag.
    if (name === "train") continue;
    for (const [option] of text.matchAll(/--[a-z-]+/g)) expect(source, `${file}:${line}: ${option}`).toContain(option);
  }
});

test("the site builds, and no link in it leads nowhere", async () => {
  expect(await runProgram(path.join(root, "docs/build.mjs"), [], root)).toBe(0);
  const built = readdirSync(path.join(root, "docs/dist"), { recursive: true, encoding: "utf8" });
  expect(built).toEqual(expect.arrayContaining(["index.html", "guides/train.html", "api/index.html"]));
  // The index that the search field reads.
  expect(built.some((file) => file.includes("localSearchIndex"))).toBe(true);
});
