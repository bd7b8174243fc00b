// A page to try the model on: a conversation where the model has a template for one, else a text that is continued.

/** @param hasChat false where the model only continues texts */
export function chatPage(modelName: string, hasChat: boolean): string {
  const title = escaped(modelName);
  const placeholder = hasChat ? "Say something" : "Begin a text";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${style}</style>
</head>
<body>
<header><h1>${title}</h1><p id="status" role="status"></p></header>
<main id="log" role="log" aria-live="polite" aria-label="${hasChat ? "Conversation" : "Texts"}" tabindex="0"></main>
<form id="form">
<label for="text">${placeholder}</label>
<textarea id="text" rows="3" required></textarea>
<div class="row">
<label>Temperature <input id="temperature" type="number" min="0" max="2" step="0.1" value="0.8"></label>
<label>Tokens <input id="tokens" type="number" min="1" max="4096" value="200"></label>
<button id="stop" type="button" hidden>Stop</button>
<button id="send">${hasChat ? "Send" : "Continue"}</button>
</div>
</form>
<script>const model = ${scriptJson(modelName)}, hasChat = ${hasChat};${script}</script>
</body>
</html>
`;
}

const style = `
:root { --line: #8886; --soft: #8882; --accent: #2457c5; }
@media (prefers-color-scheme: dark) { :root { --accent: #8ab0ff; } }
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; max-width: 46rem; margin: auto; padding: 1rem; gap: .75rem;
  font: 1rem/1.5 system-ui, sans-serif; }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; }
h1 { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }
#status { margin: 0; font-size: .85rem; opacity: .8; }
main { flex: 1; overflow-y: auto; }
article { margin: 0 0 .75rem; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: .5rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
article.user { background: var(--soft); margin-left: 2rem; }
article .given { opacity: .7; }
article.error { border-color: #c33; }
form { display: grid; gap: .5rem; }
textarea, input, button { font: inherit; padding: .4rem .6rem; border: 1px solid var(--line); border-radius: .4rem; }
textarea { width: 100%; resize: vertical; }
input { width: 5.5rem; }
.row { display: flex; flex-wrap: wrap; gap: .75rem; align-items: center; }
.row label { font-size: .9rem; }
#send { margin-left: auto; background: var(--accent); border-color: var(--accent); color: Canvas; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
`;

const script = `
const $ = (id) => document.getElementById(id);
const messages = [];
let stopping;
function show(kind, label, text) {
  const entry = document.createElement("article");
  entry.className = kind;
  entry.setAttribute("aria-label", label);
  entry.textContent = text;
  $("log").append(entry);
  entry.scrollIntoView({ block: "end" });
  return entry;
}
async function* frames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\\n\\n");
    held = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue;
      const data = part.slice(6);
      if (data === "[DONE]") return;
      const frame = JSON.parse(data);
      if (frame.error) throw new Error(frame.error.message);
      yield frame;
    }
  }
}
async function ask(text) {
  const shared = { model, stream: true, stream_options: { include_usage: true },
    temperature: Number($("temperature").value), max_tokens: Number($("tokens").value) };
  const body = hasChat ? { ...shared, messages } : { ...shared, prompt: text };
  let entry;
  if (hasChat) {
    show("user", "You", text);
    messages.push({ role: "user", content: text });
    entry = show("assistant", "Model", "");
  } else {
    entry = show("assistant", "Text", "");
    const given = document.createElement("span");
    given.className = "given";
    given.textContent = text;
    entry.append(given);
  }
  const answer = document.createElement("span");
  entry.append(answer);
  stopping = new AbortController();
  $("stop").hidden = false;
  $("send").disabled = true;
  $("status").textContent = "Waiting";
  const start = performance.now();
  let usage;
  try {
    const response = await fetch(hasChat ? "/v1/chat/completions" : "/v1/completions", { method: "POST",
      headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: stopping.signal });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const frame of frames(response)) {
      usage = frame.usage ?? usage;
      const choice = frame.choices[0];
      answer.textContent += choice?.delta?.content ?? choice?.text ?? "";
      $("status").textContent = "Writing";
      $("log").scrollTop = $("log").scrollHeight;
    }
    const seconds = (performance.now() - start) / 1000;
    const count = usage?.completion_tokens ?? 0;
    $("status").textContent = count + " tokens, " + (count / seconds).toFixed(1) + " a second";
  } catch (error) {
    const stopped = error.name === "AbortError";
    $("status").textContent = stopped ? "Stopped" : "Failed";
    if (!stopped) show("error", "Error", error.message).setAttribute("role", "alert");
  }
  if (hasChat) messages.push({ role: "assistant", content: answer.textContent });
  $("stop").hidden = true;
  $("send").disabled = false;
  $("text").focus();
}
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (text === "" || $("send").disabled) return;
  $("text").value = "";
  ask(text);
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
$("stop").addEventListener("click", () => stopping.abort());
$("text").focus();
`;

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}

/** JSON that cannot end the script it stands in. */
function scriptJson(value: string): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}
