// The large cases, and more random programs than conformance.test.ts runs.

import { conformanceSuite } from "@sisa/conformance";
import { onnxruntime } from "./backend.ts";

conformanceSuite("onnxruntime, slow cases", () => onnxruntime(), { part: "slow" });
