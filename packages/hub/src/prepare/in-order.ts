// Does work ahead of its reader, but not far, and hands results over in the order of the items.

/**
 * Results of `run` for each item, in order, with at most `ahead` of them under way or waiting to be taken.
 * The first failure ends it; what is under way then is abandoned.
 */
export async function* inOrder<Item, Result>(
  items: AsyncIterable<Item>,
  ahead: number,
  run: (item: Item) => Promise<Result>,
): AsyncGenerator<[Item, Result]> {
  const pending: Promise<[Item, Result]>[] = [];
  const start = async (item: Item): Promise<[Item, Result]> => [item, await run(item)];
  for await (const item of items) {
    const started = start(item);
    // A failure is handled where its turn comes; until then it must not count as unhandled.
    started.catch(() => {});
    pending.push(started);
    if (pending.length < ahead) continue;
    const first = pending.shift();
    if (first !== undefined) yield await first;
  }
  for (const next of pending) yield await next;
}
