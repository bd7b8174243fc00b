// What the page knows, as signals, and what a person can make it do. Components only show this and call it.

import { batch, computed, type Signal, signal } from "@preact/signals";
import type { EvaluationRecord, MetricsRecord, StepRecord } from "@sisa/train";
import { proxy, type Remote, wrap } from "comlink";
import { sonnets } from "./sonnets.ts";
import type { ModelSession } from "./worker/model-session.ts";
import type { BackendChoice, OpenBackend } from "./worker/open-backend.ts";
import type { AttentionView, Family, ModelFacts, TrainingSetup } from "./worker/views.ts";

/** Which model: one of the two that are trained, or the one that was opened. */
export type ModelName = Family | "opened";

export const modelLabels: Readonly<Record<ModelName, string>> = {
  sisa: "SISA",
  transformer: "Transformer",
  opened: "Opened model",
};

export type Phase = "idle" | "preparing" | "running" | "pausing" | "paused" | "done";

/** A model in its own worker. */
export interface Slot {
  readonly name: ModelName;
  readonly session: Remote<ModelSession>;
  readonly about: Signal<Omit<OpenBackend, "backend"> | undefined>;
  readonly facts: Signal<ModelFacts | undefined>;
  readonly steps: Signal<readonly StepRecord[]>;
  readonly evaluations: Signal<readonly EvaluationRecord[]>;
  readonly warning: Signal<string>;
  readonly sample: Signal<string>;
}

export const families = ["sisa", "transformer"] as const;

const choices: readonly BackendChoice[] = ["automatic", "webgpu", "cpu"];

/** `?backend=cpu` or `?backend=webgpu` in the address asks for one. */
const choice = choices.find((name) => name === new URLSearchParams(location.search).get("backend")) ?? "automatic";

function newSlot(name: ModelName): Slot {
  const worker = new Worker(new URL("./worker/worker.ts", import.meta.url), { type: "module", name });
  const slot: Slot = {
    name,
    session: wrap<ModelSession>(worker),
    about: signal(undefined),
    facts: signal(undefined),
    steps: signal([]),
    evaluations: signal([]),
    warning: signal(""),
    sample: signal(""),
  };
  worker.addEventListener("error", (event) => fail(new Error(event.message || "a worker could not be started")));
  slot.session.open(choice).then((about) => {
    slot.about.value = about;
  }, fail);
  return slot;
}

export const slots = signal<readonly Slot[]>([]);
export const error = signal("");

export const trainingText = signal(sonnets);
export const setup = signal<Pick<TrainingSetup, "size" | "steps" | "sequenceLength">>({
  size: "tiny",
  steps: 200,
  sequenceLength: 128,
});
export const phase = signal<Phase>("idle");
export const opening = signal(false);

export const prompt = signal("Shall I ");
export const sampling = signal(false);

/** What is looked at. */
export const look = {
  text: signal("Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:"),
  model: signal<ModelName>("sisa"),
  layer: signal(0),
  head: signal(0),
  /** Index of the token that attends. */
  query: signal(38),
  /** Index of a token before it whose numbers are shown. */
  key: signal<number | undefined>(undefined),
  view: signal<AttentionView | undefined>(undefined),
  step: signal<number | undefined>(undefined),
  busy: signal(false),
};

/** Most tokens that are shown: every pair of them is a number for each head. */
export const maximumLookTokens = 160;

export const models = computed(() => slots.value.filter((slot) => slot.facts.value !== undefined));
const slotOf = (name: ModelName) => slots.value.find((slot) => slot.name === name);

/** Starts the workers, so that the page can say early what it runs on. */
export function start(): void {
  slots.value = families.map(newSlot);
}

export function fail(reason: unknown): void {
  error.value = reason instanceof Error ? reason.message : String(reason);
}

