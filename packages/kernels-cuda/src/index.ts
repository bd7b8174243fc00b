// Everything @sisa/kernels-cuda offers.

export { type CudaBackend, type CudaOptions, cuda, cudaDevices } from "./backend.ts";
export type { DeviceInfo } from "./device/driver.ts";
