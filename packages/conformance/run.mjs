// Runs src/main.ts, which Node 20 cannot read by itself: bundled by esbuild into the cache, with packages left outside.
// `node packages/conformance/run.mjs --help` lists the options.
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const folder = path.dirname(fileURLToPath(import.meta.url));
// Inside a package that has the backends' own dependencies, so that those are found.
const outfile = path.join(folder, "..", "onnx", "node_modules", ".cache", "conformance", "main.mjs");

// Beside the sources of its package, where it finds what is unpacked there.
const swiftshader = path.join(folder, "..", "browser-testing", "dist", "swiftshader.mjs");

// The backends that the command knows. By path: @sisa/onnx depends on this package, so this one cannot depend on it.
const entry = `
  import { reference } from "@sisa/core";
  import { main } from "./src/main.ts";
  const openWebgpu = async () => {
    const { create } = await import("webgpu");
    const { webgpu } = await import("../kernels-webgpu/src/index.ts");
    // With halves on NVIDIA's GPUs, and matrix units.
    return webgpu({ gpu: create(["enable-dawn-features=vulkan_enable_f16_on_nvidia,allow_unsafe_apis"]) });
  };
  process.exitCode = await main({
    reference: { open: async () => reference() },
    onnxruntime: { open: async () => (await import("../onnx/src/index.ts")).onnxruntime() },
    cuda: { open: async () => (await import("../kernels-cuda/src/index.ts")).cuda() },
    webgpu: { open: openWebgpu, ieee: false },
    "webgpu:swiftshader": {
      ieee: false,
      open: async () => {
        const { useSwiftshader } = await import(${JSON.stringify(pathToFileURL(swiftshader).href)});
        await useSwiftshader();
        return openWebgpu();
      },
    },
  }, ${JSON.stringify(path.join(folder, "recorded"))});
`;

/** Add-ons that find their own binary beside themselves, and the packages that have them. */
const addOns = { koffi: "kernels-cuda", webgpu: "kernels-webgpu" };
const addOnPlugin = {
  name: "add-ons",
  setup({ onResolve }) {
    onResolve({ filter: /^(koffi|webgpu)$/ }, ({ path: name }) => {
      const { resolve } = createRequire(path.join(folder, "..", addOns[name], "package.json"));
      return { path: pathToFileURL(resolve(name)).href, external: true };
    });
  },
};

await build({
  entryPoints: [path.join(folder, "..", "browser-testing", "src", "swiftshader.ts")],
  outfile: swiftshader,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  logLevel: "error",
});
await build({
  stdin: { contents: entry, resolveDir: folder, loader: "ts" },
  outfile,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  conditions: ["@sisa/source"],
  external: ["onnxruntime-node", "onnxruntime-web", "@bufbuild/protobuf", "onnx-buf", "vitest", "file:*"],
  plugins: [addOnPlugin],
  logLevel: "error",
});
await import(pathToFileURL(outfile).href);
