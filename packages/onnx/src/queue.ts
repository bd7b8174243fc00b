// Work that is done one piece after another, in the order in which it is asked for.

export class Queue {
  #last: Promise<unknown> = Promise.resolve();
  #pending = 0;

  /** True where nothing is running or waiting. */
  get idle(): boolean {
    return this.#pending === 0;
  }

  /** Runs a task after all earlier ones, whether or not those succeed. */
  add<T>(task: () => Promise<T>): Promise<T> {
    this.#pending += 1;
    const result = this.#last.then(task).finally(() => {
      this.#pending -= 1;
    });
    // Only who asked for a result hears of its failure.
    this.#last = result.catch(() => undefined);
    return result;
  }

  async drained(): Promise<void> {
    await this.#last;
  }
}
