import { library } from "../../tools/tsup.ts";

export default library({ sisa: "src/sisa.ts", demo: "src/demo.ts", config: "src/config.ts" });
