// `npm run demo`: trains a small SISA and a Transformer of equal size on real text and compares them.
import { nodeIo } from "./io.ts";
import { runDemo } from "./run-demo.ts";

process.exitCode = await runDemo(process.argv.slice(2), nodeIo());
