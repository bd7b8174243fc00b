// The built page in Chromium, as a person uses it.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { chooseFiles, dropFiles, launchChromium, openPage, screenshot, serve } from "@sisa/browser-testing/node";
import { initialize, languageModel, preset } from "@sisa/core";
import { byteTokenizer, memoryStorage, readBytes, saveModel } from "@sisa/hub";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

type Page = Awaited<ReturnType<typeof openPage>>["page"];

const app = path.join(import.meta.dirname, "..");
const phone = { width: 390, height: 844, deviceScaleFactor: 2 };

let folder: string;
let server: Awaited<ReturnType<typeof serve>>;
let chromium: Awaited<ReturnType<typeof launchChromium>>;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "sisa-playground-"));
  await build({ root: app, logLevel: "silent", build: { outDir: path.join(folder, "page") } });
  server = await serve(path.join(folder, "page"));
  chromium = await launchChromium();
});

afterAll(async () => {
  await chromium?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** The first element's text. */
async function textOf(page: Page, selector: string): Promise<string> {
  return await page.$eval(selector, (element) => element.textContent ?? "");
}

/** The numbers of a model's row: step, training and held-out loss. */
async function numbersOf(page: Page, model: "sisa" | "transformer"): Promise<{ step: number; loss: number }> {
  const [step, loss] = await page.$$eval(`[data-model="${model}"] td`, (cells) =>
    cells.map((cell) => Number(cell.textContent)),
  );
  return { step: step ?? Number.NaN, loss: loss ?? Number.NaN };
}

/** Waits until something is true on the page, by default for less than a test may take. */
async function until(page: Page, condition: () => boolean, timeout = 110_000): Promise<void> {
  const deadlineMs = performance.now() + timeout;
  while (!(await page.evaluate(condition))) {
    if (performance.now() > deadlineMs) throw new Error(`not so after ${timeout} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits for the first step of both models. */
async function bothTrain(page: Page, timeout?: number): Promise<void> {
  const trained = () => {
    const steps = [...document.querySelectorAll("[data-model] td:nth-child(2)")];
    return steps.length === 2 && steps.every(({ textContent }) => Number(textContent) > 0);
  };
  await until(page, trained, timeout);
}

/** A driver that is a program compiles the kernels of two models for minutes. */
const compilingMs = 900_000;

async function button(page: Page, text: string): Promise<void> {
  await page.locator(`::-p-xpath(//button[normalize-space()="${text}"][not(@disabled)])`).click();
}

/** Chooses files as a model. */
async function choose(page: Page, ...files: string[]): Promise<void> {
  await chooseFiles(page, "#model-files", files);
}

/** A tokenizer of that many tokens, each one character. */
function tokenizerJson(size: number): string {
  const characters = Array.from({ length: size }, (_, id) => String.fromCharCode(33 + id));
  const model = { type: "BPE", vocab: Object.fromEntries(characters.map((name, id) => [name, id])), merges: [] };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: true };
  return JSON.stringify({ version: "1.0", added_tokens: [], pre_tokenizer: byteLevel, decoder: byteLevel, model });
}

describe("training", () => {
  let opened: Awaited<ReturnType<typeof openPage>>;

  beforeAll(async () => {
    opened = await openPage(chromium, server.url);
    await opened.page.select('select[name="steps"]', "50");
    await button(opened.page, "Train both");
  });

  test("can be paused and goes on", async () => {
    const { page } = opened;
    await bothTrain(page);
    await button(page, "Pause");
    await until(page, () =>
      [...document.querySelectorAll("button")].some(({ textContent }) => textContent?.trim() === "Resume"),
    );
    const paused = [await numbersOf(page, "sisa"), await numbersOf(page, "transformer")];
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect([await numbersOf(page, "sisa"), await numbersOf(page, "transformer")]).toEqual(paused);
    await button(page, "Resume");
    await until(page, () =>
      [...document.querySelectorAll("button")].some(({ textContent }) => textContent === "Train again"),
    );
  });

  test("takes both models through their steps, and their losses fall", async () => {
    const { page, errors } = opened;
    for (const model of ["sisa", "transformer"] as const) {
      const { step, loss } = await numbersOf(page, model);
      expect(step).toBe(50);
      // From 8 bits a byte, a guess among all of them.
      expect(loss).toBeLessThan(5);
    }
    expect(
      await page.$$eval(".loss .mean", (paths) => paths.map((path) => path.getAttribute("d")?.length ?? 0)),
    ).toEqual([expect.toSatisfy((length: number) => length > 300), expect.toSatisfy((length: number) => length > 300)]);
    expect(errors).toEqual([]);
  });

  test("its heat maps answer a click and the keyboard", async () => {
    const { page } = opened;
    await page.waitForSelector(".token-map");
    expect(await page.$$eval(".term-card h3", (titles) => titles.map(({ textContent }) => textContent))).toEqual([
      expect.stringContaining("Content"),
      expect.stringContaining("Importance"),
      expect.stringContaining("Attention"),
    ]);
    const coloured = () =>
      page.$$eval(".term-card", (cards) =>
        cards.map((card) =>
          [...card.querySelectorAll<HTMLElement>(".token")].map((token) => token.style.getPropertyValue("--strength")),
        ),
      );
    const before = await coloured();
    await page.click('.importance [data-token="20"]');
    expect(await textOf(page, ".sentence")).toMatch(/token 20\).*λ = 0\.\d+.*forgotten after [\d.]+ tokens/);
    const clicked = await coloured();
    expect(clicked).not.toEqual(before);
    for (const strengths of clicked) {
      // Some token has the full colour; none after the chosen one has any.
      expect(Math.max(...strengths.map(Number))).toBe(1);
      expect(Math.max(...strengths.slice(21).map(Number))).toBe(0);
    }
    await page.keyboard.press("ArrowLeft");
    expect(await textOf(page, ".sentence")).toContain("token 19)");
    expect(await page.evaluate(() => (document.activeElement as HTMLElement).dataset.token)).toBe("19");
    await page.keyboard.press("End");
    expect(await page.evaluate(() => document.activeElement?.getAttribute("aria-selected"))).toBe("true");

    await page.focus('[data-head="0.0"]');
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowDown");
    expect(await textOf(page, ".sentence")).toContain("Layer 1, head 1");
    expect(await coloured()).not.toEqual(clicked);
  });

  test("rows of attention add up to one", async () => {
    const { page } = opened;
    const shares = await page.$$eval(".attention .token", (tokens) =>
      tokens.flatMap((token) => Number(/, ([\d.e-]+)$/.exec(token.getAttribute("aria-label") ?? "")?.[1] ?? 0)),
    );
    // Labels have two digits.
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 1);
  });

  test("a Transformer shows that it has no importance term", async () => {
    const { page } = opened;
    await page.locator("::-p-xpath(//fieldset//label[normalize-space()='Transformer'])").click();
    await page.waitForSelector(".importance .absent");
    expect(await textOf(page, ".sentence")).toContain("plain attention");
    await page.locator("::-p-xpath(//fieldset//label[normalize-space()='SISA'])").click();
    await page.waitForSelector(".importance .token-map");
  });

  test("both models continue a beginning", async () => {
    const { page, errors } = opened;
    await button(page, "Continue");
    await until(page, () =>
      [...document.querySelectorAll(".sample")].every(({ textContent }) => (textContent?.length ?? 0) > 100),
    );
    expect(await page.$$(".sample")).toHaveLength(2);
    expect(errors).toEqual([]);
  });

  test("nothing is wider than a phone, in light and dark", async () => {
    const { page } = opened;
    await screenshot(page, "playground");
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    await screenshot(page, "playground-dark");
    await page.setViewport(phone);
    await screenshot(page, "playground-phone-dark");
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(phone.width);
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
    await screenshot(page, "playground-phone");
    await page.close();
  });
});

describe("models from disk", () => {
  test("a model folder is opened and looked at; what is no model is refused in words", async () => {
    const config = preset("sisa", "1m", { width: 32, heads: 2, layers: 1, vocabularySize: 257, maximumLength: 256 });
    const model = languageModel(config);
    const storage = memoryStorage();
    await saveModel(storage, { config, parameters: initialize(model, 1), tokenizer: byteTokenizer() });
    const saved = path.join(folder, "saved-model");
    await mkdir(saved);
    for (const name of await storage.list()) await writeFile(path.join(saved, name), await readBytes(storage, name));

    const { page, errors } = await openPage(chromium, server.url);
    await choose(page, path.join(app, "package.json"));
    await page.waitForSelector(".error");
    expect(await textOf(page, ".error p")).toMatch(/Expected a model folder .* got package\.json/);
    await button(page, "Dismiss");

    await choose(page, ...(await storage.list()).map((name) => path.join(saved, name)));
    await page.waitForSelector(".token-map");
    expect(await textOf(page, ".open p")).toContain("1 layers (sisa), 2 heads");
    expect(await textOf(page, ".sentence")).toContain("Layer 0, head 0");
    expect(errors).toEqual([]);
    await page.close();

    const again = await openPage(chromium, server.url);
    await chooseFiles(again.page, "#model-folder", [saved]);
    await again.page.waitForSelector(".token-map");
    expect(await textOf(again.page, ".open p")).toContain("1 layers (sisa), 2 heads");
    await again.page.close();

    const dropped = await openPage(chromium, server.url);
    await dropFiles(dropped.page, [saved]);
    await dropped.page.waitForSelector(".token-map");
    expect(await textOf(dropped.page, ".open p")).toContain("1 layers (sisa), 2 heads");
    expect(dropped.errors).toEqual([]);
    await dropped.page.close();
  });

  test("a dropped text becomes the text to train on", async () => {
    const text = path.join(folder, "mine.txt");
    await writeFile(text, "Ein eigener Text. ".repeat(20));
    const { page, errors } = await openPage(chromium, server.url);
    await dropFiles(page, [text]);
    await until(page, () => document.querySelector("textarea")?.value.startsWith("Ein eigener Text.") === true);
    expect(errors).toEqual([]);
    await page.close();
  });

  test("an official checkpoint is opened together with its tokenizer", async () => {
    const checkpoint = path.join(app, "../../packages/hub/test/fixtures/official-checkpoint.pt");
    const tokenizer = path.join(folder, "tokenizer.json");
    await writeFile(tokenizer, tokenizerJson(89));
    const { page } = await openPage(chromium, server.url);
    await choose(page, checkpoint);
    await page.waitForSelector(".error");
    expect(await textOf(page, ".error p")).toMatch(
      /do not belong together.*tokenizer\.json together with the checkpoint/,
    );
    await choose(page, checkpoint, tokenizer);
    await page.waitForSelector(".token-map");
    expect(await textOf(page, ".open p")).toContain("2 layers (sisa), 3 heads");
    expect(await textOf(page, ".open p")).toContain("form sdpa");
    await page.close();
  });
});

test("without WebGPU the page says so and trains on the CPU", async () => {
  await using browser = await launchChromium({ webgpu: false });
  const { page, errors } = await openPage(browser, server.url);
  await until(page, () => document.querySelector(".backend strong")?.textContent?.startsWith("CPU") === true);
  expect(await textOf(page, ".backend")).toMatch(/CPU \(WebAssembly, 1 thread\).*no WebGPU/);
  await button(page, "Train both");
  await bothTrain(page);
  expect(errors).toEqual([]);
});

test(
  "where the only GPU is a program, the page says so; asked for, it trains on it",
  async () => {
    const { page } = await openPage(chromium, server.url);
    await until(page, () => document.querySelector(".backend strong")?.textContent?.startsWith("CPU") === true);
    expect(await textOf(page, ".backend")).toMatch(/adapter here is itself a program on the CPU \(.*swiftshader\)/);
    await page.goto(`${server.url}?backend=webgpu`);
    await until(page, () => document.querySelector(".backend strong")?.textContent?.startsWith("WebGPU") === true);
    await page.select('select[name="context"]', "64");
    await button(page, "Train both");
    await bothTrain(page, compilingMs);
    // A first guess among 257 tokens.
    expect((await numbersOf(page, "sisa")).loss).toBeCloseTo(Math.log2(257), 1);
    expect(await textOf(page, ".backend")).toMatch(/^WebGPU \(.*swiftshader\)$/);
    await page.close();
  },
  compilingMs + 60_000,
);
