// What is new about SISA: for a token, a layer and a head, the two terms of the score and the attention they make.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { look, lookAt, maximumLookTokens, modelLabels, models, phase, refreshLook } from "../state.ts";
import { HeadGrid } from "./head-grid.tsx";
import { type HeadTerms, headTerms, rowPeak, strongestKeys } from "./head-terms.ts";
import { Matrix } from "./matrix.tsx";
import { contextOf, shownToken, TokenMap } from "./token-map.tsx";
import "./attention-panel.css";

/** Whether content and importance are coloured on one scale. */
const sameScale = signal(false);

export function AttentionPanel() {
  const view = look.view.value;
  return (
    <section aria-labelledby="look-title" id="look">
      <div class="section-head">
        <h2 id="look-title">Look inside</h2>
        <p>Choose a token; see which earlier tokens it reads, and which term of the score made it so.</p>
      </div>
      <div class="card look">
        <LookControls />
        {view === undefined ? <Empty /> : <Maps />}
      </div>
    </section>
  );
}

function LookControls() {
  // Typing is let finish before it is computed.
  useEffect(() => {
    if (look.view.peek() === undefined) return;
    const timer = setTimeout(() => void refreshLook(look.model.peek()), 500);
    return () => clearTimeout(timer);
  }, [look.text.value]);
  return (
    <div class="look-controls">
      <div class="field">
        <label for="look-text">Text to look at, its first {maximumLookTokens} tokens</label>
        <textarea
          id="look-text"
          rows={2}
          spellcheck={false}
          value={look.text.value}
          onInput={(event) => {
            look.text.value = event.currentTarget.value;
          }}
        />
      </div>
      {models.value.length < 2 ? null : (
        <fieldset class="segments">
          <legend>Model</legend>
          {models.value.map(({ name }) => (
            <label key={name} class={look.model.value === name ? "chosen" : ""}>
              <input
                type="radio"
                name="look-model"
                checked={look.model.value === name}
                onChange={() => void lookAt(name)}
              />
              {modelLabels[name]}
            </label>
          ))}
        </fieldset>
      )}
    </div>
  );
}

function Empty() {
  return (
    <div class="empty">
      <p class="ghost" aria-hidden="true">
        {"Shall I compare thee to a summer's day?".split("").map((letter, index) => (
          <span key={index} style={{ "--strength": index === 38 ? 0 : Math.exp(-(((index - 29) / 4) ** 2)) }}>
            {letter}
          </span>
        ))}
      </p>
      <p>
        {phase.value === "preparing"
          ? "Compiling both models …"
          : "Nothing to look inside yet. Start training above, or open a model below; the maps then follow it live."}
      </p>
    </div>
  );
}

function Maps() {
  const view = look.view.value;
  const layer = view?.layers[look.layer.value];
  if (view === undefined || layer === undefined) return null;
  const terms = headTerms(layer, view.tokens.length, look.head.value);
  const query = look.query.value;
  const peaks = { content: rowPeak(terms.content, query), importance: rowPeak(terms.importance, query) };
  const shared = Math.max(peaks.content, peaks.importance);
  return (
    <>
      <HeadGrid view={view} />
      <Sentence terms={terms} />
      <div class="maps">
        <TermCard
          name="content"
          title="Content"
          formula="q·k / √D"
          terms={terms}
          peak={sameScale.value ? shared : peaks.content}
        />
        <TermCard
          name="importance"
          title="Importance"
          formula="λ · decay · C·B"
          terms={terms}
          peak={sameScale.value ? shared : peaks.importance}
        />
        <TermCard
          name="attention"
          title="Attention"
          formula="softmax of their sum"
          terms={terms}
          peak={rowPeak(terms.attention, query)}
        />
      </div>
      <div class="look-foot">
        <label class="check">
          <input
            type="checkbox"
            checked={sameScale.value}
            onChange={(event) => {
              sameScale.value = event.currentTarget.checked;
            }}
          />
          Colour content and importance on one scale
        </label>
        <p class="muted">
          Arrow keys move the token. {view.cut ? `Only the first ${view.tokens.length} tokens are shown. ` : ""}
          {look.step.value === undefined ? "" : `As of step ${look.step.value}.`}
        </p>
      </div>
      <Strongest terms={terms} />
    </>
  );
}

