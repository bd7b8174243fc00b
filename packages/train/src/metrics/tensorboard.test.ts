import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { describe, expect, it } from "vitest";
import { fileVersionEvent, maskedCrc32c, metricsEvent, resumeEvent, tfRecord } from "./tensorboard.ts";

/** A message as a list of [field number, value], nested messages left as bytes. */
function fields(bytes: Uint8Array): [number, unknown][] {
  const reader = new BinaryReader(bytes);
  const found: [number, unknown][] = [];
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.Varint) found.push([number, Number(reader.int64())]);
    else if (type === WireType.Bit64) found.push([number, reader.double()]);
    else if (type === WireType.Bit32) found.push([number, reader.float()]);
    else found.push([number, reader.bytes()]);
  }
  return found;
}

function payloadOf(record: Uint8Array): Uint8Array {
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  const length = Number(view.getBigUint64(0, true));
  expect(record.length).toBe(16 + length);
  expect(view.getUint32(8, true)).toBe(maskedCrc32c(record.subarray(0, 8)));
  expect(view.getUint32(12 + length, true)).toBe(maskedCrc32c(record.subarray(12, 12 + length)));
  return record.subarray(12, 12 + length);
}

const text = (bytes: unknown): string => new TextDecoder().decode(bytes as Uint8Array);

describe("maskedCrc32c", () => {
  const unmask = (masked: number): number => {
    const rotated = (masked - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };

  it("is the CRC-32C of RFC 3720, section B.4", () => {
    expect(unmask(maskedCrc32c(new Uint8Array(32)))).toBe(0x8a9136aa);
    expect(unmask(maskedCrc32c(new Uint8Array(32).fill(0xff)))).toBe(0x62a8ab43);
    expect(unmask(maskedCrc32c(Uint8Array.from({ length: 32 }, (_, index) => index)))).toBe(0x46dd794e);
  });
});

describe("events", () => {
  it("begin with the version of the format", () => {
    const [time, version, ...rest] = fields(payloadOf(fileVersionEvent(1.5)));
    expect(time).toEqual([1, 1.5]);
    expect(version?.[0]).toBe(3);
    expect(text(version?.[1])).toBe("brain.Event:2");
    expect(rest).toEqual([]);
  });

  it("hold the scalars of a step under one step number", () => {
    const event = fields(
      payloadOf(
        metricsEvent(2, {
          type: "step",
          step: 300,
          tokens: 1,
          loss: 2.5,
          learningRate: 0.5,
          gradNorm: 1.25,
          tokensPerSecond: 1000,
          elapsedSeconds: 1,
          skipped: 0,
        }),
      ),
    );
    expect(event.slice(0, 2)).toEqual([
      [1, 2],
      [2, 300],
    ]);
    const values = fields(event[2]?.[1] as Uint8Array).map(([, value]) => fields(value as Uint8Array));
    expect(values.map((value) => [text(value[0]?.[1]), value[1]?.[1]])).toEqual([
      ["train/loss", 2.5],
      ["train/learning_rate", 0.5],
      ["train/grad_norm", 1.25],
      ["train/tokens_per_second", 1000],
      ["train/skipped", 0],
    ]);
  });

  it("tell where a run goes on", () => {
    const event = fields(payloadOf(resumeEvent(2, 300)));
    expect(event[1]).toEqual([2, 301]);
    expect(event[2]?.[0]).toBe(7);
    expect(fields(event[2]?.[1] as Uint8Array)).toEqual([[1, 1]]);
  });

  it("hold a sample as text", () => {
    const event = payloadOf(metricsEvent(2, { type: "sample", step: 1, prompt: "Once", text: "upon a time" }));
    expect(text(event)).toContain("sample: Once");
    expect(text(event)).toContain("upon a time");
  });

  it("frame an empty payload", () => {
    expect(payloadOf(tfRecord(new Uint8Array(0)))).toHaveLength(0);
  });
});
