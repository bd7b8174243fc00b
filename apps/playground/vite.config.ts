// The page as static files that can lie in any folder of any host.
import { defaultClientConditions, defineConfig } from "vite";

/** Pages that are isolated have threads; without these headers ONNX Runtime uses one. */
const isolation = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export default defineConfig({
  base: "./",
  resolve: { conditions: ["@sisa/source", ...defaultClientConditions] },
  build: { target: "es2022", chunkSizeWarningLimit: 1000 },
  // `import()` in workers makes files of their own, which only modules can have.
  worker: { format: "es" },
  // It finds its WebAssembly beside itself, which is lost where Vite bundles it ahead of time.
  optimizeDeps: { exclude: ["onnxruntime-web"] },
  server: { headers: isolation },
  preview: { headers: isolation },
});
