// The documentation: its site builds with every link leading somewhere, and what its code blocks say is so.
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildProgram, codeBlocks, exampleFolder, runExample } from "./examples.ts";
import { root } from "./run.mjs";

const pages = readdirSync(path.join(root, "docs"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".md") && !/node_modules|^api|^dist|^onnx-example/.test(file))
  .sort();
const blocks = pages.flatMap((file) =>
  codeBlocks(readFileSync(path.join(root, "docs", file), "utf8")).map((block) => ({ file, ...block })),
);
/** What is not run says why. */
const isRun = ({ note }: { readonly note: string }): boolean => !note.startsWith("no-run: ");
const programs = blocks.filter(({ language }) => language === "ts");

test.each(programs.filter(isRun))("$file:$line runs", async ({ code }) => {
  await using folder = await exampleFolder();
  await runExample(code, folder.path);
});

test("what the programs say has the types that it has", () => {
  const folder = path.join(root, "apps/cli/node_modules/.cache/typed-examples");
  // A part of a program, or one that needs what is not here, stands for itself.
  const whole = programs.filter(({ note }) => note === "" || note.startsWith("no-run: it needs"));
  const sources = new Map(
    whole.map(({ file, line, code }) => [
      path.join(folder, `${file.replaceAll("/", "-")}-${line}.ts`),
      `${code}\nexport {};\n`,
    ]),
  );
  const { config } = ts.readConfigFile(path.join(root, "tsconfig.json"), ts.sys.readFile);
  const parsed = ts.parseJsonConfigFileContent(config, { ...ts.sys, readDirectory: () => [] }, root);
  const lib = [...(parsed.options.lib ?? []), "lib.dom.d.ts"];
  const options = { ...parsed.options, lib, noEmit: true, incremental: false, noUnusedLocals: false };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile: read, getSourceFile } = host;
  host.fileExists = (file) => sources.has(file) || fileExists(file);
  host.readFile = (file) => sources.get(file) ?? read(file);
  host.getSourceFile = (file, ...rest) => {
    const text = sources.get(file);
    return text === undefined
      ? getSourceFile(file, ...rest)
      : ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  };
  const program = ts.createProgram([...sources.keys()], options, host);
  const problems = [...sources.keys()].flatMap((file) => [
    ...program.getSyntacticDiagnostics(program.getSourceFile(file)),
    ...program.getSemanticDiagnostics(program.getSourceFile(file)),
  ]);
  expect(
    problems.map(
      ({ file, messageText }) =>
        `${path.basename(file?.fileName ?? "")}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`,
    ),
  ).toEqual([]);
});

/** Blocks for a shell. What they do with npm and node, other tests do. */
const commands = blocks.filter((block) => block.language === "sh" && isRun(block) && block.code.startsWith("sisa "));

