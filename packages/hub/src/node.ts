// What @sisa/hub offers on Node: files on disk. Everything else is in ./index.ts.

export { loadModel, type NodeLoadOptions, saveModel } from "./models/node.ts";
export { type PrepareOptions, type PrepareProgress, type PrepareResult, prepare } from "./prepare/prepare.ts";
export { directory } from "./storage/directory-storage.ts";
