// Server-sent events: frames are made when the client has taken those before, so that a slow one holds no memory.

export interface StreamOptions {
  /** Stops whatever makes the frames. */
  readonly stop: () => void;
  /** Ends the connection. */
  readonly hangUp: () => void;
  /** A comment after so much silence keeps proxies from hanging up. */
  readonly pingMs: number;
  /** A client that takes nothing for so long is hung up on. */
  readonly stallMs: number;
}

/**
 * A response that sends each value as one `data:` frame, then `[DONE]`.
 *
 * @param frames ends, or throws; `describe` says what a client is told of what was thrown
 */
export function eventStream(
  frames: AsyncGenerator<object, void, void>,
  describe: (error: unknown) => object,
  { stop, hangUp, pingMs, stallMs }: StreamOptions,
): Response {
  const encoder = new TextEncoder();
  const data = (text: string) => encoder.encode(`data: ${text}\n\n`);
  let next: Promise<Uint8Array | undefined> | undefined;
  let isOver = false;
  let stall: ReturnType<typeof setTimeout> | undefined;

  const produce = async (): Promise<Uint8Array | undefined> => {
    if (isOver) return undefined;
    try {
      const { value, done } = await frames.next();
      if (!done) return data(JSON.stringify(value));
      isOver = true;
      return data("[DONE]");
    } catch (error) {
      isOver = true;
      return encoder.encode(`data: ${JSON.stringify(describe(error))}\n\ndata: [DONE]\n\n`);
    }
  };
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        clearTimeout(stall);
        next ??= produce();
        let timer: ReturnType<typeof setTimeout> | undefined;
        const silence = new Promise<"ping">((resolve) => {
          timer = setTimeout(resolve, pingMs, "ping");
        });
        const frame = await Promise.race([next, silence]);
        clearTimeout(timer);
        if (frame === "ping") {
          controller.enqueue(encoder.encode(": ping\n\n"));
        } else {
          next = undefined;
          if (frame === undefined) {
            controller.close();
            return;
          }
          controller.enqueue(frame);
        }
        stall = setTimeout(() => {
          stop();
          hangUp();
        }, stallMs);
      },
      cancel() {
        clearTimeout(stall);
        stop();
      },
    },
    { highWaterMark: 1 },
  );
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    },
  });
}

/** Values of several sources as they come, each with its source's number. */
export async function* merge<T>(
  sources: readonly AsyncIterable<T>[],
): AsyncGenerator<readonly [index: number, value: T], void, void> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  // Each is waited for once a value: a race adds to all that say nothing with every value of another.
  const arrived: Promise<{ readonly index: number; readonly result: IteratorResult<T> | undefined }>[] = [];
  let wake = (): void => {};
  const ask = (index: number): void => {
    const asked = (async () => ({ index, result: await iterators[index]?.next() }))();
    const arrive = (): void => {
      arrived.push(asked);
      wake();
    };
    asked.then(arrive, arrive);
  };
  for (const index of iterators.keys()) ask(index);
  let open = iterators.length;
  while (open > 0) {
    const first = arrived.shift();
    if (first === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      continue;
    }
    const { index, result } = await first;
    if (result === undefined || result.done) open -= 1;
    else {
      ask(index);
      yield [index, result.value];
    }
  }
}
