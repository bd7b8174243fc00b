// What tests need to know of the machine they run on.

import { BackendUnavailableError } from "@sisa/core";
import { cuda } from "./backend.ts";

/** Why tests on a device cannot run here; undefined where they can. */
export async function missingDevice(): Promise<string | undefined> {
  try {
    await using backend = await cuda();
    return backend.limits.maximumTensorBytes > 0 ? undefined : "a device without memory";
  } catch (error) {
    if (BackendUnavailableError.isInstance(error)) return error.message;
    throw error;
  }
}
