import { library } from "../../tools/tsup.ts";

export default library({
  index: "src/index.ts",
  node: "src/node.ts",
  // The two sides of the "#paths" import of package.json.
  "paths-browser": "src/paths-browser.ts",
  "paths-node": "src/paths-node.ts",
});
