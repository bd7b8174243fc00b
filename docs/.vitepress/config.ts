// The documentation site: guides and concepts from this folder, the reference from the comments in the code.
import { existsSync, readFileSync } from "node:fs";
import { defineConfig } from "vitepress";

const page = (text: string, link: string) => ({ text, link });

/** Written by typedoc beside the pages, before the site is built. */
const referenceFile = new URL("../api/typedoc-sidebar.json", import.meta.url);
const reference = existsSync(referenceFile) ? JSON.parse(readFileSync(referenceFile, "utf8")) : [];

export default defineConfig({
  title: "SISA",
  description: "Train, run, export and serve SISA language models in TypeScript.",
  srcExclude: ["onnx-example/**", "README.md"],
  outDir: "./dist",
  cacheDir: "./node_modules/.cache/vitepress",
  // A link that leads nowhere ends the build with an error; these are written for the repository itself.
  ignoreDeadLinks: [/^(\.\/)?(\.\.\/)+(apps|packages|fixtures|experiments|bench)\//, /^\.\/onnx-example/],
  transformPageData({ relativePath, frontmatter }) {
    // A wide table and no headings: the place of the outline is the table's.
    if (relativePath === "features.md") frontmatter.aside = false;
  },
  // The index of the search is one chunk; it is only loaded by who searches.
  vite: { build: { chunkSizeWarningLimit: 10_000 } },
  themeConfig: {
    search: {
      provider: "local",
      options: {
        miniSearch: {
          searchOptions: {
            // Guides and concepts come first: names in the reference are short, which search takes for fitting well.
            boostDocument: (path: string) => (path.startsWith("/api/") ? 0.1 : 1),
          },
        },
      },
    },
    outline: [2, 3],
    sidebar: [
      { text: "Getting started", link: "/" },
      {
        text: "Guides",
        items: [
          page("Train on your text", "/guides/train"),
          page("Resume a run", "/guides/resume"),
          page("Evaluate a model", "/guides/evaluate"),
          page("Export to ONNX", "/guides/export"),
          page("Serve a model", "/guides/serve"),
          page("Run in a browser", "/guides/browser"),
          page("Use CUDA", "/guides/cuda"),
          page("Add an operation", "/guides/add-an-operation"),
          page("Add a backend", "/guides/add-a-backend"),
          page("Add a model", "/guides/add-a-model"),
          page("The command sisa", "/guides/command"),
        ],
      },
      {
        text: "Concepts",
        items: [
          page("The graph", "/concepts/graph"),
          page("Backends", "/concepts/backends"),
          page("The SISA score, and how exact it is", "/exactness"),
          page("Caches", "/concepts/caches"),
          page("Precision", "/concepts/precision"),
        ],
      },
      {
        text: "In detail",
        items: [
          page("Measuring and experiments", "/measuring"),
          page("Exported models", "/onnx"),
          page("Serving", "/serve"),
          page("The playground", "/playground"),
          page("Operations by backend", "/features"),
          page("Limits", "/limits"),
        ],
      },
      { text: "Reference", collapsed: true, items: reference },
    ],
  },
});
