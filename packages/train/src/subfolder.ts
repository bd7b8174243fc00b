// A folder inside a storage as a storage of its own.
import type { Storage } from "@sisa/hub";

/** The files below `folder`. */
export function subfolder(storage: Storage, folder: string): Storage {
  const inside = (name: string): string => `${folder}/${name}`;
  return {
    location: `${storage.location}/${folder}`,
    size: (name) => storage.size(inside(name)),
    open: (name) => storage.open(inside(name)),
    write: (name, content) => storage.write(inside(name), content),
    async list() {
      const prefix = inside("");
      const names = await storage.list();
      return names.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
    },
    rename: (from, to) => storage.rename(inside(from), inside(to)),
    remove: (name) => storage.remove(inside(name)),
  };
}
