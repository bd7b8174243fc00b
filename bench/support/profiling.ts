// Times of the nodes that ONNX Runtime ran, by our operations: nodes are named `<op>#<number>.<part>`.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import type { InferenceSession } from "onnxruntime-node";
import { least, table } from "./statistics.ts";

/** What is read of an event in ONNX Runtime's profile. */
interface ProfileEvent {
  readonly cat: string;
  readonly name: string;
  /** Microseconds: when it began, and how long it took. */
  readonly ts: number;
  readonly dur: number;
  readonly args?: {
    readonly op_name?: string;
    readonly input_type_shape?: readonly { readonly [type: string]: readonly number[] }[];
    readonly output_type_shape?: readonly { readonly [type: string]: readonly number[] }[];
  };
}

/** A program's profile. */
export interface Profile {
  readonly nodes: readonly ProfileEvent[];
  /** Each run as a whole, in order. */
  readonly runs: readonly { readonly start: number; readonly ms: number }[];
}

/**
 * Makes every session from here on write a profile. The module is changed in place, so that it does not matter who makes
 * the sessions.
 */
export class Profiler {
  readonly #folder = mkdtempSync(path.join(tmpdir(), "sisa-profile-"));
  readonly #sessions = new Set<InferenceSession>();
  #made = 0;

  constructor() {
    const { InferenceSession } = createRequire(import.meta.url)("onnxruntime-node") as {
      InferenceSession: {
        create(model: Uint8Array, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
      };
    };
    const create = InferenceSession.create.bind(InferenceSession);
    InferenceSession.create = async (model, options) => {
      const profileFilePrefix = path.join(this.#folder, `${this.#made++}`.padStart(4, "0"));
      const session = await create(model, { ...options, enableProfiling: true, profileFilePrefix });
      this.#sessions.add(session);
      const release = session.release.bind(session);
      session.release = async () => {
        this.#end(session);
        await release();
      };
      return session;
    };
  }

  #end(session: InferenceSession): void {
    if (this.#sessions.delete(session)) session.endProfiling();
  }

  /** Ends profiling; profiles come in the order in which the sessions were made. */
  finish(): Profile[] {
    for (const session of this.#sessions) this.#end(session);
    const files = readdirSync(this.#folder).sort();
    const profiles = files.map((file): Profile => {
      const events: readonly ProfileEvent[] = JSON.parse(readFileSync(path.join(this.#folder, file), "utf8"));
      return {
        nodes: events.filter(({ cat, name }) => cat === "Node" && name.endsWith("_kernel_time")),
        runs: events
          .filter(({ name }) => name === "model_run")
          .map(({ ts, dur }) => ({ start: ts, ms: dur / 1000 }))
          .sort((a, b) => a.start - b.start),
      };
    });
    rmSync(this.#folder, { recursive: true, force: true });
    return profiles;
  }
}

/** A profile without its first runs, which did something else. Runs need not have equal numbers of nodes. */
export function withoutFirst({ nodes, runs }: Profile, skip: number): Profile {
  const kept = runs.slice(skip);
  const begin = kept[0]?.start ?? Number.POSITIVE_INFINITY;
  return { nodes: nodes.filter(({ ts }) => ts >= begin), runs: kept };
}

const groupings: { readonly [title: string]: (event: ProfileEvent) => string } = {
  operation: ({ name }) => (name.includes("#") ? (name.split("#")[0] ?? "") : "(added by ONNX Runtime)"),
  "ONNX operator": ({ args }) => args?.op_name ?? "",
  "operation, operator and shapes": ({ name, args }) =>
    `${name.split("#")[0]} ${args?.op_name} ${shapes(args?.input_type_shape)} -> ${shapes(args?.output_type_shape)}`,
};

function shapes(entries: readonly { readonly [type: string]: readonly number[] }[] = []): string {
  return entries.flatMap((entry) => Object.values(entry).map((shape) => `[${shape}]`)).join(" ");
}

/** Tables of a profile; of each node its fastest run is counted, since others may have been disturbed. */
export function profileText({ nodes, runs }: Profile, rows: number): string {
  const fastest = new Map<string, { readonly event: ProfileEvent; ms: number }>();
  for (const event of nodes) {
    const known = fastest.get(event.name);
    if (known === undefined) fastest.set(event.name, { event, ms: event.dur / 1000 });
    else known.ms = Math.min(known.ms, event.dur / 1000);
  }
  const all = [...fastest.values()];
  const total = all.reduce((sum, { ms }) => sum + ms, 0);
  const parts = [
    `fastest run ${least(runs.map(({ ms }) => ms)).toFixed(1)} ms; fastest times of its ${all.length} nodes ${total.toFixed(1)} ms`,
  ];
  for (const [title, keyOf] of Object.entries(groupings)) {
    const sums = new Map<string, { ms: number; count: number }>();
    for (const { event, ms } of all) {
      const sum = sums.get(keyOf(event)) ?? { ms: 0, count: 0 };
      sums.set(keyOf(event), { ms: sum.ms + ms, count: sum.count + 1 });
    }
    const sorted = [...sums].sort(([, a], [, b]) => b.ms - a.ms).slice(0, rows);
    const cells = sorted.map(([key, { ms, count }]) => [
      key,
      ms.toFixed(2),
      ((100 * ms) / total).toFixed(1),
      `${count}`,
    ]);
    parts.push(table([title, "ms", "%", "nodes"], cells));
  }
  return parts.join("\n\n");
}
