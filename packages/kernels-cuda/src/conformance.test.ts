// Every operation's cases on an NVIDIA GPU. Where there is none, as in CI, each suite is reported as not run, by name.

import { conformanceSuite } from "@sisa/conformance";
import { test } from "vitest";
import { cuda } from "./backend.ts";
import { missingDevice } from "./testing.ts";

const missing = await missingDevice();

if (missing === undefined) {
  conformanceSuite("cuda", () => cuda(), { part: "fast" });
} else {
  for (const name of ["forward", "gradients", "random programs", "contract of backends"]) {
    test(`conformance of cuda: ${name}`, ({ skip }) => skip(`not run: no device (${missing})`));
  }
}
