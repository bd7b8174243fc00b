// For tests of this package alone.

import { testGpu } from "@sisa/browser-testing/node";

/** The GPU of tests for `webgpu({ gpu })`, whose device is passed through a function before it is used. */
export async function changedGpu(change: (device: GPUDevice) => void) {
  // Held by what is returned, and so as long as the device: Dawn ends with the last reference to it.
  const gpu = (await testGpu()) as GPU;
  return {
    gpu,
    async requestAdapter(options?: GPURequestAdapterOptions) {
      const adapter = await gpu.requestAdapter(options);
      const request = adapter?.requestDevice.bind(adapter);
      if (!adapter || !request) return adapter;
      adapter.requestDevice = async (descriptor) => {
        const device = await request(descriptor);
        change(device);
        return device;
      };
      return adapter;
    },
  };
}
