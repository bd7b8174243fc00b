// Steps of training and requests of the page, one at a time and in order; training can be paused, requests go on.

export class Turns {
  #last: Promise<unknown> = Promise.resolve();
  #paused: { readonly until: Promise<void>; readonly end: () => void } | undefined;

  /** Does something when its turn has come. */
  take<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action);
    // Only who asked hears of a failure.
    this.#last = result.catch(() => undefined);
    return result;
  }

  pause(): void {
    if (this.#paused !== undefined) return;
    const { promise, resolve } = newPromise();
    this.#paused = { until: promise, end: resolve };
  }

  resume(): void {
    this.#paused?.end();
    this.#paused = undefined;
  }

  /** Lets messages in, and waits while paused. */
  async resumed(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve));
    await this.#paused?.until;
  }
}

function newPromise(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
