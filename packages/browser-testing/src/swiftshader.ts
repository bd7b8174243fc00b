// The GPU of tests in Node, for Dawn (package webgpu) and for ONNX Runtime's WebGPU: SwiftShader, a Vulkan driver that
// computes on the CPU, or the one whose ICD file the variable SISA_TEST_VULKAN_DRIVER names.

import { existsSync } from "node:fs";
import { constants } from "node:os";
import path from "node:path";
import { unpackedChromium } from "./unpacked.ts";

/** dlopen's flag that keeps a library loaded; Node does not name it. */
const RTLD_NODELETE = 0x1000;

/** Makes SwiftShader the only Vulkan driver of this process. Call it before the first adapter is requested. */
export async function useSwiftshader(): Promise<void> {
  const { vulkan, vulkanDriver } = await unpackedChromium();
  load(vulkan, vulkanDriver);
}

/**
 * The same for the driver that tests run on.
 * @throws Error where SISA_TEST_VULKAN_DRIVER names no file
 */
export async function useTestGpu(): Promise<void> {
  const { vulkan, driver } = await testFiles();
  load(vulkan, driver);
}

/**
 * Dawn on the driver that tests run on, with what it offers only to those who ask for it: halves on NVIDIA's GPUs, and
 * matrix units; and without clearing. Give it to `webgpu({ gpu })`.
 */
export async function testGpu(): Promise<unknown> {
  await useTestGpu();
  const { create } = await import("webgpu");
  return create([`enable-dawn-features=vulkan_enable_f16_on_nvidia,allow_unsafe_apis,${withoutClearing}`]);
}

/**
 * What makes Dawn leave workgroup memory as it is when a kernel starts. SwiftShader compiles the clearing as a store for
 * every element: nine tenths of the time that attention takes to compile. Kernels that read what they never wrote are found
 * out besides.
 */
export const withoutClearing = "disable_workgroup_init";

/** Dawn asks the system for libvulkan.so.1, and is given the one that is already loaded. */
function load(vulkan: string, driver: string): void {
  process.env.VK_ICD_FILENAMES = driver;
  try {
    process.dlopen({ exports: {} }, vulkan, constants.dlopen.RTLD_NOW | RTLD_NODELETE);
  } catch (error) {
    // It is loaded by now, and no add-on of Node, which is what Node complains about.
    if (!(error instanceof Error && error.message.includes("did not self-register"))) throw error;
  }
}

/** The driver of tests for a process that is about to be started: variables to add to its environment. */
export async function testGpuEnvironment(): Promise<{ readonly [name: string]: string }> {
  const { vulkan, driver } = await testFiles();
  const before = process.env.LD_LIBRARY_PATH;
  const folder = path.dirname(vulkan);
  return {
    VK_ICD_FILENAMES: driver,
    LD_LIBRARY_PATH: before === undefined ? folder : `${folder}:${before}`,
  };
}

async function testFiles(): Promise<{ readonly vulkan: string; readonly driver: string }> {
  const { vulkan, vulkanDriver } = await unpackedChromium();
  const driver = process.env.SISA_TEST_VULKAN_DRIVER ?? vulkanDriver;
  if (!existsSync(driver)) {
    throw new Error(
      `SISA_TEST_VULKAN_DRIVER: expected the ICD file of a Vulkan driver, such as /usr/share/vulkan/icd.d/lvp_icd.json, got "${driver}"`,
    );
  }
  return { vulkan, driver };
}
