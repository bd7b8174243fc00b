// The model's own way to write a conversation as one text, from tokenizer_config.json.

import { Template } from "@huggingface/jinja";
import { CheckpointError } from "@sisa/core";
import { ApiError } from "./errors.ts";

export interface ChatTemplate {
  readonly source: string;
  /** @throws ApiError where the template refuses the conversation */
  render(messages: readonly Record<string, unknown>[]): string;
}

type Config = Readonly<Record<string, unknown>>;

/** The object of tokenizer_config.json; empty where there is none. */
export function tokenizerConfig(assets: Readonly<Record<string, Uint8Array>>): Config {
  const file = assets["tokenizer_config.json"];
  return file === undefined ? {} : (JSON.parse(new TextDecoder().decode(file)) as Config);
}

/** Text of a special token, which may be written as an object. */
export function specialToken(config: Config, name: "bos_token" | "eos_token"): string | null {
  const value = config[name];
  const text = typeof value === "object" && value !== null ? (value as Config).content : value;
  return typeof text === "string" ? text : null;
}

/**
 * @param source a template of one's own, in place of the one that tokenizer_config.json names
 * @throws CheckpointError where it is not a template
 */
export function chatTemplate(config: Config, source?: string): ChatTemplate | undefined {
  const text = source ?? named(config.chat_template);
  if (text === undefined) return undefined;
  let template: Template;
  try {
    template = new Template(text);
  } catch (cause) {
    throw new CheckpointError(`chat template: cannot be used: ${messageOf(cause)}`, { cause });
  }
  const tokens = { bos_token: specialToken(config, "bos_token"), eos_token: specialToken(config, "eos_token") };
  return {
    source: text,
    render(messages) {
      try {
        return template.render({ ...tokens, messages, add_generation_prompt: true });
      } catch (error) {
        throw new ApiError(400, `messages: the chat template refuses them: ${messageOf(error)}`, { param: "messages" });
      }
    },
  };
}

/** One template, or the one called "default" of several. */
function named(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const entries = value as readonly { readonly name?: unknown; readonly template?: unknown }[];
  const chosen = entries.find(({ name }) => name === "default") ?? entries[0];
  return typeof chosen?.template === "string" ? chosen.template : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
