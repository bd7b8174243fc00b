import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { DataError } from "@sisa/core";
import { byteTokenizer, type Tokenizer } from "@sisa/hub";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TrainingData } from "../data/training-data.ts";
import { textFiles } from "./text-files.ts";

/** One id a byte, 256 as end of text. */
const bytes: Tokenizer = {
  size: 257,
  endOfText: 256,
  encode: (text) => [...new TextEncoder().encode(text)],
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
  byteLength: (ids) => ids.length,
  tokenBytes: (id) => Uint8Array.of(id),
  streamDecoder: () => ({ push: () => "", flush: () => "" }),
};

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sisa-text-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function put(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

async function documentsOf(data: TrainingData): Promise<string[]> {
  const all = [
    ...(await data.training.read(0, data.training.length)),
    ...(await data.heldOut.read(0, data.heldOut.length)),
  ];
  const documents: string[] = [];
  const current: number[] = [];
  for (const id of all) {
    if (id === 256) documents.push(bytes.decode(current.splice(0)));
    else current.push(id);
  }
  return documents.sort();
}

describe("textFiles", () => {
  it("takes all text below a folder, and nothing else", async () => {
    put("a.txt", "one");
    put("b/c.d.ts", "two");
    put("b/README", "three");
    put("b/empty.md", "");
    put("image.png", Uint8Array.from([0x89, 0x50, 0, 1]));
    put(".git/config", "hidden");
    put("node_modules/x/index.js", "dependency");
    const data = await textFiles(folder, bytes, { heldOutFraction: 0.3 });
    expect(await documentsOf(data)).toEqual(["one", "three", "two"]);
    expect(data.description).toMatchObject({ documents: 3, skippedFiles: 1 });
  });

  it("follows a link given as the folder, and links to files, but no link to a folder", async () => {
    put("real/a.txt", "one");
    put("other/b.txt", "two");
    symlinkSync(join(folder, "other"), join(folder, "real/loop"));
    symlinkSync(join(folder, "other/b.txt"), join(folder, "real/b.txt"));
    symlinkSync(join(folder, "real"), join(folder, "node_modules"));
    const data = await textFiles(join(folder, "node_modules"), bytes, { heldOutFraction: 0.3 });
    expect(await documentsOf(data)).toEqual(["one", "two"]);
  });

  it("takes several paths and a filter", async () => {
    const one = put("one.md", "first");
    put("more/two.md", "second");
    put("more/two.json", "{}");
    const data = await textFiles([one, join(folder, "more")], bytes, { include: (path) => path.endsWith(".md") });
    expect(data.training.length + data.heldOut.length).toBe("first".length + "second".length + 2);
  });

  it("does not depend on the order in which the disk lists files", async () => {
    for (const name of ["b", "a", "C"]) put(`${name}.txt`, `${name} text`);
    const one = await textFiles(folder, bytes);
    const other = await textFiles(folder, bytes);
    expect(one.fingerprint).toBe(other.fingerprint);
  });

  it("names file and offset where text is not UTF-8", async () => {
    put("good.txt", "fine");
    const bad = put("sub/bad.txt", Uint8Array.from([0x63, 0x61, 0x66, 0xe9]));
    await expect(textFiles(folder, bytes)).rejects.toThrow(DataError);
    await expect(textFiles(bad, bytes)).rejects.toThrow(`${bad}: expected UTF-8 text, got the end of a cut-off`);
    put("sub/bad.txt", Uint8Array.from([0x63, 0xe9, 0x61]));
    await expect(textFiles(folder, bytes)).rejects.toThrow("bad.txt: expected UTF-8 text, got byte 0xe9 at offset 1");
  });

  it("refuses by name a file that is too large for one text", async () => {
    const large = put("large.txt", "");
    truncateSync(large, 120 * 2 ** 20);
    await expect(textFiles(large, byteTokenizer())).rejects.toThrow(
      `${large}: encode: expected at most 100 MiB of text at once`,
    );
    truncateSync(large, 600 * 2 ** 20);
    await expect(textFiles(large, byteTokenizer())).rejects.toThrow(
      `${large}: expected at most 512 MiB of text in one file, got 629145600 bytes`,
    );
  });

  it("says so where a path is missing, or holds no text", async () => {
    await expect(textFiles(join(folder, "nowhere"), bytes)).rejects.toThrow("there is no such file or folder");
    put("image.png", Uint8Array.from([0]));
    await expect(textFiles(folder, bytes)).rejects.toThrow("got 0 tokens, and 1 files that are not text");
  });
});
