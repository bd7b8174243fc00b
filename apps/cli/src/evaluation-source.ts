// What the tasks of `sisa eval` and `sisa experiment` are made from: the model's sizes, and files that the user named.
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { ConfigError, DataError } from "@sisa/core";
import type { ItemFile } from "@sisa/train";

/**
 * The file of a set among the places that a user named: `set=FILE`, a file whose name begins with the set's, or a folder
 * that holds exactly one such file.
 *
 * @throws ConfigError where none or several are there; DataError where it cannot be read
 */
export async function itemFile(set: string, places: readonly string[], cwd: string): Promise<ItemFile> {
  const named = places.flatMap((place) => (place.startsWith(`${set}=`) ? [place.slice(set.length + 1)] : []));
  const [path, ...others] = named.length > 0 ? named : await filesOfSet(set, places, cwd);
  const wanted = `--data FILE, a folder with ${set}*.jsonl, or ${set}=FILE`;
  if (path === undefined)
    throw new ConfigError(`task ${set} needs its items, one JSON object a line; name them: ${wanted}`);
  if (others.length > 0) {
    const found = [path, ...others].map((file) => basename(file)).join(", ");
    throw new ConfigError(`task ${set}: expected one file, found ${found}; name one: --data ${set}=FILE`);
  }
  const absolute = resolve(cwd, path);
  const text = await readFile(absolute, "utf8").catch((cause: unknown) => {
    throw new DataError(`${absolute}: cannot be read: ${cause instanceof Error ? cause.message : cause}`, { cause });
  });
  return { path: absolute, text };
}

async function filesOfSet(set: string, places: readonly string[], cwd: string): Promise<string[]> {
  const isOfSet = (name: string): boolean => name.startsWith(set) && /\.jsonl?$/.test(name);
  const found: string[] = [];
  for (const place of places.filter((word) => !word.includes("="))) {
    const path = resolve(cwd, place);
    const info = await stat(path).catch((cause: unknown) => {
      throw new DataError(`${path}: there is no such file or folder`, { cause });
    });
    if (info.isDirectory())
      found.push(
        ...(await readdir(path))
          .filter(isOfSet)
          .sort()
          .map((name) => join(path, name)),
      );
    else if (isOfSet(basename(path))) found.push(path);
  }
  return found;
}

/** The name of a task in names of files: "niah:grid" is "niah-grid". */
export function fileNameOf(task: string): string {
  return task.replaceAll(":", "-");
}
