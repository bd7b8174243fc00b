// The page that every report stands in: one HTML file that needs nothing else, no network either.
import type { ChartData } from "./chart.ts";
import { escapeHtml, scriptJson } from "./html.ts";
import { pageScript } from "./page-script.ts";
import { pageStyle } from "./page-style.ts";

export interface Page {
  readonly title: string;
  /** Sections of HTML; empty ones are left out. */
  readonly body: readonly string[];
  /** What the script shows under the pointer, by the ids of the charts. */
  readonly charts: Readonly<Record<string, ChartData>>;
}

/** The title of a page, with a line under it. */
export function pageHeader(title: string, subtitle: string | undefined): string {
  const line = subtitle === undefined ? "" : `<p class="soft">${escapeHtml(subtitle)}</p>`;
  return `<header><h1>${escapeHtml(title)}</h1>${line}</header>`;
}

/** The text of the file. */
export function htmlPage({ title, body, charts }: Page): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${escapeHtml(title)}</title>
<style>${pageStyle}</style>
</head>
<body>
<main>
${body.filter((part) => part !== "").join("\n")}
</main>
<script type="application/json" id="chart-data">${scriptJson(charts)}</script>
<script>${pageScript}</script>
</body>
</html>
`;
}
