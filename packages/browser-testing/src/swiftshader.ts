// SwiftShader, a Vulkan driver that computes on the CPU, for Dawn in Node (package webgpu) and for ONNX Runtime's WebGPU.

import { constants } from "node:os";
import path from "node:path";
import { unpackedChromium } from "./unpacked.ts";

/** dlopen's flag that keeps a library loaded; Node does not name it. */
const RTLD_NODELETE = 0x1000;

/**
 * Makes SwiftShader the only Vulkan driver of this process. Dawn asks the system for libvulkan.so.1, and is given the one
 * that is already loaded. Call it before the first adapter is requested.
 */
export async function useSwiftshader(): Promise<void> {
  const { vulkan, vulkanDriver } = await unpackedChromium();
  process.env.VK_ICD_FILENAMES = vulkanDriver;
  try {
    process.dlopen({ exports: {} }, vulkan, constants.dlopen.RTLD_NOW | RTLD_NODELETE);
  } catch (error) {
    // It is loaded by now, and no add-on of Node, which is what Node complains about.
    if (!(error instanceof Error && error.message.includes("did not self-register"))) throw error;
  }
}

/** The same for a process that is about to be started: variables to add to its environment. */
export async function swiftshaderEnvironment(): Promise<{ readonly [name: string]: string }> {
  const { vulkan, vulkanDriver } = await unpackedChromium();
  const before = process.env.LD_LIBRARY_PATH;
  const folder = path.dirname(vulkan);
  return {
    VK_ICD_FILENAMES: vulkanDriver,
    LD_LIBRARY_PATH: before === undefined ? folder : `${folder}:${before}`,
  };
}
