// What the types of the package accept and refuse: small programs, each compiled by the TypeScript compiler.
import path from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { beforeAll, describe, expect, test } from "vitest";

const source = path.dirname(fileURLToPath(import.meta.url));
/** Where the compiler is told that another copy of the package lies. */
const copy = path.join(path.dirname(source), "copy-of-src");

const prelude = `
import * as core from "./index.ts";
import { add, argmax, bool, cast, constant, crossEntropy, f32, gather, i32, iota, less, linear, matmul, mean, mul, not, reference,
  silu, sum, trace, valueAndGrad, where } from "./index.ts";
import type { AnyTensor, Backend, DeviceTensor, DTypeOfKind, Executable, Graph, Op, OpName, Tensor, TensorSpec } from "./index.ts";
import * as other from "../copy-of-src/index.ts";
declare const x: Tensor, ids: Tensor<"int">, mask: Tensor<"bool">, backend: Backend, device: DeviceTensor;
const loss = trace({ x: f32("T", 8), w: f32(8, 4), ids: i32("T") }, ({ x, w }) => ({ value: mean(matmul(x, w)), hidden: x }));
export { add, argmax, backend, bool, cast, constant, core, crossEntropy, device, f32, gather, i32, ids, iota, less, linear, loss, mask,
  matmul, mean, mul, not, other, reference, silu, sum, trace, valueAndGrad, where, x };
export type { AnyTensor, Backend, DeviceTensor, DTypeOfKind, Executable, Graph, Op, OpName, Tensor, TensorSpec };
`;

/** True for types that are one and the same. */
const same =
  "type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;\n";

/** Programs that must compile. */
const accepted = {
  "a single result is the output `value`, others have their names":
    'const g = trace({ x: f32(2) }, ({ x }) => sum(x)); const s: TensorSpec<"float"> = g.outputs.value; loss.outputs.hidden; s;',
  "gradients are outputs by the names of their inputs":
    'const step = valueAndGrad(loss, { wrt: ["w", "x"] }); const g: TensorSpec<"float"> = step.outputs["grad.w"]; step.outputs["grad.x"]; step.outputs.value; step.outputs.hidden; g;',
  "running takes and gives the names of the graph, bound or not": `
    const step = valueAndGrad(loss, { wrt: ["w"] });
    const program = await backend.compile(step.bind({ T: 32 }), { state: { w: "grad.w" } });
    const { value, "grad.w": gradient } = program.run({ x: device, w: device, ids: device });
    await value.read(); gradient.keep();`,
  "constants are left out of runs":
    "const p = await backend.compile(loss, { constants: { w: new Float32Array(32) } }); p.run({ x: device, ids: device });",
  "kinds of results":
    'const t: readonly [Tensor, Tensor<"int">, Tensor<"bool">, Tensor<"int">, Tensor] = [cast(ids, "float32"), argmax(x), not(mask), iota("T"), where(mask, x, 0)]; t;',
  "operands of one kind, or numbers": `
    const floats: readonly Tensor[] = [add(x, x), add(1, x), mul(x, 2), where(mask, 1, x)];
    const ints: readonly Tensor<"int">[] = [add(ids, ids), add(1, ids), mul<"int">(ids, 2), where(mask, ids, 0)];
    const erased = (t: AnyTensor): AnyTensor => where(mask, t, t);
    [floats, ints, less(ids, ids), erased];`,
  "kinds of constants":
    'const t: readonly [Tensor, Tensor<"int">, Tensor<"bool">, Tensor] = [constant(1), constant(1, "int32"), constant(1, "bool"), constant(1, "bfloat16")]; t;',
  "tensors in a trace have the kinds of their specs": `
    trace({ a: f32(2), b: i32(2), c: bool(2) }, ({ a, b, c }) => {
      const kinds: readonly [Tensor, Tensor<"int">, Tensor<"bool">] = [a, b, c];
      return kinds[0];
    });`,
  "the kind of a tensor is not its width":
    'const narrow: TensorSpec<"float"> = { ...f32(2), dtype: "bfloat16" }; trace({ narrow }, (t) => silu(t.narrow));',
  "a table of all operations is exhaustive":
    "const table = {} as Record<OpName, number>; const s: number = table.matmul + table.sisaAttention; s;",
  "operations are found by their literal names": `${same}
    const matmulIsOne: Same<Extract<OpName, "matmul">, "matmul"> = true;
    const notJustStrings: Same<string extends OpName ? true : false, false> = true;
    const functionsAreNone: Same<Extract<OpName, "linear" | "mean" | "input">, never> = true;
    [matmulIsOne, notJustStrings, functionsAreNone];`,
  "every name of an operation is that of an exported operation": `
    type Exported = { [K in keyof typeof core]: (typeof core)[K] extends Op<infer N> ? N : never }[keyof typeof core];
    const covered: Exclude<Exported, OpName | "input"> extends never ? true : false = true; covered;`,
  "the dtypes of a kind": `${same}
    const ints: Same<DTypeOfKind<"int">, "int32"> = true;
    const bools: Same<DTypeOfKind<"bool">, "bool"> = true; [ints, bools];`,
  "graphs of any names are graphs": "const g: Graph = loss; const s: string = String(g); s;",
  "what another copy of the package makes is of the same types": `
    const spec: TensorSpec = other.f32("T", other.dim("B"));
    const op: Op = other.matmulOp;
    const g: Graph = other.trace({ x: f32(2) }, (t) => other.silu(add(t.x, 1)));
    const b: Backend = other.reference();
    const step = valueAndGrad(other.trace({ x: f32(2) }, (t) => sum(other.exp(t.x))), { wrt: ["x"] });
    const program: Executable<{ x: TensorSpec }, { value: TensorSpec }> = await b.compile(other.trace({ x: f32(2) }, (t) => sum(t.x)));
    [spec, op, g, step, program];`,
} as const;

