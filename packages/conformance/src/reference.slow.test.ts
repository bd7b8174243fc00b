// All cases, the large ones and more random programs among them: what `definition.test.ts` and `reference.test.ts` leave out.

import { reference } from "@sisa/core";
import { conformanceSuite, definitionSuite } from "./suite.ts";

definitionSuite({ part: "slow" });
conformanceSuite("reference, slow cases", () => reference(), { part: "slow" });
