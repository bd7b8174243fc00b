// TensorBoard event files as bytes: TFRecord frames around Event messages of protobuf. Only scalars and texts.
// Sources: tensorflow/core/util/event.proto, framework/summary.proto, lib/io/record_writer.h.
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { EvaluationRecord, MetricsRecord, StepRecord } from "./metrics.ts";

/** Field numbers of the messages that are written. */
const eventField = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 } as const;
const summaryField = { value: 1 } as const;
const valueField = { tag: 1, simpleValue: 2, tensor: 8, metadata: 9 } as const;
const tensorField = { dtype: 1, shape: 2, stringValue: 8 } as const;
const metadataField = { pluginData: 1, pluginName: 1 } as const;
const shapeField = { dim: 2, size: 1 } as const;
const sessionStart = 1;
const stringType = 7;

/** First record of every event file. */
export function fileVersionEvent(wallTimeSeconds: number): Uint8Array<ArrayBuffer> {
  return eventRecord(wallTimeSeconds, undefined, (event) => {
    event.tag(eventField.fileVersion, WireType.LengthDelimited).string("brain.Event:2");
  });
}

/** Tells TensorBoard that the run goes on after `step`, so that it drops later events of other files. */
export function resumeEvent(wallTimeSeconds: number, step: number): Uint8Array<ArrayBuffer> {
  return eventRecord(wallTimeSeconds, step + 1, (event) => {
    event.tag(eventField.sessionLog, WireType.LengthDelimited).fork();
    event.tag(1, WireType.Varint).int32(sessionStart);
    event.join();
  });
}

/** The record of a step, a held-out loss, a sample or a warning. */
export function metricsEvent(wallTimeSeconds: number, record: MetricsRecord): Uint8Array<ArrayBuffer> {
  return eventRecord(wallTimeSeconds, record.step, (event) => {
    event.tag(eventField.summary, WireType.LengthDelimited).fork();
    if (record.type === "sample") {
      writeText(event, `sample: ${record.prompt}`, record.text);
    } else if (record.type === "warning") {
      writeText(event, "warning", record.message);
    } else {
      for (const [tag, value] of scalarsOf(record)) writeScalar(event, tag, value);
    }
    event.join();
  });
}

function scalarsOf(record: StepRecord | EvaluationRecord): [tag: string, value: number][] {
  if (record.type === "evaluation") {
    const bits: [string, number][] =
      record.bitsPerByte === undefined ? [] : [["held-out/bits_per_byte", record.bitsPerByte]];
    const measures = Object.entries(record.measures ?? {}).map(([name, value]): [string, number] => [
      `measures/${name.replaceAll(" ", "_")}`,
      value,
    ]);
    return [["held-out/loss", record.heldOutLoss], ...bits, ...measures];
  }
  return [
    ["train/loss", record.loss],
    ["train/learning_rate", record.learningRate],
    ["train/grad_norm", record.gradNorm],
    ["train/tokens_per_second", record.tokensPerSecond],
    ["train/skipped", record.skipped],
  ];
}

function writeScalar(event: BinaryWriter, tag: string, value: number): void {
  event.tag(summaryField.value, WireType.LengthDelimited).fork();
  event.tag(valueField.tag, WireType.LengthDelimited).string(tag);
  event.tag(valueField.simpleValue, WireType.Bit32).float(value);
  event.join();
}

function writeText(event: BinaryWriter, tag: string, text: string): void {
  event.tag(summaryField.value, WireType.LengthDelimited).fork();
  event.tag(valueField.tag, WireType.LengthDelimited).string(tag);
  event.tag(valueField.tensor, WireType.LengthDelimited).fork();
  event.tag(tensorField.dtype, WireType.Varint).int32(stringType);
  event.tag(tensorField.shape, WireType.LengthDelimited).fork();
  event.tag(shapeField.dim, WireType.LengthDelimited).fork();
  event.tag(shapeField.size, WireType.Varint).int64(1);
  event.join();
  event.join();
  event.tag(tensorField.stringValue, WireType.LengthDelimited).string(text);
  event.join();
  event.tag(valueField.metadata, WireType.LengthDelimited).fork();
  event.tag(metadataField.pluginData, WireType.LengthDelimited).fork();
  event.tag(metadataField.pluginName, WireType.LengthDelimited).string("text");
  event.join();
  event.join();
  event.join();
}

function eventRecord(
  wallTimeSeconds: number,
  step: number | undefined,
  write: (event: BinaryWriter) => void,
): Uint8Array<ArrayBuffer> {
  const event = new BinaryWriter();
  event.tag(eventField.wallTime, WireType.Bit64).double(wallTimeSeconds);
  if (step !== undefined) event.tag(eventField.step, WireType.Varint).int64(step);
  write(event);
  return tfRecord(event.finish());
}

/** A TFRecord frame: length, its checksum, the payload, its checksum; all little-endian. */
export function tfRecord(payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const record = new Uint8Array(16 + payload.length);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(payload.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(payload, 12);
  view.setUint32(12 + payload.length, maskedCrc32c(payload), true);
  return record;
}

/** The checksum of TFRecord: CRC-32C, rotated and shifted so that checksums of checksums stay sound. */
export function maskedCrc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crcTable[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  crc = (crc ^ 0xffffffff) >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, by byte. */
const crcTable = /* @__PURE__ */ Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value >>> 0;
});
