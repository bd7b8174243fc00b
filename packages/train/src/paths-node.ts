// What a path means under Node: a folder on disk. Chosen by the "#paths" import of package.json.
import { rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import type { ModelToSave, SaveOptions, Storage } from "@sisa/hub";
import { directory, saveModel } from "@sisa/hub/node";

/** A folder, and links in it. */
export interface Folder {
  readonly storage: Storage;
  /** Lets a link in the folder lead to one of its folders, where links are allowed. */
  readonly pointTo?: (link: string, name: string) => Promise<void>;
}

/** The folder of a path; it need not exist yet. */
export function folderAt(path: string): Folder {
  return {
    storage: directory(path),
    async pointTo(link, name) {
      const temporary = join(path, `.${link}.${process.pid}`);
      try {
        await rm(temporary, { force: true });
        await symlink(name, temporary, "dir");
        await rename(temporary, join(path, link));
      } catch {
        // Links are a convenience, which some systems and disks do not have; readers look at the names themselves.
        await rm(temporary, { force: true });
      }
    },
  };
}

/** Writes a model folder, whole or not at all. */
export async function saveModelAt(path: string, model: ModelToSave, options?: SaveOptions): Promise<void> {
  await saveModel(path, model, options);
}
