// Entry for Node: files and folders around what "@sisa/train" does.
export * from "./node/evaluation-log.ts";
export * from "./node/metrics-file.ts";
export * from "./node/tensorboard-file.ts";
export * from "./node/text-files.ts";
