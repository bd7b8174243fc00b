// The large cases, and more random programs than conformance.test.ts runs.

import { conformanceSuite } from "@sisa/conformance";
import { test } from "vitest";
import { cuda } from "./backend.ts";
import { missingDevice } from "./testing.ts";

const missing = await missingDevice();

if (missing === undefined) conformanceSuite("cuda, slow cases", () => cuda(), { part: "slow" });
else test("conformance of cuda: slow cases", ({ skip }) => skip(`not run: no device (${missing})`));
