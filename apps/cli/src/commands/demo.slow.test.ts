import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { run, temporaryFolder, tinyText } from "../testing.ts";

it("compares two models of equal size, writes them and a report, and names commands that work", async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "book.txt"), tinyText.repeat(10));
  const { code, stdout } = await run(folder, ["demo", "--text", "book.txt", "--seconds", "1"]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/held-out loss, nats a byte +\d\.\d{4} +\d\.\d{4}/);
  expect(stdout).toContain("SISA goes on:");
  expect((await readdir(join(folder, "runs/demo"))).sort()).toEqual(["report.html", "sisa", "transformer"]);
  const report = await readFile(join(folder, "runs/demo/report.html"), "utf8");
  for (const part of ["Held-out loss", "Lambda", "Half-life in tokens, measured"]) expect(report).toContain(part);

  await writeFile(join(folder, "README.md"), tinyText);
  const commands = [...stdout.matchAll(/^ {2}sisa (.*?) +# /gm)].map(([, words = ""]) => words);
  expect(commands.map((words) => words.split(" ")[0])).toEqual(["generate", "inspect", "eval", "train"]);
  for (const words of commands.slice(0, 3)) {
    const parts = [...words.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
    expect(await run(folder, parts)).toMatchObject({ code: 0 });
  }
});

it("gives the same models again for the same number of steps, and says what one run does not decide", async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "book.txt"), tinyText.repeat(40));
  const words = ["demo", "--text", "book.txt", "--steps", "8"];
  const { json } = await run(folder, [...words, "--json"]);
  const { stdout } = await run(folder, [...words, "--to", "again"]);
  const { sisa, transformer } = json as Record<"sisa" | "transformer", { parameters: number; heldOutLoss: number }>;
  expect(Math.abs(sisa.parameters / transformer.parameters - 1)).toBeLessThan(1e-3);
  const [losses = ""] = /held-out loss, nats a byte.*/.exec(stdout) ?? [];
  for (const family of ["sisa", "transformer"] as const) {
    const { heldOutLoss } = { sisa, transformer }[family];
    expect(heldOutLoss).toBeLessThan(6);
    expect(losses).toContain(heldOutLoss.toFixed(4));
    const [model, again] = ["runs/demo", "again"].map((to) => join(folder, to, family, "model.safetensors"));
    expect((await readFile(again ?? "")).equals(await readFile(model ?? ""))).toBe(true);
  }
  expect(stdout).toMatch(/SISA minus Transformer: [+-]\d\.\d{4} ± \d\.\d{4} nats a byte/);
  expect(stdout).toContain("sisa demo --text book.txt --to again --steps 8");
  expect(await readFile(join(folder, "runs/demo/report.html"), "utf8")).toContain("does not decide which is better");
  expect(await run(folder, [...words, "--seconds", "5"])).toMatchObject({ code: 2 });
});

it("ends at Ctrl-C", async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "book.txt"), tinyText.repeat(10));
  const { code, error } = await run(folder, ["demo", "--text", "book.txt", "--seconds", "1"], {
    onProgress: (text, interrupt) => {
      if (text.includes("step 1/")) interrupt("SIGINT");
    },
  });
  expect(error).toBe("stopped before the comparison was done");
  expect(code).toBe(130);
  expect(existsSync(join(folder, "runs/demo/report.html"))).toBe(false);
});

it("refuses text that is too short, and a path that is not there", async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "note.txt"), "short");
  expect(await run(folder, ["demo", "--text", "note.txt"])).toMatchObject({
    code: 3,
    error: expect.stringContaining("expected more than 128 bytes to learn from"),
  });
  expect(await run(folder, ["demo", "--text", "nowhere"])).toMatchObject({
    code: 3,
    error: expect.stringContaining("there is no such file or folder"),
  });
});
