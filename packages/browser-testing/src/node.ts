// Browsers and GPUs for tests on machines that have neither: Chromium and a software Vulkan driver, from npm alone.

export {
  chooseFiles,
  dropFiles,
  type LaunchOptions,
  launchChromium,
  type OpenPage,
  openPage,
  screenshot,
} from "./chromium.ts";
export { modulePage } from "./module-page.ts";
export { type LoopbackServer, type ServedFiles, type ServeOptions, serve } from "./serve.ts";
export { testGpu, testGpuEnvironment, useSwiftshader, useTestGpu } from "./swiftshader.ts";
