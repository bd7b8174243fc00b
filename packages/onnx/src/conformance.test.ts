// Every operation's cases on ONNX Runtime: forward, gradients and random programs, against the reference.

import { conformanceSuite } from "@sisa/conformance";
import { onnxruntime } from "./backend.ts";

conformanceSuite("onnxruntime", () => onnxruntime(), { part: "fast", unsupported: ["*float16*", "*float64*"] });
