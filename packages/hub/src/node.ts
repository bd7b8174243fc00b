// What @sisa/hub offers on Node: files on disk. Everything else is in ./index.ts.

export { directory } from "./storage/directory-storage.ts";
