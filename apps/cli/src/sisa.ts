#!/usr/bin/env node
// The `sisa` program on Node.
import { nodeIo } from "./io.ts";
import { main } from "./main.ts";

process.exitCode = await main(process.argv.slice(2), nodeIo());