/** The chosen head in words. */
function Sentence({ terms }: { readonly terms: HeadTerms }) {
  const { table, layers, tokens = [] } = look.view.value ?? {};
  const name = layers?.[look.layer.value]?.name ?? "";
  const row = table?.layers.indexOf(name) ?? -1;
  const [lambda, bias] = [table?.lambda[row]?.[look.head.value], table?.halfLife[row]?.[look.head.value]];
  const measured = table?.measuredHalfLife?.[row]?.[look.head.value];
  return (
    <p class="sentence" aria-live="polite">
      Layer {name}, head {look.head.value}, reading at <mark>{shownToken(tokens[look.query.value] ?? "")}</mark> (token{" "}
      {look.query.value}).{" "}
      {terms.importance === undefined || lambda === undefined || bias === undefined
        ? "This layer is plain attention: content is its whole score."
        : `λ = ${lambda.toFixed(3)}. On this text half of an importance is forgotten after ${tokensText(measured ?? bias)}, by the head's bias alone after ${tokensText(bias)}.`}
    </p>
  );
}

function tokensText(count: number): string {
  return count >= 1e5 ? "more than 100,000 tokens" : `${count < 10 ? count.toFixed(1) : Math.round(count)} tokens`;
}

interface TermCardProps {
  readonly name: "content" | "importance" | "attention";
  readonly title: string;
  readonly formula: string;
  readonly terms: HeadTerms;
  readonly peak: number;
}

function TermCard({ name, title, formula, terms, peak }: TermCardProps) {
  const matrix = terms[name];
  const tokens = look.view.value?.tokens ?? [];
  const signed = name !== "attention";
  return (
    <article class={`term-card ${name}`}>
      <h3>
        {title} <small>{formula}</small>
      </h3>
      {matrix === undefined ? (
        <p class="muted absent">A plain attention layer has no importance term.</p>
      ) : (
        <>
          <TokenMap name={title} tokens={tokens} matrix={matrix} peak={peak} signed={signed} />
          <Legend signed={signed} peak={peak} />
          <Matrix name={title} matrix={matrix} length={tokens.length} signed={signed} />
        </>
      )}
    </article>
  );
}

function Legend({ signed, peak }: { readonly signed: boolean; readonly peak: number }) {
  return (
    <div class={signed ? "legend signed" : "legend"}>
      <span>{signed ? `−${numberText(peak)}` : "0"}</span>
      <i class="gradient" />
      <span>{signed ? `+${numberText(peak)}` : percentText(peak)}</span>
    </div>
  );
}

/** The tokens that get most of the attention, with their numbers; a token under the pointer comes first. */
function Strongest({ terms }: { readonly terms: HeadTerms }) {
  const tokens = look.view.value?.tokens ?? [];
  const query = look.query.value;
  const pointed = look.key.value;
  const strongest = strongestKeys(terms.attention, query, 5);
  const keys = pointed === undefined || pointed > query ? strongest : [pointed, ...strongest].slice(0, 5);
  const at = (values: HeadTerms["content"] | undefined, key: number) => values?.at(query, key);
  return (
    <table class="numbers strongest">
      <thead>
        <tr>
          <th scope="col">
            {pointed === undefined ? "Most attention goes to" : "Under the pointer, then the strongest"}
          </th>
          <th scope="col">Back</th>
          <th scope="col">Content</th>
          <th scope="col">Importance</th>
          <th scope="col">Attention</th>
        </tr>
      </thead>
      <tbody>
        {keys.map((key, index) => {
          const [before, token, after] = contextOf(tokens, key);
          const importance = at(terms.importance, key);
          return (
            <tr key={`${index}-${key}`} class={index === 0 && key === pointed ? "pointed" : ""}>
              <th scope="row" class="context">
                {before}
                <mark>{token}</mark>
                {after}
              </th>
              <td>{query - key}</td>
              <td>{signedText(at(terms.content, key) ?? 0)}</td>
              <td>{importance === undefined ? "–" : signedText(importance)}</td>
              <td>{percentText(at(terms.attention, key) ?? 0)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

function numberText(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(2) : value.toPrecision(2);
}

function signedText(value: number): string {
  return `${value < 0 ? "−" : "+"}${numberText(Math.abs(value))}`;
}

function percentText(value: number): string {
  return `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`;
}
