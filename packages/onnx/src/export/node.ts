// Exported folders on disk.

import { mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ConfigError } from "@sisa/core";
import {
  type ExportedFiles,
  type ExportOptions,
  type ExportTarget,
  exportOnnx as exportTo,
  type ModelToExport,
} from "./export-onnx.ts";

/** Which weights are written, what they are measured on, and into which folder. */
export interface NodeExportOptions extends Omit<ExportOptions, "to"> {
  /** Folder that is written to, made where there is none; or anything with `write`. Default: the files are returned. */
  readonly to?: string | URL | ExportTarget | undefined;
}

/**
 * `exportOnnx` of @sisa/onnx, into a folder. Each file is written beside its place as `<name>.partial` and renamed when
 * it is whole, so that files of the same names are replaced one by one.
 *
 * @returns bytes by path, where there is no `to`
 * @throws ConfigError where `to` is a file, and for a dtype or form that is none; all else as @sisa/onnx does; errors
 *   of the file system as they come
 */
export async function exportOnnx(
  source: ModelToExport,
  options: NodeExportOptions & { readonly to: string | URL | ExportTarget },
): Promise<undefined>;
export async function exportOnnx(
  source: ModelToExport,
  options?: NodeExportOptions & { readonly to?: undefined },
): Promise<ExportedFiles>;
export async function exportOnnx(
  source: ModelToExport,
  { to, ...options }: NodeExportOptions = {},
): Promise<ExportedFiles | undefined> {
  if (to === undefined) return await exportTo(source, options);
  const target = typeof to === "string" || to instanceof URL ? await folderAt(to) : to;
  await exportTo(source, { ...options, to: target });
}

async function folderAt(place: string | URL): Promise<ExportTarget> {
  const root = resolve(place instanceof URL ? fileURLToPath(place) : place);
  const found = await stat(root).catch(() => undefined);
  if (found && !found.isDirectory())
    throw new ConfigError(`exportOnnx: expected a folder, got ${root}, which is a file`);
  return {
    async write(name, bytes) {
      const path = join(root, name);
      const partial = `${path}.partial`;
      await mkdir(dirname(path), { recursive: true });
      try {
        await writeFile(partial, bytes);
        await rename(partial, path);
      } finally {
        await rm(partial, { force: true });
      }
    },
  };
}
