// The error of every Storage. Whether a file is damaged is for its reader to say; this only says that bytes could not
// be read or written.

import { SisaError } from "@sisa/core";

/**
 * Why an access failed: no such file, no room left, no permission, an operation this storage does not have, or
 * anything else the system reports.
 */
export type StorageErrorReason = "missing" | "full" | "denied" | "unsupported" | "failed";

/** A file could not be read or written. A write that fails leaves the file's old content untouched. */
export class StorageError extends SisaError {
  static override readonly code = "STORAGE";
  /** For programs: whether to look elsewhere, to make room, or to give up. */
  readonly reason: StorageErrorReason;

  constructor(reason: StorageErrorReason, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.reason = reason;
  }
}
