import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { DataError } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { crc32 } from "../crc32.ts";
import { fixtures, temporaryFolder } from "../testing.ts";
import { readBytesOf } from "./read-bytes.ts";

const longWindow = fileURLToPath(new URL("long-window.jsonl.zst", fixtures));

async function content(path: string): Promise<{ bytes: number; checksum: number; read: number }> {
  const source = readBytesOf(path);
  let bytes = 0;
  let checksum = 0;
  for await (const chunk of source.chunks) {
    bytes += chunk.length;
    checksum = crc32(chunk, checksum);
  }
  return { bytes, checksum, read: source.position() };
}

async function fileOf(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(await temporaryFolder(), name);
  await writeFile(path, bytes);
  return path;
}

const text = new TextEncoder().encode("some text, and more of it\n".repeat(50_000));

describe("readBytesOf", () => {
  it("reads plain files", async () => {
    expect(await content(await fileOf("a.txt", text))).toEqual({
      bytes: text.length,
      checksum: crc32(text),
      read: text.length,
    });
  });

  it("reads .gz, several members too", async () => {
    const packed = gzipSync(text);
    const read = await content(await fileOf("a.gz", packed));
    expect(read).toEqual({ bytes: text.length, checksum: crc32(text), read: packed.length });
    const twice = await content(await fileOf("b.gz", Buffer.concat([packed, packed])));
    expect(twice.checksum).toBe(crc32(text, crc32(text)));
  });

  it("reads .zst with a window of 128 MiB, whose second half repeats bytes 70 MiB back", async () => {
    expect(await content(longWindow)).toMatchObject({ bytes: 73_406_160, checksum: 0xc3edfa40 });
  });

  it("reads .zst of several frames", async () => {
    const frame = await readFile(longWindow);
    const read = await content(await fileOf("two.zst", Buffer.concat([frame, frame])));
    expect(read.bytes).toBe(2 * 73_406_160);
  });

  it.each<[string, () => Promise<string>]>([
    ["a .gz that is cut short", async () => fileOf("a.gz", gzipSync(text).subarray(0, -20))],
    ["a .gz that is something else", async () => fileOf("a.gz", text)],
    ["a .gz with a damaged byte", async () => fileOf("a.gz", gzipSync(text).fill(0xaa, 40, 60))],
    ["a .zst that is cut short", async () => fileOf("a.zst", (await readFile(longWindow)).subarray(0, -20))],
    ["a .zst that is something else", async () => fileOf("a.zst", text)],
    ["a .zst with damaged bytes", async () => fileOf("a.zst", (await readFile(longWindow)).fill(0xaa, 400, 420))],
    ["a file that is gone", async () => join(await temporaryFolder(), "gone.txt")],
    ["a .gz that is gone", async () => join(await temporaryFolder(), "gone.gz")],
    ["a .zst that is gone", async () => join(await temporaryFolder(), "gone.zst")],
  ])("refuses %s", async (_, make) => {
    const path = await make();
    await expect(content(path)).rejects.toThrow(`${path}: cannot be read to its end: `);
    await expect(content(path)).rejects.toBeInstanceOf(DataError);
  });
});
