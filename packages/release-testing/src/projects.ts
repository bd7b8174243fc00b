// Fresh projects outside the workspace that install @sisa packages from the local registry.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { run } from "./command.ts";
import { pnpm } from "./packed.ts";
import type { LocalRegistry } from "./registry.ts";

export interface ProjectFiles {
  readonly [name: string]: string;
}

/**
 * Writes a project and installs what it depends on.
 *
 * @param dependencies names and ranges; @sisa packages come from the local registry
 * @returns its folder
 */
export async function freshProject(
  folder: string,
  registry: LocalRegistry,
  dependencies: Readonly<Record<string, string>>,
  files: ProjectFiles,
): Promise<string> {
  await mkdir(folder, { recursive: true });
  const manifest = { name: "fresh-project", private: true, type: "module", dependencies };
  const settings =
    'packages: ["."]\nautoInstallPeers: false\nignoredBuiltDependencies: [esbuild, koffi, onnxruntime-node, protobufjs, webgpu]\n';
  const all = {
    "package.json": JSON.stringify(manifest),
    ".npmrc": registry.npmrc,
    "pnpm-workspace.yaml": settings,
    ...files,
  };
  for (const [name, content] of Object.entries(all)) await writeFile(path.join(folder, name), content);
  await run(process.execPath, [pnpm, "install", "--no-frozen-lockfile", "--prefer-offline"], { cwd: folder });
  return folder;
}

/** Ten steps of training, a sample, and a model folder: what a project of somebody else begins with. */
export const trainingProgram = `
import { languageModel, preset } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { onnxruntime } from "@sisa/onnx";
import { textDocuments, train } from "@sisa/train";
import "@sisa/train/node";

const tokenizer = byteTokenizer();
const sizes = { layers: 1, width: 16, heads: 2, stateWidth: 4, maximumLength: 64 };
const model = languageModel(preset("sisa", "1m", { vocabularySize: tokenizer.size, ...sizes }));
const data = textDocuments(["one two three four five six seven eight nine ten ".repeat(40)], tokenizer);
const backend = await onnxruntime();
const run = await train({ model, backend, data, steps: 10, sequenceLength: 32, microBatchSize: 2 });
if (run.step !== 10 || !(run.heldOutLoss < Math.log(257))) throw new Error("it did not learn: " + run.heldOutLoss);
console.log("sampled", (await run.sample("one ", { maxTokens: 5 })).length > 0);
await run.save("my-model");
await backend.close();
`;
