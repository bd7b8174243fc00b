// What every storage promises, and what is particular to each.

import { mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { temporaryFolder, utf8 } from "../testing.ts";
import { directory } from "./directory-storage.ts";
import { filesStorage } from "./files-storage.ts";
import { memoryStorage } from "./memory-storage.ts";
import { readBytes, type Storage } from "./storage.ts";
import { urlStorage } from "./url-storage.ts";

const text = async (storage: Storage, name: string): Promise<string> =>
  new TextDecoder().decode(await readBytes(storage, name));

afterEach(() => {
  vi.restoreAllMocks();
});

describe.each([
  ["memoryStorage", async () => memoryStorage()],
  ["directory", async () => directory(join(await temporaryFolder(), "new", "folder"))],
])("%s", (_, make) => {
  it("reads back what was written, in ranges too", async () => {
    const storage = await make();
    await storage.write("a/b.txt", utf8("hello"));
    expect(await text(storage, "a/b.txt")).toBe("hello");
    expect(await storage.size("a/b.txt")).toBe(5);
    await using file = await storage.open("a/b.txt");
    expect(new TextDecoder().decode(await file.read(1, 4))).toBe("ell");
    expect(await file.read(5, 5)).toHaveLength(0);
    await expect(file.read(3, 6)).rejects.toMatchObject({ code: "STORAGE", reason: "failed" });
    await expect(file.read(-1, 2)).rejects.toMatchObject({ code: "STORAGE" });
  });

  it("takes content from a producer, which may go back", async () => {
    const storage = await make();
    await storage.write("f", async (file) => {
      await file.append(utf8("????"));
      for (let count = 0; count < 1000; count++) await file.append(utf8("abc"));
      await file.patch(0, utf8("1000"));
      await expect(file.patch(3003, utf8("xx"))).rejects.toMatchObject({ code: "STORAGE" });
    });
    expect(await text(storage, "f")).toBe(`1000${"abc".repeat(1000)}`);
  });

  it("keeps the old content where a producer fails, and leaves nothing behind", async () => {
    const storage = await make();
    await storage.write("f", utf8("old"));
    const failing = storage.write("f", async (file) => {
      await file.append(utf8("half"));
      throw new Error("the producer's own");
    });
    await expect(failing).rejects.toThrow("the producer's own");
    expect(await text(storage, "f")).toBe("old");
    expect(await storage.list()).toEqual(["f"]);
  });

  it("shows the old content until the new one is complete", async () => {
    const storage = await make();
    await storage.write("f", utf8("old"));
    await storage.write("f", async (file) => {
      await file.append(utf8("new"));
      expect(await text(storage, "f")).toBe("old");
      expect(await storage.list()).toEqual(["f"]);
    });
    expect(await text(storage, "f")).toBe("new");
  });

  it("lists, renames and removes files and folders", async () => {
    const storage = await make();
    expect(await storage.list()).toEqual([]);
    for (const name of ["x", "part/1", "part/deep/2"]) await storage.write(name, utf8(name));
    await storage.rename("part", "whole");
    await storage.rename("x", "whole/1");
    expect(await storage.list()).toEqual(["whole/1", "whole/deep/2"]);
    expect(await text(storage, "whole/1")).toBe("x");
    await storage.remove("whole/deep");
    await storage.remove("never");
    expect(await storage.list()).toEqual(["whole/1"]);
    await expect(storage.rename("never", "y")).rejects.toMatchObject({ code: "STORAGE", reason: "missing" });
  });

  it("says that a file is missing", async () => {
    const storage = await make();
    expect(await storage.size("no")).toBeUndefined();
    await expect(storage.open("no")).rejects.toMatchObject({ code: "STORAGE", reason: "missing" });
  });

  // As in a time: no system but Windows minds.
  it.skipIf(process.platform === "win32")("takes names with a colon", async () => {
    const storage = await make();
    await storage.write("08:35/a:b", utf8("x"));
    await storage.rename("08:35", "08:36");
    expect(await text(storage, "08:36/a:b")).toBe("x");
  });

  it.each(["", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "C:\\x", "a\0"])(
    "refuses the name %j",
    async (name) => {
      const storage = await make();
      await expect(storage.write(name, utf8("x"))).rejects.toMatchObject({ code: "STORAGE", reason: "denied" });
      await expect(storage.open(name)).rejects.toMatchObject({ code: "STORAGE", reason: "denied" });
    },
  );
});

describe("memoryStorage", () => {
  it("keeps its own copies", async () => {
    const bytes = Buffer.from("abc");
    const storage = memoryStorage({ f: bytes });
    bytes.fill(0);
    (await readBytes(storage, "f")).fill(0);
    expect(await text(storage, "f")).toBe("abc");
  });

  it("can be full", async () => {
    const storage = memoryStorage({ old: utf8("12345678") }, { capacityBytes: 10 });
    await expect(storage.write("old", utf8("123"))).rejects.toMatchObject({ code: "STORAGE", reason: "full" });
    expect(await text(storage, "old")).toBe("12345678");
  });
});

describe("directory", () => {
  it("leaves the old file untouched where the disk is full, and says so", async () => {
    const folder = await temporaryFolder();
    const storage = directory(folder);
    await storage.write("model", utf8("old"));
    const handle = await open(join(folder, "model"));
    const prototype: Pick<typeof handle, "write"> = Object.getPrototypeOf(handle);
    await handle.close();
    const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
    vi.spyOn(prototype, "write").mockRejectedValueOnce(full);
    const write = storage.write("model", utf8("new"));
    await expect(write).rejects.toMatchObject({ code: "STORAGE", reason: "full", cause: full });
    await expect(write).rejects.toThrow(/disk is full/);
    expect(await readFile(join(folder, "model"), "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(["model"]);
    await storage.write("model", utf8("new"));
    expect(await readFile(join(folder, "model"), "utf8")).toBe("new");
  });

  it("leaves the old file untouched where flushing fails", async () => {
    const folder = await temporaryFolder();
    const storage = directory(folder);
    await storage.write("model", utf8("old"));
    const handle = await open(join(folder, "model"));
    const prototype: Pick<typeof handle, "sync"> = Object.getPrototypeOf(handle);
    await handle.close();
    vi.spyOn(prototype, "sync").mockRejectedValueOnce(Object.assign(new Error("EIO: i/o error"), { code: "EIO" }));
    await expect(storage.write("model", utf8("new"))).rejects.toMatchObject({ code: "STORAGE", reason: "failed" });
    expect(await readdir(folder)).toEqual(["model"]);
    expect(await readFile(join(folder, "model"), "utf8")).toBe("old");
  });

  it("does not list files that a killed process left half written", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, ".model.0123456789ab.tmp"), "half");
    await mkdir(join(folder, "empty"));
    expect(await directory(folder).list()).toEqual([]);
  });

  it("does not take a folder for a file", async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "sub"));
    expect(await directory(folder).size("sub")).toBeUndefined();
    await expect(directory(folder).open("sub")).rejects.toMatchObject({ reason: "missing" });
    await writeFile(join(folder, "file"), "");
    expect(await directory(folder).size("file/inside")).toBeUndefined();
  });

  it("can be closed twice", async () => {
    const storage = directory(await temporaryFolder());
    await storage.write("f", utf8("x"));
    const file = await storage.open("f");
    await file.close();
    await file.close();
    expect(await text(storage, "f")).toBe("x");
  });
});

