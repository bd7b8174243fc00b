// A text, each token coloured by one number. A token is chosen by click or by keys.

import { useRef } from "preact/hooks";
import { look } from "../state.ts";
import type { TermMatrix } from "./head-terms.ts";

interface TokenMapProps {
  /** What is coloured, for screen readers. */
  readonly name: string;
  readonly tokens: readonly string[];
  readonly matrix: TermMatrix;
  /** The value that gets the full colour. */
  readonly peak: number;
  /** Whether values have a sign, which is shown by hue. */
  readonly signed: boolean;
}

export function TokenMap({ name, tokens, matrix, peak, signed }: TokenMapProps) {
  const box = useRef<HTMLDivElement>(null);
  const query = look.query.value;
  const choose = (index: number) => {
    const chosen = Math.max(0, Math.min(tokens.length - 1, index));
    look.query.value = chosen;
    box.current?.querySelector<HTMLElement>(`[data-token="${chosen}"]`)?.focus({ preventScroll: false });
  };
  return (
    <div
      ref={box}
      class="token-map"
      role="listbox"
      aria-label={`${name}: tokens of the text`}
      aria-orientation="horizontal"
      onKeyDown={(event) => {
        const to = { ArrowLeft: query - 1, ArrowRight: query + 1, Home: 0, End: tokens.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(to);
      }}
      onClick={(event) => {
        const index = tokenUnder(event.target);
        if (index !== undefined) choose(index);
      }}
      onPointerOver={(event) => {
        look.key.value = tokenUnder(event.target);
      }}
      onPointerLeave={() => {
        look.key.value = undefined;
      }}
    >
      {tokens.map((token, index) => {
        const value = index > query ? 0 : matrix.at(query, index);
        const strength = peak > 0 ? Math.min(1, Math.abs(value) / peak) : 0;
        const classes = [
          "token",
          signed ? (value < 0 ? "negative" : "positive") : "share",
          ...(index === query ? ["query"] : []),
          ...(index > query ? ["later"] : []),
        ];
        return (
          <span
            // Tokens have no identity but their place.
            key={index}
            role="option"
            data-token={index}
            tabIndex={index === query ? 0 : -1}
            aria-selected={index === query}
            aria-label={`${shownToken(token)}, token ${index}${index > query ? ", later" : `, ${value.toPrecision(2)}`}`}
            class={classes.join(" ")}
            style={{ "--strength": strength.toFixed(3) }}
          >
            {token.includes("\n") ? `↵${token}` : token === "" ? "·" : token}
          </span>
        );
      })}
    </div>
  );
}

function tokenUnder(target: EventTarget | null): number | undefined {
  const index = target instanceof HTMLElement ? target.dataset.token : undefined;
  return index === undefined ? undefined : Number(index);
}

/** A token where it stands alone: whitespace made visible. */
export function shownToken(token: string): string {
  return token === "" ? "·" : token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");
}

/** A token with a few characters on either side. */
export function contextOf(tokens: readonly string[], index: number): readonly [string, string, string] {
  const width = 8;
  const before = tokens
    .slice(Math.max(0, index - width), index)
    .join("")
    .slice(-width);
  const after = tokens
    .slice(index + 1, index + 1 + width)
    .join("")
    .slice(0, width);
  return [before.replaceAll("\n", "↵"), shownToken(tokens[index] ?? ""), after.replaceAll("\n", "↵")];
}
