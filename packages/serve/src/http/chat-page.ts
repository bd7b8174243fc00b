// A page to try the model on: a conversation where the model has a template for one, else a text that is continued.

/** @param hasChat false where the model only continues texts */
export function chatPage(modelName: string, hasChat: boolean): string {
  const title = escaped(modelName);
  const action = hasChat ? "Send" : "Continue";
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
<main id="log" role="log" aria-live="polite" aria-label="${hasChat ? "Conversation" : "Texts"}" tabindex="0">
<p id="empty">${hasChat ? "Say something, and the model answers." : "Begin a text, and the model goes on with it."}</p>
</main>
<form id="form">
<label for="text" class="unseen">${hasChat ? "Message" : "Text"}</label>
<textarea id="text" rows="2" placeholder="${hasChat ? "Message" : "Once upon a time"}" required></textarea>
<div class="row">
<label>Temperature <input id="temperature" type="number" min="0" max="2" step="0.1" value="0.8" required></label>
<label>Tokens <input id="tokens" type="number" min="1" value="200" required></label>
<button id="stop" type="button" hidden>Stop</button>
<button id="send">${action}</button>
</div>
</form>
<script>const model = ${scriptJson(modelName)}, hasChat = ${hasChat};${script}</script>
</body>
</html>
`;
}

const style = `
:root { --paper: #fbfbfa; --card: #fff; --ink: #1c1d1f; --faint: #62666d; --line: #dcdde0; --accent: #2457c5;
  --on-accent: #fff; --given: #e9effb; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181a; --card: #1f2124; --ink: #e7e8ea; --faint: #9ba0a8;
  --line: #35383d; --accent: #8ab0ff; --on-accent: #10182b; --given: #24304a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { height: 100%; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
body { display: flex; flex-direction: column; height: 100dvh; max-width: 46rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; padding: .9rem 0;
  border-bottom: 1px solid var(--line); }
h1 { font-size: 1.05rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
#status { margin: 0; font-size: .85rem; color: var(--faint); white-space: nowrap; }
main { flex: 1; min-height: 0; overflow-y: auto; display: flex; flex-direction: column; gap: .75rem; padding: 1rem 0; }
#empty { margin: auto; color: var(--faint); }
article { flex: none; max-width: 88%; padding: .6rem .9rem; border: 1px solid var(--line); border-radius: 1rem;
  background: var(--card); white-space: pre-wrap; overflow-wrap: anywhere; }
article.text { max-width: none; border-radius: .6rem; }
article.assistant { align-self: flex-start; border-bottom-left-radius: .25rem; }
article.user { align-self: flex-end; background: var(--given); border-color: transparent; border-bottom-right-radius: .25rem; }
article.error { align-self: stretch; max-width: none; border-color: var(--bad); color: var(--bad); border-radius: .6rem; }
article .given { color: var(--faint); }
article.pending:empty::after, article.pending > :last-child:empty::after { content: "…"; color: var(--faint); }
form { display: grid; gap: .6rem; padding: .25rem 0 1rem; }
textarea, input, button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; padding: .45rem .7rem; }
textarea { width: 100%; resize: vertical; max-height: 40vh; }
input { width: 4.8rem; }
.row { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: center; }
.row label { font-size: .85rem; color: var(--faint); }
button { cursor: pointer; padding: .45rem 1.1rem; }
#stop { margin-left: auto; }
#send { margin-left: auto; background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
#stop:not([hidden]) + #send { margin-left: 0; }
button:disabled { opacity: .5; cursor: default; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
@media (max-width: 30rem) { body { padding: 0 .75rem; } #stop, #send { flex: 1; margin-left: 0; } }
`;

const script = `
const $ = (id) => document.getElementById(id);
let messages = [];
let stopping;
function show(kind, label) {
  $("empty").hidden = true;
  const entry = document.createElement("article");
  entry.className = kind;
  entry.setAttribute("aria-label", label);
  $("log").append(entry);
  return entry;
}
function say(entry, text) {
  const { scrollTop, scrollHeight, clientHeight } = $("log");
  const isAtEnd = scrollTop + clientHeight > scrollHeight - 40;
  entry.textContent += text;
  // Who reads further up is left there.
  if (isAtEnd) $("log").scrollTop = $("log").scrollHeight;
}
async function* frames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The connection ended before the answer did.");
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
async function messageOf(response) {
  const body = await response.json().catch(() => undefined);
  return body?.error?.message ?? "The server answered " + response.status + ".";
}
async function ask(text) {
  const asked = [...messages, { role: "user", content: text }];
  const body = { model, stream: true, stream_options: { include_usage: true },
    temperature: Number($("temperature").value), max_tokens: Number($("tokens").value),
    ...(hasChat ? { messages: asked } : { prompt: text }) };
  const entries = hasChat ? [show("user", "You"), show("assistant pending", "Model")] : [show("text pending", "Text")];
  let answer = entries[1];
  if (!hasChat) {
    const given = document.createElement("span");
    given.className = "given";
    answer = document.createElement("span");
    entries[0].append(given, answer);
    given.textContent = text;
  } else entries[0].textContent = text;
  $("log").scrollTop = $("log").scrollHeight;
  stopping = new AbortController();
  $("stop").hidden = false;
  $("send").disabled = true;
  $("status").textContent = "Waiting";
  const startMs = performance.now();
  let usage;
  try {
    const response = await fetch(hasChat ? "/v1/chat/completions" : "/v1/completions", { method: "POST",
      headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: stopping.signal });
    if (!response.ok) throw new Error(await messageOf(response));
    for await (const frame of frames(response)) {
      usage = frame.usage ?? usage;
      const choice = frame.choices[0];
      say(answer, choice?.delta?.content ?? choice?.text ?? "");
      $("status").textContent = "Writing";
    }
    const count = usage?.completion_tokens ?? 0;
    const rate = (count * 1000) / (performance.now() - startMs);
    $("status").textContent = count + " tokens, " + rate.toFixed(1) + " a second";
  } catch (error) {
    const isStopped = error.name === "AbortError";
    $("status").textContent = isStopped ? "Stopped" : "Failed";
    if (!isStopped) {
      const problem = show("error", "Error");
      problem.setAttribute("role", "alert");
      problem.textContent = error.message;
      problem.scrollIntoView({ block: "end" });
    }
  }
  entries.at(-1).classList.remove("pending");
  // What got no answer is no part of the conversation, and can be sent again.
  if (answer.textContent !== "") messages = [...asked, { role: "assistant", content: answer.textContent }];
  else {
    for (const entry of entries) entry.remove();
    if ($("text").value === "") $("text").value = text;
  }
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
