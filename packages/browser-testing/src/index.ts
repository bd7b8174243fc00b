// Browsers and GPUs for tests on machines that have neither: Chromium and a software Vulkan driver, from npm alone.

export { bundle, modulePage } from "./bundle.ts";
export { type LaunchOptions, launchChromium, type OpenPage, openPage, screenshot } from "./chromium.ts";
export { type LoopbackServer, type ServeOptions, serve } from "./serve.ts";
export { swiftshaderEnvironment, useSwiftshader } from "./swiftshader.ts";