describe("commands", () => {
  /** A trained run, and what commands ask for; copied for every page. */
  let base: Awaited<ReturnType<typeof exampleFolder>>;
  /** So small that a step takes milliseconds; the last word counts. */
  const small =
    "--model.layers 1 --model.width 16 --model.heads 2 --model.stateWidth 2 --model.feedForwardWidth 16 " +
    "--model.maximumLength 256 --data.sequenceLength 32 --micro-batch-size 2 --steps 3";
  const sisa = (folder: string, script: string) =>
    promisify(execFile)("bash", ["-ec", `sisa() { ./sisa "$@"; }; export -f sisa; ${script}`], { cwd: folder });

  beforeAll(async () => {
    base = await exampleFolder();
    const at = (...names: string[]) => path.join(base.path, ...names);
    await buildProgram(commandProgram, at("sisa.mjs"));
    const script = `#!/bin/sh\n[ "$1" = train ] && exec "${process.execPath}" "${at("sisa.mjs")}" "$@" ${small}\nexec "${process.execPath}" "${at("sisa.mjs")}" "$@"\n`;
    await writeFile(at("sisa"), script, { mode: 0o755 });
    for (const name of ["corpus", "sets"]) await mkdir(at(name));
    const text = "Once upon a time there was a small model that learned to count: one, two, three.\n";
    for (const name of ["corpus/a.txt", "corpus/b.txt", "book.txt"]) {
      await writeFile(at(name), `${name}\n${text.repeat(40)}`);
    }
    await writeFile(at("sets/lambada_test.jsonl"), `${JSON.stringify({ text: "one two three" })}\n`);
    await writeFile(
      at("sets/piqa.jsonl"),
      `${JSON.stringify({ goal: "count", sol1: "one", sol2: "two", label: 0 })}\n`,
    );
    const [config] = blocks.filter(({ language }) => language === "json");
    await writeFile(at("sisa.config.json"), config?.code ?? "");
    await sisa(base.path, "sisa train sisa.config.json");
  });
  afterAll(async () => await base[Symbol.asyncDispose]());

  test.each(pages.filter((page) => commands.some(({ file }) => file === page)))(
    "of %s run as printed",
    async (page) => {
      await using folder = await exampleFolder();
      await promisify(execFile)("cp", ["-R", `${base.path}/.`, folder.path]);
      for (const { code, file, line } of commands.filter((block) => block.file === page)) {
        await sisa(folder.path, code).catch((error: { stderr?: string }) => {
          throw new Error(`${file}:${line}: ${error.stderr}`);
        });
      }
    },
  );
});

/** The command, from sources. */
const commandProgram = `
  import { nodeIo } from ${JSON.stringify(path.join(root, "apps/cli/src/io.ts"))};
  import { main } from ${JSON.stringify(path.join(root, "apps/cli/src/main.ts"))};
  process.exitCode = await main(process.argv.slice(2), nodeIo());
`;

test("the page of the command has the exit codes of its help", async () => {
  const help = readFileSync(path.join(root, "apps/cli/src/exit-codes.ts"), "utf8");
  const page = readFileSync(path.join(root, "docs/guides/command.md"), "utf8");
  const texts = [...help.matchAll(/^ {2}\[exitCode\.\w+, "(.*)"\],$/gm)].map(([, text]) => text);
  expect(texts.length).toBe(6);
  for (const text of texts) expect(page).toContain(`| ${text} |`);
});

test("the site builds without a warning, and no link in it leads nowhere", async () => {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [path.join(root, "docs/build.mjs")], {
    cwd: root,
  });
  expect(`${stdout}${stderr}`).not.toMatch(/warn/i);
  const dist = path.join(root, "docs/dist");
  const built = readdirSync(dist, { recursive: true, encoding: "utf8" });
  expect(built).toEqual(expect.arrayContaining(["index.html", "guides/train.html", "api/index.html"]));
  // The index that the search field reads.
  expect(built.some((file) => file.includes("localSearchIndex"))).toBe(true);
  expect(brokenAnchors(dist, built)).toEqual([]);
  // Bundling the pages of the reference takes minutes.
}, 900_000);

/** Links of our own pages to a heading that is not there. VitePress looks at the pages alone. */
function brokenAnchors(dist: string, built: readonly string[]): string[] {
  const html = new Map(
    built
      .filter((file) => file.endsWith(".html"))
      .map((file) => [`/${file}`, readFileSync(path.join(dist, file), "utf8")]),
  );
  const ids = new Map(
    [...html].map(([file, text]) => [file, new Set([...text.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id))]),
  );
  const own = [...html].filter(([file]) => !file.startsWith("/api/"));
  return own.flatMap(([file, text]) =>
    [...text.matchAll(/href="([^"#]*)#([^"]+)"/g)].flatMap(([, page = "", anchor = ""]) => {
      if (/^[a-z]+:/.test(page)) return [];
      const target =
        page === ""
          ? file
          : new URL(page, `http://site${file}`).pathname.replace(/\/$/, "/index.html").replace(/(?<!\.html)$/, ".html");
      return ids.get(target)?.has(decodeURIComponent(anchor)) ? [] : [`${file}: ${page}#${anchor}`];
    }),
  );
}
