// The checkpoints of one run: a folder `step-00000100` for each. A checkpoint appears by one rename, so that whatever ends
// the process leaves the old ones and either the whole new one or none.
import { CheckpointError, type SisaError } from "@sisa/core";
import { type Storage, StorageError, type Tokenizer } from "@sisa/hub";
import {
  type CheckpointMetadata,
  CheckpointMismatchError,
  isCheckpoint,
  type OpenCheckpoint,
  openCheckpoint,
  writeCheckpoint,
} from "./checkpoint.ts";
import { subfolder } from "./subfolder.ts";
import type { Trainer } from "./trainer.ts";

export interface CheckpointFolderOptions {
  /** How many of the newest are kept. */
  readonly keep: number;
  /** Lets a link such as `latest` lead to a checkpoint, where the storage can. */
  readonly pointTo?: ((link: "latest" | "best", name: string) => Promise<void>) | undefined;
}

const pattern = /^step-(\d{8,})$/;

/** Name of the folder of a step, such as `step-00000100`. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** Steps of the checkpoints in a folder, oldest first. */
export async function listCheckpoints(storage: Storage): Promise<number[]> {
  const steps = new Set<number>();
  for (const name of await storage.list()) {
    const [folder = "", file] = name.split("/");
    const step = pattern.exec(folder)?.[1];
    if (step !== undefined && file !== undefined) steps.add(Number(step));
  }
  return [...steps].sort((a, b) => a - b);
}

/** Saves checkpoints, and opens them again. */
export class CheckpointFolder {
  readonly storage: Storage;
  readonly #options: CheckpointFolderOptions;

  constructor(storage: Storage, options: CheckpointFolderOptions) {
    this.storage = storage;
    this.#options = options;
  }

  /**
   * Saves the trainer's state, then removes what is not to be kept any longer.
   *
   * @throws StorageError where it cannot be written; every older checkpoint is still there then
   */
  async save(trainer: Trainer, metadata: CheckpointMetadata, tokenizer?: Tokenizer): Promise<void> {
    const name = checkpointName(metadata.step);
    const unfinished = `.saving-${name}`;
    await this.#recover();
    await this.storage.remove(unfinished);
    try {
      await writeCheckpoint(subfolder(this.storage, unfinished), trainer, metadata, tokenizer);
    } catch (error) {
      // The room is needed for others, and the reason is what matters.
      await this.storage.remove(unfinished).catch(() => {});
      throw error;
    }
    const replaced = `.replaced-${name}`;
    const exists = (await listCheckpoints(this.storage)).includes(metadata.step);
    if (exists) await this.storage.rename(name, replaced);
    await this.storage.rename(unfinished, name);
    if (exists) await this.storage.remove(replaced);
    await this.#options.pointTo?.("latest", name);
    if (metadata.best?.step === metadata.step) await this.#options.pointTo?.("best", name);
    await this.#prune(metadata);
  }

  /** Puts back a checkpoint that was set aside by a save that did not get to put the new one in its place. */
  async #recover(): Promise<void> {
    const names = new Set((await this.storage.list()).map((name) => name.split("/")[0] ?? ""));
    for (const name of names) {
      const original = name.startsWith(".replaced-") ? name.slice(".replaced-".length) : undefined;
      if (original === undefined) continue;
      if (names.has(original)) await this.storage.remove(name);
      else await this.storage.rename(name, original);
    }
  }

  async #prune({ step, best }: CheckpointMetadata): Promise<void> {
    const older = (await listCheckpoints(this.storage)).filter((other) => other < step);
    const surplus = older.slice(0, Math.max(0, older.length - (this.#options.keep - 1)));
    for (const other of surplus) {
      if (other === best?.step) continue;
      // Half a checkpoint must not look like one.
      const unwanted = `.saving-${checkpointName(other)}`;
      await this.storage.remove(unwanted);
      await this.storage.rename(checkpointName(other), unwanted);
      await this.storage.remove(unwanted);
    }
  }

  /** The steps that there are checkpoints of, oldest first. */
  async steps(): Promise<number[]> {
    await this.#recover();
    return await listCheckpoints(this.storage);
  }

  /**
   * The newest checkpoint that `use` takes. Damaged ones are passed over.
   *
   * @param use reads the checkpoint; what it throws for damage leads to the next older one
   * @param onDamage told of each one that is passed over
   * @returns what `use` returned, or undefined where there is no checkpoint
   * @throws CheckpointMismatchError as `use` does; CheckpointError where all are damaged
   */
  async newest<R>(
    use: (checkpoint: OpenCheckpoint) => Promise<R>,
    onDamage: (message: string) => void,
  ): Promise<R | undefined> {
    const steps = await this.steps();
    let lastError: unknown;
    for (const step of steps.reverse()) {
      try {
        await using checkpoint = await openCheckpoint(subfolder(this.storage, checkpointName(step)));
        return await use(checkpoint);
      } catch (error) {
        if (!isDamage(error)) throw error;
        lastError = error;
        onDamage(error.message);
      }
    }
    if (lastError === undefined) return undefined;
    throw new CheckpointError(
      `${this.storage.location}: none of ${steps.length} checkpoints can be read; begin in another folder`,
      { cause: lastError },
    );
  }
}

/** True for files that are broken or missing; false for a sound checkpoint of another run, and for all else. */
function isDamage(error: unknown): error is SisaError {
  if (CheckpointMismatchError.isInstance(error)) return false;
  return CheckpointError.isInstance(error) || StorageError.isInstance(error);
}

/**
 * The checkpoint that a folder is, or the newest one that it holds.
 * @throws CheckpointError where there is none, or it is damaged; StorageError where a file cannot be read
 */
export async function findCheckpoint(folder: Storage): Promise<OpenCheckpoint> {
  if (await isCheckpoint(folder)) return await openCheckpoint(folder);
  const newest = (await listCheckpoints(folder)).at(-1);
  if (newest !== undefined) return await openCheckpoint(subfolder(folder, checkpointName(newest)));
  return await openCheckpoint(folder);
}
