// `npm run demo`: the demo command by itself.
import { nodeIo } from "./io.ts";
import { main } from "./main.ts";

process.exitCode = await main(["demo", ...process.argv.slice(2)], nodeIo());
