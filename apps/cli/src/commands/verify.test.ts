import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openSafetensors, type TensorToWrite, writeSafetensors } from "@sisa/hub";
import { directory } from "@sisa/hub/node";
import { beforeAll, describe, expect, it } from "vitest";
import { run, temporaryFolder } from "../testing.ts";

const fixtures = new URL("../../../../fixtures/", import.meta.url).pathname;
const verify = (file: string, ...words: readonly string[]) => run(fixtures, ["verify", file, ...words]);

describe("sisa verify", () => {
  it.each([
    ["sisa-tiny-a", "onnxruntime", "exact"],
    ["sisa-tiny-a", "onnxruntime", "sdpa"],
    ["sisa-tiny-a", "reference", "exact"],
    ["transformer-tiny", "onnxruntime", "exact"],
    ["sisa-tiny-clamped", "onnxruntime", "sdpa"],
    ["mamba2-tiny", "onnxruntime", "exact"],
    ["mamba2-tiny", "reference", "exact"],
    ["jamba-tiny", "onnxruntime", "exact"],
    ["falcon-h1-tiny", "onnxruntime", "exact"],
    ["mamba3-tiny-softplus", "onnxruntime", "exact"],
    ["mamba3-tiny-softplus", "reference", "exact"],
  ])("passes %s on %s in form %s", async (name, backend, form) => {
    const { code, json } = await verify(`${name}.safetensors`, "--backend", backend, "--form", form);
    expect(json).toMatchObject({ passed: true, backend, form, worstGradient: expect.stringContaining("layers.") });
    expect(json?.logits).toBeLessThan(1e-6);
    expect(json?.loss).toBeLessThan(1e-6);
    expect(json?.gradient).toBeLessThan(1e-4);
    expect(code).toBe(0);
  });

  it.each(["sisa", "transformer"])("passes ten steps of %s", async (kind) => {
    const { code, json } = await verify(`${kind}-train-10-steps.safetensors`);
    expect(json).toMatchObject({ kind, passed: true, steps: 10 });
    expect(json?.losses).toBeLessThan(1e-5);
    expect(json?.gradNorms).toBeLessThan(1e-5);
    expect(json?.finalWeights).toBeLessThan(1e-5);
    expect(code).toBe(0);
  });

  it("shows that the exact form differs where the clamp is active", async () => {
    const { code, json, stderr } = await verify("sisa-tiny-clamped.safetensors");
    expect(code).toBe(1);
    expect(json).toMatchObject({ passed: false, form: "exact" });
    expect(json?.logitsOfLargest).toBeGreaterThan(0.01);
    expect(stderr).toContain("broken: a logit differs by 1.3");
    expect(stderr).toContain("only --form sdpa reproduces");
  });
});

describe("of a file that is not what it should be", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await temporaryFolder();
  });

  /** A golden file with other metadata or tensors. */
  async function changed(
    from: string,
    name: string,
    change: (golden: { metadata: Record<string, string>; tensors: Record<string, TensorToWrite> }) => void,
  ): Promise<string> {
    await using source = await openSafetensors(directory(fixtures), from);
    const tensors: Record<string, TensorToWrite> = {};
    for (const tensor of source.tensors.keys()) tensors[tensor] = await source.read(tensor);
    const metadata = { ...source.metadata };
    change({ metadata, tensors });
    await writeSafetensors(directory(folder), name, tensors, { metadata });
    return join(folder, name);
  }

  /** The values of a tensor, in place. */
  function floats(tensor: TensorToWrite | undefined): Float32Array {
    if (tensor?.data instanceof Float32Array) return tensor.data;
    throw new Error("expected a float32 tensor");
  }

  it("names kinds that are not known", async () => {
    const file = await changed("sisa-tiny-a.safetensors", "kind.safetensors", ({ metadata }) => {
      metadata.config = JSON.stringify({ kind: "rwkv", d_model: 32 });
    });
    const { code, error } = await verify(file);
    expect(error).toContain(
      "expected a golden file of kind sisa, transformer, mamba3, falcon_h1, forgetting_transformer-project_fox, " +
        "hymba, jamba, mamba, mamba2, got rwkv",
    );
    expect(code).toBe(3);
  });

  it("names a parameter that is missing, left over or of another shape", async () => {
    const missing = await changed("sisa-tiny-a.safetensors", "missing.safetensors", ({ tensors }) => {
      delete tensors["weight.layers.1.lambda_raw"];
    });
    expect(await verify(missing)).toMatchObject({
      code: 3,
      error: expect.stringContaining("weight.layers.1.lambda_raw is missing"),
    });
    const leftOver = await changed("transformer-tiny.safetensors", "left-over.safetensors", ({ tensors }) => {
      tensors["weight.layers.7.x"] = { dtype: "float32", shape: [1], data: Float32Array.of(1) };
    });
    expect(await verify(leftOver)).toMatchObject({
      code: 3,
      error: expect.stringContaining("weight.layers.7.x is no parameter"),
    });
    const wide = await changed("transformer-tiny.safetensors", "wide.safetensors", ({ metadata }) => {
      metadata.config = metadata.config?.replace('"d_ff": 80', '"d_ff": 81') ?? "";
    });
    expect(await verify(wide)).toMatchObject({
      code: 3,
      error: expect.stringContaining("must be [81,48], got [80,48]"),
    });
  });

  it.each([
    ["a gradient", "grad.layers.0.W_Q.weight", "the gradient of layers.0.W_Q.weight differs"],
    ["the loss", "loss", "the loss differs"],
    ["the logits", "logits", "a logit differs"],
  ])("breaks where %s is another", async (_, tensor, sentence) => {
    const file = await changed("sisa-tiny-a.safetensors", "other.safetensors", ({ tensors }) => {
      const values = floats(tensors[tensor]);
      values.forEach((value, index) => {
        values[index] = value * 1.002 + 0.002;
      });
    });
    const { code, json, stderr } = await verify(file);
    expect(stderr).toContain(sentence);
    expect(json?.passed).toBe(false);
    expect(code).toBe(1);
  });

  it("does not pass over NaN", async () => {
    const file = await changed("sisa-tiny-a.safetensors", "nan.safetensors", ({ tensors }) => {
      const data = floats(tensors["grad.final_norm.weight"]);
      data[3] = Number.NaN;
    });
    expect(await verify(file)).toMatchObject({
      code: 1,
      json: { passed: false, worstGradient: "final_norm.weight", gradient: null },
    });
  });

  it("breaks where the losses of a training file are others", async () => {
    const file = await changed("transformer-train-10-steps.safetensors", "losses.safetensors", ({ tensors }) => {
      const data = floats(tensors.losses);
      data[7] = (data[7] ?? 0) + 2e-4;
    });
    expect(await verify(file)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("the loss of a step differs by 2.0"),
    });
  });

  it("is refused where it is cut short, no safetensors file, or missing", async () => {
    const bytes = readFileSync(join(fixtures, "sisa-tiny-a.safetensors"));
    writeFileSync(join(folder, "cut.safetensors"), bytes.subarray(0, 100_000));
    expect(await verify(join(folder, "cut.safetensors"))).toMatchObject({ code: 3 });
    writeFileSync(join(folder, "text.safetensors"), "not tensors");
    expect(await verify(join(folder, "text.safetensors"))).toMatchObject({
      code: 3,
      error: expect.stringContaining("not a safetensors file"),
    });
    expect(await verify(join(folder, "none.safetensors"))).toMatchObject({ code: 3 });
  });
});