describe("filesStorage", () => {
  it("reads picked files by name and picked folders by path", async () => {
    const picked = Object.assign(new File(["{}"], "config.json"), { webkitRelativePath: "my-model/sub/config.json" });
    const storage = filesStorage([new File(["hello"], "a.txt"), picked]);
    expect(await storage.list()).toEqual(["a.txt", "sub/config.json"]);
    expect(await text(storage, "a.txt")).toBe("hello");
    expect(await storage.size("sub/config.json")).toBe(2);
    expect(await storage.size("config.json")).toBeUndefined();
    await expect(storage.open("b.txt")).rejects.toMatchObject({ reason: "missing" });
    await expect(storage.write("a.txt", utf8("x"))).rejects.toMatchObject({ reason: "unsupported" });
  });
});

describe("urlStorage", () => {
  const content = utf8("0123456789");

  /** A server with one file below /models/my model/, with or without support for ranges. */
  async function serve(ranges: boolean): Promise<{ server: Server; base: string; requests: string[] }> {
    const requests: string[] = [];
    const server = createServer((request, response) => {
      requests.push(`${request.method} ${request.url} ${request.headers.range ?? ""}`.trimEnd());
      const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
      if (request.url === "/models/my%20model/secret") response.writeHead(403).end();
      else if (request.url !== "/models/my%20model/sub/a.bin") response.writeHead(404).end();
      else if (request.method === "HEAD") response.writeHead(200, { "content-length": content.length }).end();
      else if (match === null || !ranges) response.writeHead(200).end(content);
      else response.writeHead(206).end(content.subarray(Number(match[1]), Number(match[2]) + 1));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    return { server, base: `http://127.0.0.1:${port}/models/my model`, requests };
  }

  it.each([true, false])("reads ranges, from a server that knows them: %s", async (ranges) => {
    const { server, base, requests } = await serve(ranges);
    try {
      const storage = urlStorage(base);
      expect(await storage.size("sub/a.bin")).toBe(10);
      expect(await storage.size("b")).toBeUndefined();
      const file = await storage.open("sub/a.bin");
      expect(await file.read(2, 5)).toEqual(content.slice(2, 5));
      expect(await file.read(9, 10)).toEqual(content.slice(9));
      expect(requests.filter((line) => line.startsWith("GET"))).toHaveLength(ranges ? 2 : 1);
      expect(requests).toContain("GET /models/my%20model/sub/a.bin bytes=2-4");
      await expect(storage.open("b")).rejects.toMatchObject({ code: "STORAGE", reason: "missing" });
      await expect(storage.open("secret")).rejects.toMatchObject({ code: "STORAGE", reason: "denied" });
      await expect(storage.open("../up")).rejects.toMatchObject({ code: "STORAGE", reason: "denied" });
      await expect(storage.list()).rejects.toMatchObject({ code: "STORAGE", reason: "unsupported" });
      await expect(storage.write("a", content)).rejects.toMatchObject({ code: "STORAGE", reason: "unsupported" });
    } finally {
      server.close();
    }
  });

  it("notices an answer of the wrong length", async () => {
    const fetch = async (_: unknown, init?: RequestInit): Promise<Response> =>
      init?.method === "HEAD"
        ? new Response(null, { headers: { "content-length": "10" } })
        : new Response("123", { status: 206 });
    const file = await urlStorage("https://example.org/m/", { fetch }).open("f");
    await expect(file.read(0, 5)).rejects.toThrow(/expected 5 bytes, got 3/);
  });

  it("says that a server cannot be reached", async () => {
    const fetch = async (): Promise<Response> => {
      throw new TypeError("fetch failed");
    };
    const read = urlStorage("https://example.org/m/", { fetch }).size("f");
    await expect(read).rejects.toThrow("https://example.org/m/f: cannot be reached: fetch failed");
  });

  it.each(["http:evil.example/f", "https:f", "data:f"])("asks for %s below its own address", async (name) => {
    const seen: string[] = [];
    const fetch = async (url: unknown): Promise<Response> => {
      seen.push(String(url));
      return new Response(null, { status: 404 });
    };
    await urlStorage("https://example.org/m/", { fetch }).size(name);
    expect(seen).toEqual([`https://example.org/m/${name.replace(":", "%3A")}`]);
  });

  it("sends the headers it was given", async () => {
    const seen: unknown[] = [];
    const fetch = async (_: unknown, init?: RequestInit): Promise<Response> => {
      seen.push(init?.headers);
      return new Response(null, { status: 404 });
    };
    await urlStorage("https://example.org/m", { fetch, headers: { authorization: "Bearer x" } }).size("f");
    expect(seen).toEqual([{ authorization: "Bearer x" }]);
  });
});