/** Programs that must not compile, and a part of what the compiler says. */
const refused: { readonly [name: string]: readonly [program: string, message: string] } = {
  "whole numbers where a float is needed": [
    "silu(ids);",
    `'Tensor<"int">' is not assignable to parameter of type 'Tensor<"float">'`,
  ],
  "truth values where a number is needed": ["add(mask, 1);", `'Tensor<"bool">' is not assignable to parameter of type`],
  "two kinds in one operation": ["add(x, ids);", "kindsOfOperandsDiffer"],
  "two kinds in a comparison": ["less(ids, x);", "kindsOfOperandsDiffer"],
  "two kinds to choose from": ["where(mask, x, ids);", "kindsOfOperandsDiffer"],
  "floats as ids": ["gather(x, x);", `'Tensor<"float">' is not assignable to parameter of type 'Tensor<"int">'`],
  "floats as a condition": ["where(x, x, 0);", `is not assignable to parameter of type 'Tensor<"bool">'`],
  "an input of an operation that is missing": ["crossEntropy({ logits: x });", "Property 'targets' is missing"],
  "an input of an operation that does not exist": [
    "crossEntropy({ logits: x, targets: ids, labels: ids });",
    "'labels' does not exist in type",
  ],
  "a setting that does not exist": ["matmul(x, x, { transpose: true });", "'transpose' does not exist in type"],
  "a dtype that does not exist": ['cast(x, "float8");', `'"float8"' is not assignable to parameter of type`],
  "an input of a graph that does not exist": [
    "trace({ x: f32(2) }, ({ y }) => y);",
    "Property 'y' does not exist on type",
  ],
  "an input of a graph as another kind": [
    "trace({ n: i32(2) }, ({ n }) => silu(n));",
    `'Tensor<"int">' is not assignable`,
  ],
  "a result that is no tensor": ["trace({ x: f32(2) }, () => 3);", "Type 'number' is not assignable to type 'Result'"],
  "an output that does not exist": ["loss.outputs.logits;", "Property 'logits' does not exist on type"],
  "the gradient of an input that was not named": [
    'valueAndGrad(loss, { wrt: ["w"] }).outputs["grad.x"];',
    "Property 'grad.x' does not exist on type",
  ],
  "the gradient by an input that does not exist": [
    'valueAndGrad(loss, { wrt: ["weight"] });',
    `'"weight"' is not assignable to type '"x" | "w" | "ids"'`,
  ],
  "the gradient of a graph without `value`": [
    'valueAndGrad(trace({ x: f32() }, ({ x }) => ({ loss: x })), { wrt: ["x"] });',
    "Property 'value' is missing in type",
  ],
  "an input of a run that does not exist": [
    "const p = await backend.compile(loss); p.run({ x: device, w: device, ids: device, y: device });",
    "'y' does not exist in type",
  ],
  "an input of a run that is no device tensor": [
    "const p = await backend.compile(loss); p.run({ x: new Float32Array(8), w: device, ids: device });",
    "is missing the following properties from type 'DeviceTensor'",
  ],
  "an output of a run that does not exist": [
    "const p = await backend.compile(loss); p.run({ x: device, w: device, ids: device }).logits;",
    "Property 'logits' does not exist on type",
  ],
  "state of an input or output that does not exist": [
    'await backend.compile(loss, { state: { w: "next" } });',
    `'"next"' is not assignable to type '"hidden" | "value"`,
  ],
  "state of an input that does not exist": [
    'await backend.compile(loss, { state: { m: "value" } });',
    "'m' does not exist in type",
  ],
  "a constant of an input that does not exist": [
    "await backend.compile(loss, { constants: { bias: new Float32Array(4) } });",
    "'bias' does not exist in type",
  ],
  "a table of operations with one left out": [
    "const { matmul: left, ...rest } = {} as Record<OpName, number>; const table = rest satisfies Record<OpName, number>; [left, table];",
    "Property 'matmul' is missing in type",
  ],
  "a table of operations with one too many": [
    "({ ...({} as Record<OpName, number>), matmull: 1 }) satisfies Record<OpName, number>;",
    "'matmull' does not exist in type",
  ],
  "a spec with a dtype of another kind": [
    'const s: TensorSpec<"int"> = f32(2); s;',
    `'TensorSpec<"float">' is not assignable to type 'TensorSpec<"int">'`,
  ],
  "changes to a graph": ["loss.nodes.push();", "Property 'push' does not exist on type 'readonly Node[]'"],
};

