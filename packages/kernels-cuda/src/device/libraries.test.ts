import { BackendUnavailableError } from "@sisa/core";
import { expect, test } from "vitest";
import { cublasLtCandidates, driverCandidates, loadCublasLt, loadDriver, type Machine } from "./libraries.ts";
import type { Native } from "./native.ts";

function machine(
  variables: Readonly<Record<string, string>>,
  folders: Readonly<Record<string, readonly string[]>> = {},
  platform = "linux",
): Machine {
  return { platform, variable: (name) => variables[name], list: (folder) => folders[folder] ?? [] };
}

/** Opens what is in the list and nothing else. */
function nativeWith(...paths: readonly string[]): Native {
  const open = (path: string) => (paths.includes(path) ? { path, func: () => () => 0 } : new Error(`${path}: none`));
  return { open } as unknown as Native;
}

test("cuBLASLt is taken from where the user says, then the toolkit, the system, and Python environments", () => {
  const candidates = cublasLtCandidates(
    machine(
      { SISA_CUBLASLT: "/own/lt.so", CUDA_HOME: "/opt/cuda", VIRTUAL_ENV: "/env", HOME: "/home/a" },
      { "/env/lib": ["python3.12"], "/usr/local": ["cuda-12.8", "cuda-13.0", "lib"] },
    ),
  );
  const order = [
    "/own/lt.so",
    "/opt/cuda/lib64/libcublasLt.so.13",
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "/usr/local/cuda/lib64/libcublasLt.so.13",
    "/usr/local/cuda-13.0/lib64/libcublasLt.so.13",
    "/usr/local/cuda-12.8/lib64/libcublasLt.so.12",
    "/env/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
    "/env/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12",
  ];
  const places = order.map((path) => candidates.indexOf(path));
  expect(places).not.toContain(-1);
  expect(places).toEqual(places.toSorted((a, b) => a - b));
});

test("a Python environment that is only on PATH is looked into", () => {
  const folders = { "/opt/torch/.venv/bin": ["python3"], "/opt/torch/.venv/lib": ["python3.12"] };
  const candidates = cublasLtCandidates(machine({ PATH: "/bin:/opt/torch/.venv/bin" }, folders));
  expect(candidates).toContain("/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12");
});

test("Windows has names of its own", () => {
  const windows = machine({ CUDA_PATH: "C:/CUDA" }, {}, "win32");
  expect(driverCandidates(windows)).toEqual(["nvcuda.dll"]);
  expect(cublasLtCandidates(windows)).toContain("C:/CUDA/bin/cublasLt64_13.dll");
});

test("what is missing is told with what to install", () => {
  const bare = machine({});
  expect(loadDriver(nativeWith("libcuda.so.1"), bare).path).toBe("libcuda.so.1");
  expect(() => loadDriver(nativeWith(), bare)).toThrow(
    expect.objectContaining({
      code: BackendUnavailableError.code,
      message: expect.stringContaining("nvidia.com/drivers"),
    }),
  );
  expect(loadCublasLt(nativeWith("libcublasLt.so.12"), bare).path).toBe("libcublasLt.so.12");
  expect(() => loadCublasLt(nativeWith(), bare)).toThrow(
    expect.objectContaining({
      code: BackendUnavailableError.code,
      message: expect.stringContaining("pip install nvidia-cublas"),
    }),
  );
});
