import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { maskedCrc32c } from "../metrics/tensorboard.ts";
import { tensorboardFolder } from "./tensorboard-file.ts";

it("writes whole frames that TensorBoard accepts by name and checksum", () => {
  const folder = mkdtempSync(join(tmpdir(), "sisa-events-"));
  try {
    const sink = tensorboardFolder(folder);
    sink.start?.(5);
    sink.write({ type: "evaluation", step: 6, tokens: 1, elapsedSeconds: 1, heldOutLoss: 2.5 });
    sink.flush?.();
    sink.close?.();
    const [name, ...others] = readdirSync(folder);
    expect(name).toMatch(/^events\.out\.tfevents\.\d+\./);
    expect(others).toEqual([]);
    const content = readFileSync(join(folder, name ?? ""));
    const payloads: Buffer[] = [];
    for (let at = 0; at < content.length; ) {
      const length = Number(content.readBigUInt64LE(at));
      const payload = content.subarray(at + 12, at + 12 + length);
      expect(content.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(payload));
      payloads.push(payload);
      at += 16 + length;
    }
    expect(payloads).toHaveLength(3);
    expect(payloads[0]?.toString("latin1")).toContain("brain.Event:2");
    expect(payloads[2]?.toString("latin1")).toContain("held-out/loss");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
