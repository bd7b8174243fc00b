// The page at /, as a person uses it: in a browser, wide and narrow, light and dark.
import { launchChromium, openPage, screenshot } from "@sisa/browser-testing/node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { post, startServer } from "../../test/server.ts";

let chromium: Awaited<ReturnType<typeof launchChromium>>;
beforeAll(async () => {
  chromium = await launchChromium({ webgpu: false });
});
afterAll(async () => {
  await chromium[Symbol.asyncDispose]();
});

const server = await startServer({ modelName: "tiny <model>" }, { maximumLength: 4096 });
const desktop = { width: 1280, height: 800 };
const phone = { width: 390, height: 844 };
type Opened = Awaited<ReturnType<typeof openPage>>["page"];

const entriesOf = (page: Opened) =>
  page.$$eval("article", (articles) => articles.map(({ className, textContent }) => [className, textContent]));
const untilStatus = (page: Opened, pattern: string) =>
  page.waitForFunction(`new RegExp(${JSON.stringify(pattern)}).test(document.getElementById("status").textContent)`);
const set = (page: Opened, id: string, value: number) =>
  page.$eval(`#${id}`, (input, text) => Object.assign(input, { value: text }), String(value));

/** Types a text and sends it with Enter. */
async function say(page: Opened, text: string): Promise<void> {
  await page.type("#text", text);
  await page.keyboard.press("Enter");
}

/** Nothing is wider than the window, and the form is in it. */
async function expectFits(page: Opened): Promise<void> {
  const sizes = await page.evaluate(
    `({ scroll: document.documentElement.scrollWidth, width: innerWidth, height: innerHeight,
        bottom: document.getElementById("form").getBoundingClientRect().bottom })`,
  );
  const { scroll, width, height, bottom } = sizes as Record<"scroll" | "width" | "height" | "bottom", number>;
  expect(scroll).toBeLessThanOrEqual(width);
  expect(bottom).toBeLessThanOrEqual(height);
}

describe("a conversation", () => {
  test("is streamed, and what was said is sent along", async () => {
    const { page, errors } = await openPage(chromium, server.url, desktop);
    expect(await page.title()).toBe("tiny <model>");
    await expectFits(page);
    await set(page, "tokens", 40);
    await set(page, "temperature", 0);
    await say(page, "Hello");
    await untilStatus(page, "tokens, .* a second");
    const first = { messages: [{ role: "user", content: "Hello" }], max_tokens: 40, temperature: 0 };
    const said = (await post(server, "/v1/chat/completions", first)).json.choices[0].message.content;
    expect(await entriesOf(page)).toEqual([
      ["user", "Hello"],
      ["assistant", said],
    ]);
    await say(page, "More");
    await untilStatus(page, "tokens, .* a second");
    const messages = [...first.messages, { role: "assistant", content: said }, { role: "user", content: "More" }];
    const more = (await post(server, "/v1/chat/completions", { ...first, messages })).json.choices[0].message.content;
    expect((await entriesOf(page)).at(-1)).toEqual(["assistant", more]);
    expect(errors).toEqual([]);
    await screenshot(page, "chat-desktop");
    await page.close();
  });

  test("can be stopped, and goes on", async () => {
    const { page } = await openPage(chromium, server.url, phone);
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    // So long that there is time to stop it; the likeliest tokens of this model never are end-of-text.
    await set(page, "tokens", 4000);
    await set(page, "temperature", 0);
    // From within the page: what comes from outside may come after the end.
    const stopped = page.evaluate(`new Promise((resolve) => {
      const observer = new MutationObserver(() => {
        if ((document.querySelectorAll("article")[1]?.textContent ?? "").length <= 3) return;
        observer.disconnect();
        resolve(document.getElementById("send").disabled);
        document.getElementById("stop").click();
      });
      observer.observe(document.body, { subtree: true, childList: true, characterData: true });
    })`);
    await say(page, "Hello");
    expect(await stopped).toBe(true);
    await expectFits(page);
    await screenshot(page, "chat-phone-stopped");
    await untilStatus(page, "Stopped");
    await expect.poll(() => server.engine.counts.admitted, { timeout: 30_000 }).toBe(0);
    const [, [, partial] = []] = await entriesOf(page);
    expect(partial).not.toBe("");
    await set(page, "tokens", 5);
    await say(page, "And?");
    await untilStatus(page, "5 tokens");
    expect(await entriesOf(page)).toHaveLength(4);
    await expectFits(page);
    await screenshot(page, "chat-phone");
    await page.close();
  });

  test("shows what went wrong, and leaves the text to be sent again", async () => {
    const { page } = await openPage(chromium, server.url, phone);
    await set(page, "tokens", 9999);
    await say(page, "Hello");
    await untilStatus(page, "Failed");
    const [[kind, message] = []] = await entriesOf(page);
    expect(kind).toBe("error");
    expect(message).toContain("the context length is 4096 tokens");
    expect(await page.$eval("#text", (area) => (area as unknown as { value: string }).value)).toBe("Hello");
    await screenshot(page, "chat-phone-error");
    await set(page, "tokens", 5);
    await page.click("#send");
    await untilStatus(page, "5 tokens");
    expect((await entriesOf(page)).map(([name]) => name)).toEqual(["error", "user", "assistant"]);
    await page.close();
  });

  test("says so where the server ends in the middle of an answer", async () => {
    const ending = await startServer({}, { maximumLength: 4096 });
    const { page } = await openPage(chromium, ending.url, desktop);
    await set(page, "tokens", 4000);
    await set(page, "temperature", 0);
    await say(page, "Hello");
    await page.waitForFunction(`(document.querySelectorAll("article")[1]?.textContent ?? "") !== ""`);
    await ending.close(0);
    await untilStatus(page, "Failed");
    expect((await entriesOf(page)).at(-1)).toEqual(["error", expect.stringContaining("shut down")]);
    await page.close();
  });
});

test("a model without a template continues texts", async () => {
  const base = await startServer({ chatTemplate: undefined as never });
  const { page, errors } = await openPage(chromium, base.url, desktop);
  await set(page, "tokens", 30);
  await set(page, "temperature", 0);
  await say(page, "Once upon");
  await untilStatus(page, "tokens, .* a second");
  const request = { prompt: "Once upon", max_tokens: 30, temperature: 0, echo: true };
  const { text } = (await post(base, "/v1/completions", request)).json.choices[0];
  expect(await entriesOf(page)).toEqual([["text", text]]);
  expect(errors).toEqual([]);
  await screenshot(page, "texts-desktop");
  await page.close();
});

test("the key is asked for by the browser, and goes along from then on", async () => {
  const locked = await startServer({ apiKey: "sk-page" });
  const stranger = await openPage(chromium, "about:blank");
  await stranger.page.authenticate({ username: "anyone", password: "sk-wrong" });
  const refused = await stranger.page.goto(locked.url);
  expect(refused?.status()).toBe(401);
  await stranger.page.close();

  const context = await chromium.createBrowserContext();
  const page = await context.newPage();
  await page.authenticate({ username: "", password: "sk-page" });
  expect((await page.goto(locked.url))?.status()).toBe(200);
  await set(page, "tokens", 5);
  await say(page, "Hello");
  await untilStatus(page, "5 tokens");
  await context.close();
});
