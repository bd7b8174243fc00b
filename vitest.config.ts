// The one vitest run of the workspace: every package's tests, on sources (condition "@sisa/source"), with no build.
import { defineConfig } from "vitest/config";

const conditions = ["@sisa/source"];

export default defineConfig({
  // Vite's own conditions ("module", "node", "import", "default") are kept; ours comes first.
  resolve: { conditions: [...conditions, "module", "node", "development|production"] },
  ssr: { resolve: { conditions: [...conditions, "module", "node", "development|production"] } },
  // Node 20 does not know `using`.
  oxc: { target: "es2022" },
  test: {
    include: ["packages/*/src/**/*.test.ts", "apps/*/src/**/*.test.ts", "tools/**/*.test.ts"],
    setupFiles: ["tools/vitest/fail-on-console.ts"],
    environment: "node",
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
