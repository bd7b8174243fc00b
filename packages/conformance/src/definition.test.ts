// Whether core's operations are what their descriptions say: cases that run in a few seconds.
import { definitionSuite } from "./suite.ts";

definitionSuite({ part: "fast" });
