// What can go wrong on a GPU only. Both are DeviceErrors, so that callers need not know of them.

import { DeviceError } from "@sisa/core";

/** The device had no memory left for a buffer. Close what is not needed, or use a smaller batch. */
export class OutOfMemoryError extends DeviceError {
  static override readonly code: string = "OUT_OF_MEMORY";
}

/** The device is gone: reset by its driver, unplugged, or taken by the system. `webgpu()` makes a new one. */
export class DeviceLostError extends DeviceError {
  static override readonly code: string = "DEVICE_LOST";
}
