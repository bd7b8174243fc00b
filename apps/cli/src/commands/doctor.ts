// sisa doctor: what is there to run models on, and what is missing.
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from "node:os";
import { type Backend, f32, matmul, mean, SisaError, silu, trace, valueAndGrad } from "@sisa/core";
import type { DeviceInfo } from "@sisa/kernels-cuda";
import type { Command } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { backendChoices, defaultBackend } from "../backends.ts";
import { type Context, command, jsonOption } from "../context.ts";
import { errorLine, exitCode } from "../exit-codes.ts";
import { forPeople, paint, printJson, printLine } from "../io.ts";
import { byteText } from "../table.ts";

interface BackendReport {
  readonly name: string;
  readonly works: boolean;
  /** How long the small graph took, or why it did not run. */
  readonly detail: string;
  /** Those that `NAME:NUMBER` chooses from, where the backend works and tells them apart. */
  readonly devices?: readonly DeviceInfo[];
}

export function doctorCommand({ io, finish }: Context): Command {
  return command("doctor", "show this machine, and run a small graph on every backend", [
    "sisa doctor",
    "sisa doctor --json",
  ])
    .addOption(jsonOption())
    .action(async ({ json }: { readonly json?: boolean }) => {
      const machine = {
        sisa: manifest.version,
        node: process.version,
        system: `${platform()} ${release()} ${arch()}`,
        processor: cpus()[0]?.model.trim() ?? "unknown",
        cores: availableParallelism(),
        memoryBytes: totalmem(),
        freeMemoryBytes: freemem(),
      };
      const shown = forPeople(io, json);
      printLine(shown, `sisa       ${machine.sisa}`);
      printLine(shown, `Node       ${machine.node}`);
      printLine(shown, `system     ${machine.system}`);
      printLine(shown, `processor  ${machine.processor}, ${machine.cores} cores`);
      printLine(shown, `memory     ${byteText(machine.memoryBytes)}, ${byteText(machine.freeMemoryBytes)} free`);
      printLine(shown, "");
      const backends: BackendReport[] = [];
      for (const { name, description, open, devices } of backendChoices) {
        const tried = await tryBackend(name, () => open({}));
        const report = tried.works && devices ? { ...tried, devices: await devices() } : tried;
        backends.push(report);
        const mark = report.works
          ? paint(shown, shown.stdout, "green", "works  ")
          : paint(shown, shown.stdout, "yellow", "missing");
        printLine(
          shown,
          `${name.padEnd(12)} ${mark}  ${report.works ? `${description}; ${report.detail}` : report.detail}`,
        );
        for (const device of report.devices ?? []) printLine(shown, `  ${deviceText(name, device)}`);
      }
      if (json) printJson(io, { ...machine, backends });
      if (!backends.some(({ name, works }) => name === defaultBackend && works)) finish(exitCode.failed);
    });
}

/** What `--backend` calls a device, and what it is. */
export function deviceText(backend: string, { index, name, ...device }: DeviceInfo): string {
  const capability = (device.capability / 10).toFixed(1);
  const size = `${byteText(device.memoryBytes)}, ${device.multiprocessors} multiprocessors`;
  return `${`${backend}:${index}`.padEnd(12)}        ${name}, ${size}, compute capability ${capability}`;
}

/** Opens a backend and runs a gradient on it, whose value is known. */
async function tryBackend(name: string, open: () => Promise<Backend>): Promise<BackendReport> {
  try {
    const startMs = performance.now();
    await using backend = await open();
    const right = await runsSmallGraph(backend);
    const time = `${(performance.now() - startMs).toFixed(0)} ms`;
    const found = "description" in backend ? `${backend.description}; ` : "";
    return {
      name,
      works: right,
      detail: right ? `${found}small graph right in ${time}` : `${found}a small graph gave wrong numbers`,
    };
  } catch (error) {
    if (!SisaError.isInstance(error)) return { name, works: false, detail: errorLine(error) };
    return { name, works: false, detail: error.message };
  }
}

/** mean(silu(x w)) of ones [2,3] and halves [3,4], and its gradient by w. */
async function runsSmallGraph(backend: Backend): Promise<boolean> {
  const loss = trace({ x: f32(2, 3), w: f32(3, 4) }, ({ x, w }) => mean(silu(matmul(x, w))));
  const program = await backend.compile(valueAndGrad(loss, { wrt: ["w"] }));
  const x = backend.tensor(f32(2, 3), new Float32Array(6).fill(1));
  const w = backend.tensor(f32(3, 4), new Float32Array(12).fill(0.5));
  const outputs = program.run({ x, w });
  const value = (await outputs.value.read())[0] ?? 0;
  const gradient = (await outputs["grad.w"].read())[0] ?? 0;
  // silu(1.5) and its derivative over the four columns.
  const sigmoid = 1 / (1 + Math.exp(-1.5));
  const expected = { value: 1.5 * sigmoid, gradient: (sigmoid * (1 + 1.5 * (1 - sigmoid))) / 4 };
  return Math.abs(value - expected.value) < 1e-5 && Math.abs(gradient - expected.gradient) < 1e-5;
}
