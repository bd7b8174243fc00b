// sisa export: a model as files for other runtimes.
import { join, resolve } from "node:path";
import { mixerKindsOf } from "@sisa/core";
import { directory } from "@sisa/hub/node";
import { type ExportTarget, exportOnnx, type WeightType } from "@sisa/onnx";
import { type Command, Option } from "commander";
import { type Context, command, jsonOption } from "../context.ts";
import { forPeople, note, printJson, printLine } from "../io.ts";
import { addModelOptions, loadSource, type ModelOptions, type ModelSource } from "../model-source.ts";
import { shownPath } from "../next-steps.ts";
import { requireFolder } from "../run-folder.ts";
import { byteText } from "../table.ts";
import { windowsOf } from "./eval.ts";

interface Options extends ModelOptions {
  readonly to: string;
  readonly dtype: readonly WeightType[];
  readonly heldOut?: string;
  readonly json?: boolean;
}

/** Tokens that differences are measured on at most. */
const mostHeldOut = 16_384;

export function exportCommand({ io }: Context): Command {
  const created = command("export", "write a model as ONNX, with its configuration and tokenizer beside it", [
    "sisa export runs/latest --to export/",
    "sisa export my-model --to export/ --dtype float32,int8",
    "sisa export my-model --to export/ --form sdpa",
    "sisa export checkpoint.pt --tokenizer tokenizer.json --to export/",
  ])
    .argument("<model>", "model folder, run, checkpoint, .pt file or URL")
    .requiredOption("--to <folder>", "where the files go; files of the same names are replaced")
    .addOption(
      new Option("--dtype <names>", "element types of the weights, with commas: float32, float16, int8, int4")
        .argParser((names) => names.split(",") as WeightType[])
        .default(["float32"], "float32"),
    )
    .option(
      "--held-out <path>",
      "file or folder of text to measure on what each type changes (default: what the model's run held out)",
    );
  return addModelOptions(created)
    .addOption(jsonOption())
    .action(async (place: string, options: Options) => {
      const shown = forPeople(io, options.json);
      const folder = resolve(io.cwd, options.to);
      await requireFolder(folder, "--to");
      const source = await loadSource(place, io.cwd, options);
      const storage = directory(folder);
      const heldOut = await heldOutOf(source, options.heldOut);
      const { form = "exact" } = options;
      if (source.model.config.form !== form && mixerKindsOf(source.model.config).has("sisa")) {
        note(io, 'the model was trained in form "sdpa" and is written in form "exact"; --form sdpa keeps the form');
      }
      const sizes: Record<string, number> = {};
      const to: ExportTarget = {
        async write(name, bytes) {
          await storage.write(name, bytes);
          sizes[name] = bytes.length;
          printLine(shown, `${shownPath(io, join(folder, name))}  ${byteText(bytes.length)}`);
        },
      };
      await exportOnnx(source, { to, form, dtypes: options.dtype, ...(heldOut && { heldOut }) });
      const isFixed = Object.keys(sizes).some((name) => name.startsWith("onnx/model_fixed"));
      printLine(
        shown,
        `onnx/model.onnx: a decoder whose caches grow${isFixed ? "; onnx/model_fixed.onnx: caches of a fixed capacity" : ""}`,
      );
      if (options.json) printJson(io, { folder, files: sizes });
    });

  /** Enough tokens of a text that was not trained on; undefined, with a note, where there is none. */
  async function heldOutOf(source: ModelSource, text: string | undefined): Promise<Int32Array | undefined> {
    if (text === undefined && source.run === undefined) {
      note(io, "no held-out text, so what each type changes is not measured; give one: --held-out FILE_OR_FOLDER");
      return undefined;
    }
    const { tokens } = await windowsOf(source, text === undefined ? {} : { text }, io);
    return Int32Array.from(await tokens.read(0, Math.min(tokens.length, mostHeldOut)));
  }
}
