// The time of everything that a cuda backend launches, by events around each launch; nothing waits in between.

import type { CudaBackend } from "@sisa/kernels-cuda";
import type { PreparedProduct, Product } from "../../packages/kernels-cuda/src/device/cublas-lt.ts";
import type { Device } from "../../packages/kernels-cuda/src/device/device.ts";

export interface Launch {
  readonly name: string;
  /** Of products, for their rate. */
  readonly flops: number;
  readonly milliseconds: number;
}

/** Of a backend that was opened with `blocking`, which captures nothing; while launches are timed, it does not wait either. */
export class LaunchTimer {
  readonly #device: Device;
  readonly #driver: Device["driver"];
  readonly #call: Device["driver"]["call"];
  readonly #names = new Map<number, string>();
  readonly #events: number[] = [];
  #launches: { readonly name: string; readonly flops: number }[] | undefined;

  constructor(backend: CudaBackend) {
    this.#device = (backend as unknown as { readonly device: Device }).device;
    const { driver, cublasLt } = this.#device;
    this.#driver = driver;
    this.#call = driver.call.bind(driver);
    const kernel = this.#device.kernel.bind(this.#device);
    this.#device.kernel = (name, sharedBytes) => {
      const handle = kernel(name, sharedBytes);
      this.#names.set(handle, name);
      return handle;
    };
    driver.call = (name, ...args) => this.#timed(name, args);
    const prepare = cublasLt.prepare.bind(cublasLt);
    cublasLt.prepare = (product, timed) => this.#product(product, prepare(product, timed));
  }

  #timed(name: Parameters<Device["driver"]["call"]>[0], args: readonly unknown[]): void {
    const run = () => this.#call(name, ...args);
    if (!this.#launches) run();
    else if (name === "cuLaunchKernel") this.#around(this.#names.get(Number(args[0])) ?? "unknown", 0, run);
    else if (name === "cuMemcpyDtoDAsync") this.#around("copy", 0, run);
    else if (name === "cuMemsetD8Async") this.#around("zero", 0, run);
    else if (name !== "cuStreamSynchronize") run();
  }

  #product(product: Product, prepared: PreparedProduct): PreparedProduct {
    const { m, n, k, batch, transposeA, transposeB, adds, resultType } = product;
    const form = `${transposeA ? "T" : "N"}${transposeB ? "T" : "N"}${adds ? " +" : ""}`;
    const name = `product ${m} x ${n} x ${k} ${form} ${resultType}`;
    return { run: (...args) => this.#around(name, 2 * m * n * k * batch, () => prepared.run(...args)) };
  }

  #around(name: string, flops: number, run: () => void): void {
    const count = this.#launches?.push({ name, flops });
    if (count !== undefined) this.#record(2 * count - 2);
    run();
    if (count !== undefined) this.#record(2 * count - 1);
  }

  #record(index: number): void {
    while (this.#events.length <= index) this.#events.push(this.#driver.handle("cuEventCreate", 0));
    this.#call("cuEventRecord", this.#events[index], this.#device.stream);
  }

  /** What is launched, in order. `run` must end by reading something. */
  async time(run: () => Promise<unknown>): Promise<readonly Launch[]> {
    this.#launches = [];
    await run();
    const launches = this.#launches;
    this.#launches = undefined;
    return launches.map((launch, index) => {
      const elapsed = [0];
      this.#call("cuEventElapsedTime", elapsed, this.#events[2 * index], this.#events[2 * index + 1]);
      return { ...launch, milliseconds: Number(elapsed[0]) };
    });
  }
}
