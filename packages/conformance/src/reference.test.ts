// The reference as a backend that rounds every result, against the reference in float64.

import { reference } from "@sisa/core";
import { conformanceSuite } from "./suite.ts";

conformanceSuite("reference", () => reference(), { part: "fast" });
