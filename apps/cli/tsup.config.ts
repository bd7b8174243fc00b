import { library } from "../../tools/tsup.ts";

export default library({ sisa: "src/sisa.ts", config: "src/config.ts" });