/** Trains both models, each in its worker, from the beginning. */
export async function train(): Promise<void> {
  error.value = "";
  phase.value = "preparing";
  const seed = 0;
  const trained = slots.value.filter((slot): slot is Slot & { name: Family } => slot.name !== "opened");
  try {
    await Promise.all(
      trained.map(async ({ name, session, facts }) => {
        facts.value = await session.prepare({ ...setup.value, family: name, text: trainingText.value, seed });
      }),
    );
    for (const { steps, evaluations, warning, sample } of trained) {
      batch(() => {
        steps.value = [];
        evaluations.value = [];
        warning.value = "";
        sample.value = "";
      });
    }
    phase.value = "running";
    void refreshLook("sisa");
    await Promise.all(trained.map((slot) => slot.session.train(proxy((record) => take(slot, record)))));
    await refreshLook(look.model.value);
    phase.value = "done";
  } catch (reason) {
    fail(reason);
    for (const { session } of trained) void session.stop();
    phase.value = trained.some(({ steps }) => steps.value.length > 0) ? "done" : "idle";
  }
}

function take(slot: Slot, record: MetricsRecord): void {
  if (record.type === "step") slot.steps.value = [...slot.steps.value, record];
  if (record.type === "evaluation") slot.evaluations.value = [...slot.evaluations.value, record];
  if (record.type === "warning") slot.warning.value = `Step ${record.step} changed nothing: ${record.message}`;
  if (slot.name === look.model.value) followTraining();
}

let lookedAtMs = 0;

/** Shows attention as it forms, about every two seconds. */
function followTraining(): void {
  if (look.busy.value || performance.now() - lookedAtMs < 2000) return;
  void refreshLook(look.model.value);
}

export async function pause(): Promise<void> {
  phase.value = "pausing";
  await Promise.all(slots.value.map(({ session }) => session.pause()));
  // Training may have come to its end instead.
  if (phase.value === "pausing") phase.value = "paused";
}

export function resume(): void {
  for (const { session } of slots.value) void session.resume();
  phase.value = "running";
}

export function stop(): void {
  for (const { session } of slots.value) void session.stop();
}

/** Continues the prompt with every model there is. */
export async function sampleAll(): Promise<void> {
  error.value = "";
  sampling.value = true;
  const options = { maxTokens: 160, temperature: 0.7, seed: Math.floor(Math.random() * 2 ** 32) };
  try {
    await Promise.all(
      models.value.map(async ({ session, sample }) => {
        sample.value = "";
        const write = (text: string) => {
          sample.value += text;
        };
        await session.sample(prompt.value, options, proxy(write));
      }),
    );
  } catch (reason) {
    fail(reason);
  } finally {
    sampling.value = false;
  }
}

/** Opens a model from files, in a worker of its own, and looks at it. */
export async function openModel(files: readonly File[]): Promise<void> {
  error.value = "";
  opening.value = true;
  try {
    let slot = slotOf("opened");
    if (slot === undefined) {
      slot = newSlot("opened");
      slots.value = [...slots.value, slot];
    }
    slot.facts.value = await slot.session.load([...files]);
    slot.sample.value = "";
    await lookAt("opened");
  } catch (reason) {
    fail(reason);
  } finally {
    opening.value = false;
  }
}

/** Chooses the model that is looked at. */
export async function lookAt(name: ModelName): Promise<void> {
  look.model.value = name;
  await refreshLook(name);
}

/** Computes again what the chosen model attends to. */
export async function refreshLook(name: ModelName): Promise<void> {
  const slot = slotOf(name);
  if (slot?.facts.value === undefined) return;
  look.busy.value = true;
  lookedAtMs = performance.now();
  try {
    const step = slot.steps.value.length;
    const view = await slot.session.attention(look.text.value, maximumLookTokens);
    if (look.model.value !== name) return;
    batch(() => {
      look.view.value = view;
      look.step.value = name === "opened" ? undefined : step;
      look.layer.value = Math.min(look.layer.value, view.layers.length - 1);
      look.head.value = Math.min(look.head.value, view.heads - 1);
      look.query.value = Math.min(look.query.value, view.tokens.length - 1);
    });
  } catch (reason) {
    fail(reason);
  } finally {
    look.busy.value = false;
  }
}