const programs = Object.entries({
  ...accepted,
  ...Object.fromEntries(Object.entries(refused).map(([name, [program]]) => [name, program])),
}).map(([name, program], index) => ({ name, program, file: path.join(source, `snippet-${index}.ts`) }));

/** What the compiler says of each program, by its name. */
const diagnostics = new Map<string, readonly string[]>();
let filesOfCopy = 0;

beforeAll(() => {
  const configFile = path.join(source, "..", "tsconfig.json");
  const { config } = ts.readConfigFile(configFile, ts.sys.readFile) as { config: object };
  const { options } = ts.parseJsonConfigFileContent(
    { ...config, include: [], files: [] },
    ts.sys,
    path.dirname(configFile),
  );
  const exported = [...prelude.matchAll(/export (?:type )?\{([^}]*)\}/g)].map(([, names]) => names?.trim());
  const header = `import { ${exported[0]} } from "./snippet-prelude.ts";\nimport type { ${exported[1]} } from "./snippet-prelude.ts";\n`;
  const virtual = new Map(programs.map(({ file, program }) => [file, header + program]));
  virtual.set(path.join(source, "snippet-prelude.ts"), prelude);

  const real = (file: string) => (file.startsWith(copy) ? source + file.slice(copy.length) : file);
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile, directoryExists } = host;
  host.fileExists = (file) => virtual.has(path.normalize(file)) || fileExists(real(path.normalize(file)));
  host.readFile = (file) => virtual.get(path.normalize(file)) ?? readFile(real(path.normalize(file)));
  host.directoryExists = (folder) => directoryExists?.(real(path.normalize(folder))) ?? false;
  host.realpath = (file) => file;
  host.getSourceFile = (file, languageVersion, ...rest) => {
    const normal = path.normalize(file);
    const text = virtual.get(normal) ?? (normal.startsWith(copy) ? readFile(real(normal)) : undefined);
    return text === undefined
      ? getSourceFile(file, languageVersion, ...rest)
      : ts.createSourceFile(file, text, languageVersion);
  };

  const program = ts.createProgram({ rootNames: programs.map(({ file }) => file), options, host });
  for (const { name, file } of programs) {
    const found = ts.getPreEmitDiagnostics(program, program.getSourceFile(file));
    diagnostics.set(
      name,
      found.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n")),
    );
  }
  filesOfCopy = program.getSourceFiles().filter(({ fileName }) => path.normalize(fileName).startsWith(copy)).length;
  const shared = program.getSourceFile(path.join(source, "snippet-prelude.ts"));
  diagnostics.set(
    "prelude",
    ts
      .getPreEmitDiagnostics(program, shared)
      .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n")),
  );
});

test("what the programs share compiles, with two copies of the package", () => {
  expect(diagnostics.get("prelude")).toEqual([]);
  expect(filesOfCopy).toBeGreaterThan(50);
});

describe("is accepted", () => {
  test.each(Object.keys(accepted))("%s", (name) => {
    expect(diagnostics.get(name)).toEqual([]);
  });
});

describe("is refused", () => {
  test.each(Object.entries(refused))("%s", (name, [, message]) => {
    const found = diagnostics.get(name) ?? [];
    expect(found).toHaveLength(1);
    expect(found.join("\n")).toContain(message);
  });
});
