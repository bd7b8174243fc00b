import { describe, expect, it } from "vitest";
import { seededRandom, utf8 } from "../testing.ts";
import { cutLines, cutText, type Piece } from "./cut-bytes.ts";

async function* chunksOf(bytes: Uint8Array, size: () => number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; ) {
    const end = at + size();
    yield bytes.subarray(at, end);
    at = end;
  }
}

async function collect(pieces: AsyncIterable<Piece>): Promise<[number, string][]> {
  const collected: [number, string][] = [];
  for await (const { offset, bytes } of pieces) collected.push([offset, new TextDecoder().decode(bytes)]);
  return collected;
}

const lines = (text: string, target: number, chunk = 1000) =>
  collect(
    cutLines(
      chunksOf(utf8(text), () => chunk),
      target,
      "x",
    ),
  );
const texts = (text: string, maximum: number, chunk = 1000) =>
  collect(
    cutText(
      chunksOf(utf8(text), () => chunk),
      maximum,
    ),
  );

describe("cutLines", () => {
  it("takes as many whole lines as fit", async () => {
    expect(await lines("aa\nbb\ncc\ndd", 7)).toEqual([
      [0, "aa\nbb\n"],
      [6, "cc\ndd"],
    ]);
  });

  it("never cuts a line", async () => {
    expect(await lines(`a\n${"b".repeat(20)}\nc\n`, 5)).toEqual([
      [0, "a\n"],
      [2, `${"b".repeat(20)}\n`],
      [23, "c\n"],
    ]);
    expect(await lines("x".repeat(30), 5)).toEqual([[0, "x".repeat(30)]]);
  });

  it("gives nothing for nothing", async () => {
    expect(await lines("", 5)).toEqual([]);
  });
});

describe("cutText", () => {
  it("leaves a short text whole", async () => {
    expect(await texts("one\n\ntwo", 8)).toEqual([[0, "one\n\ntwo"]]);
  });

  it("cuts between paragraphs, else lines, else words, else characters", async () => {
    expect(await texts("aaaa\n\nbb\ncc dd", 10)).toEqual([
      [0, "aaaa\n\n"],
      [6, "bb\ncc dd"],
    ]);
    expect(await texts("aaaaaa\nbb cc", 10)).toEqual([
      [0, "aaaaaa\n"],
      [7, "bb cc"],
    ]);
    expect(await texts("aaaa bb ccccc", 10)).toEqual([
      [0, "aaaa bb"],
      [7, " ccccc"],
    ]);
    expect(await texts("éééééé", 9)).toEqual([
      [0, "éééé"],
      [8, "éé"],
    ]);
  });

  it("ends even where nothing is a character", async () => {
    const pieces: number[] = [];
    for await (const { bytes } of cutText(
      chunksOf(new Uint8Array(25).fill(0x80), () => 7),
      10,
    ))
      pieces.push(bytes.length);
    expect(pieces).toEqual([10, 10, 5]);
  });
});

describe.each([
  ["cutLines", lines],
  ["cutText", texts],
] as const)("%s", (_, cut) => {
  it("loses nothing, and cuts the same however the bytes arrive", async () => {
    const random = seededRandom(10);
    const parts = ["word ", "longer word ", "\n", "\n\n", "é", "中", "x".repeat(40)];
    const text = Array.from({ length: 2000 }, () => parts[Math.floor(random() * parts.length)]).join("");
    const whole = await cut(text, 100, 1_000_000);
    expect(whole.map(([, piece]) => piece).join("")).toBe(text);
    for (const [offset, piece] of whole) {
      expect(new TextDecoder().decode(utf8(text).subarray(offset, offset + utf8(piece).length))).toBe(piece);
    }
    for (const chunk of [1, 2, 3, 7, 50, 99, 100, 101, 1000]) expect(await cut(text, 100, chunk)).toEqual(whole);
  });
});
