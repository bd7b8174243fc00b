// A plugin of typedoc: writes which pages of the reference there are, for the sidebar of the site.
import { writeFileSync } from "node:fs";
import path from "node:path";

export function load(/** @type {import("typedoc-plugin-markdown").MarkdownApplication} */ app) {
  app.renderer.postRenderAsyncJobs.push(async ({ outputDirectory, navigation }) => {
    /** @param {readonly import("typedoc-plugin-markdown").NavigationItem[]} items @returns {object[]} */
    const entries = (items) =>
      items.map(({ title, path: file, children }) => ({
        text: title,
        ...(typeof file === "string" ? { link: `/api/${file.replace(/(index)?\.md$/, "")}` } : {}),
        ...(children ? { collapsed: true, items: entries(children) } : {}),
      }));
    writeFileSync(path.join(outputDirectory, "typedoc-sidebar.json"), JSON.stringify(entries(navigation ?? [])));
  });
}
