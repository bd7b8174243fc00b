// Where the CUDA driver and cuBLASLt are on this machine, and what to install where they are not.

import { BackendUnavailableError } from "@sisa/core";
import type { Library, Native } from "./native.ts";
import { host } from "./native.ts";

/** What the search looks at; a test passes a machine of its own. */
export interface Machine {
  readonly platform: string;
  variable(name: string): string | undefined;
  list(folder: string): readonly string[];
}

/** Names under which the driver's library is known to the system's loader. */
export function driverCandidates({ platform }: Machine): readonly string[] {
  if (platform === "win32") return ["nvcuda.dll"];
  return ["libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1"];
}

/**
 * Places where cuBLASLt may be, best first: what SISA_CUBLASLT names, CUDA_HOME and CUDA_PATH, the system's loader, the
 * usual toolkit folders, and the packages nvidia-cublas of Python environments.
 */
export function cublasLtCandidates(machine: Machine): readonly string[] {
  const windows = machine.platform === "win32";
  const names = windows ? ["cublasLt64_13.dll", "cublasLt64_12.dll"] : ["libcublasLt.so.13", "libcublasLt.so.12"];
  const within = (folder: string) => names.map((name) => `${folder}/${name}`);
  const named = machine.variable("SISA_CUBLASLT");
  const toolkits = ["CUDA_HOME", "CUDA_PATH"].flatMap((name) => machine.variable(name) ?? []);
  const libraryFolders = windows
    ? ["bin", "bin/x64"]
    : ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
  const usual = windows ? [] : ["/usr/local/cuda", ...versioned(machine, "/usr/local", /^cuda-1[23]/)];
  return [
    ...(named === undefined ? [] : [named]),
    ...toolkits.flatMap((folder) => libraryFolders.flatMap((sub) => within(`${folder}/${sub}`))),
    ...names,
    ...usual.flatMap((folder) => libraryFolders.flatMap((sub) => within(`${folder}/${sub}`))),
    ...pythonFolders(machine).flatMap((folder) =>
      ["nvidia/cu13/lib", "nvidia/cublas/lib", "nvidia/cublas/bin"].flatMap((sub) => within(`${folder}/${sub}`)),
    ),
  ];
}

function versioned(machine: Machine, folder: string, pattern: RegExp): readonly string[] {
  const found = machine.list(folder).filter((name) => pattern.test(name));
  return found
    .sort()
    .reverse()
    .map((name) => `${folder}/${name}`);
}

/** Folders of installed Python packages: of the active environment, of those on PATH, of the user and of the system. */
function pythonFolders(machine: Machine): readonly string[] {
  const home = machine.variable("HOME") ?? machine.variable("USERPROFILE");
  const separator = machine.platform === "win32" ? ";" : ":";
  const onPath = (machine.variable("PATH") ?? "").split(separator).flatMap((folder) => {
    const holdsPython = machine.list(folder).some((name) => /^python3?(\.exe)?$/.test(name));
    return holdsPython ? [folder.replace(/[\\/](bin|Scripts)[\\/]?$/, "")] : [];
  });
  const roots = [
    ...["VIRTUAL_ENV", "CONDA_PREFIX"].flatMap((name) => machine.variable(name) ?? []),
    ...onPath,
    ...(home === undefined ? [] : [`${home}/.local`]),
    "/usr/local",
    "/usr",
  ];
  return [...new Set(roots)].flatMap((root) => [
    ...["lib", "lib64"].flatMap((lib) =>
      versioned(machine, `${root}/${lib}`, /^python3\.\d+$/).flatMap((python) => [
        `${python}/site-packages`,
        `${python}/dist-packages`,
      ]),
    ),
    ...(machine.platform === "win32" ? [`${root}/Lib/site-packages`] : []),
  ]);
}

/** @throws BackendUnavailableError saying what to install */
export function loadDriver(native: Native, machine: Machine = host): Library {
  const found = firstOf(native, driverCandidates(machine));
  if (!(found instanceof Error)) return found;
  throw new BackendUnavailableError(
    `cuda: no NVIDIA driver was found (${found.message}); install the driver of your GPU from https://www.nvidia.com/drivers, or start the container with --gpus all`,
    { cause: found },
  );
}

/** @throws BackendUnavailableError saying what to install */
export function loadCublasLt(native: Native, machine: Machine = host): Library {
  const found = firstOf(native, cublasLtCandidates(machine));
  if (!(found instanceof Error)) return found;
  throw new BackendUnavailableError(
    "cuda: cuBLASLt 12 or 13 was not found; install it with `pip install nvidia-cublas` or with the CUDA toolkit, or name the file in SISA_CUBLASLT",
    { cause: found },
  );
}

function firstOf(native: Native, candidates: readonly string[]): Library | Error {
  let reason = new Error("no place to look in");
  for (const path of candidates) {
    const found = native.open(path);
    if (!(found instanceof Error)) return found;
    reason = found;
  }
  return reason;
}
