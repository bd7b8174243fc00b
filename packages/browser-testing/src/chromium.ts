// Headless Chromium with WebGPU on SwiftShader, and pages whose errors are collected.

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, type ElementHandle, launch, type Page, type Viewport } from "puppeteer-core";
import { withoutClearing } from "./swiftshader.ts";
import { unpackedChromium } from "./unpacked.ts";

export interface LaunchOptions {
  /** Whether pages get a WebGPU adapter. Default true. */
  readonly webgpu?: boolean;
}

/** Time for Chromium to start and to stop, and for one command to be answered, in milliseconds. */
const startTimeoutMs = 60_000;
const stopTimeoutMs = 10_000;
const commandTimeoutMs = 900_000;

/** How long a page is waited for: less than a test may take, and enough for a machine with other work. */
const waitTimeoutMs = 110_000;

/** Nothing is fetched but what a page asks for; a sandbox is not to be had as root. */
const closedNetwork = [
  "--no-sandbox",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
  // Names other than those of this machine do not resolve.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
  // Small containers have too small a /dev/shm.
  "--disable-dev-shm-usage",
  "--font-render-hinting=none",
];

/**
 * Starts Chromium with a profile of its own, which goes when it is closed: `await using chromium = ...`.
 * @throws Error where it does not start within a minute
 */
export async function launchChromium({ webgpu = true }: LaunchOptions = {}): Promise<Browser & AsyncDisposable> {
  const { executable, libraries, fontconfig, vulkanDriver } = await unpackedChromium();
  const home = await mkdtemp(path.join(tmpdir(), "sisa-chromium-"));
  const browser = await launch({
    executablePath: executable,
    headless: "shell",
    pipe: true,
    timeout: startTimeoutMs,
    protocolTimeout: commandTimeoutMs,
    userDataDir: path.join(home, "profile"),
    args: [
      ...closedNetwork,
      ...(webgpu
        ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", `--enable-dawn-features=${withoutClearing}`]
        : ["--disable-features=WebGPUService"]),
    ],
    // The machine's own settings stay outside.
    env: {
      PATH: process.env.PATH,
      HOME: home,
      TMPDIR: home,
      LD_LIBRARY_PATH: libraries,
      FONTCONFIG_PATH: fontconfig,
      VK_ICD_FILENAMES: vulkanDriver,
    },
  });
  const stop = () => closeOrKill(browser, home);
  return Object.assign(browser, { [Symbol.asyncDispose]: stop });
}

async function closeOrKill(browser: Browser, home: string): Promise<void> {
  const child = browser.process();
  const ended = new Promise<void>((resolve) => {
    if (child === null || child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once("exit", () => resolve());
  });
  const timer = setTimeout(() => child?.kill("SIGKILL"), stopTimeoutMs);
  await Promise.race([browser.close(), ended]);
  await ended;
  clearTimeout(timer);
  await rm(home, { recursive: true, force: true, maxRetries: 5 });
}

/** A page and what went wrong on it, in order: exceptions, errors on the console, files that were not there. */
export interface OpenPage {
  readonly page: Page;
  readonly errors: readonly string[];
}

/** Opens an address in a new tab and waits for its load event. Default size: 1280 x 800. */
export async function openPage(browser: Browser, url: string, viewport?: Viewport): Promise<OpenPage> {
  const page = await browser.newPage();
  await page.setViewport(viewport ?? { width: 1280, height: 800 });
  page.setDefaultTimeout(waitTimeoutMs);
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error instanceof Error ? (error.stack ?? error.message) : String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("requestfailed", (request) => errors.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on("response", (response) => {
    if (response.status() >= 400) errors.push(`${response.url()}: status ${response.status()}`);
  });
  await page.goto(url, { timeout: startTimeoutMs });
  return { page, errors };
}

/** Chooses files in a file input, as a person would in the dialog that it opens. */
export async function chooseFiles(page: Page, selector: string, files: readonly string[]): Promise<void> {
  const input = await page.waitForSelector(selector);
  await (input as ElementHandle<never>).uploadFile(...files);
}

/** Drops files and folders on the middle of a page, as a person would from a file manager. */
export async function dropFiles(page: Page, files: readonly string[]): Promise<void> {
  const { width, height } = page.viewport() ?? { width: 0, height: 0 };
  const copy = 1;
  const data = { items: [], files: [...files], dragOperationsMask: copy };
  const session = await page.createCDPSession();
  for (const type of ["dragEnter", "dragOver", "drop"] as const) {
    await session.send("Input.dispatchDragEvent", { type, x: width / 2, y: height / 2, data });
  }
  await session.detach();
}

/**
 * Takes a picture of the whole page, to be looked at.
 * @param name file name without its ending
 * @returns the path: node_modules/.cache/screenshots/NAME.png of this package
 */
export async function screenshot(page: Page, name: string): Promise<string> {
  const folder = fileURLToPath(new URL("../node_modules/.cache/screenshots", import.meta.url));
  await mkdir(folder, { recursive: true });
  const file = path.join(folder, `${name}.png`);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
  return file;
}
