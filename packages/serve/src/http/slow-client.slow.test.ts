// A client that takes nothing, over a real connection: the system holds some 4 MB for it before the server notices.
import { connect } from "node:net";
import { expect, test } from "vitest";
import { startServer } from "../../test/server.ts";

test("clients that take nothing are hung up on, and their slots are free", async () => {
  const server = await startServer({ stallMs: 150 });
  const socket = connect(server.port, "127.0.0.1");
  // Scores of the prompts, 150 kB each.
  const prompt = new Array(60).fill("x".repeat(240));
  const payload = JSON.stringify({ prompt, max_tokens: 1, stream: true, logprobs: 20, echo: true });
  socket.pause();
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${payload.length}\r\n\r\n${payload}`,
  );
  await expect.poll(() => server.engine.counts.admitted).toBe(60);
  const idle = { running: 0, waiting: 0, admitted: 0 };
  await expect.poll(() => server.engine.counts, { timeout: 100_000 }).toMatchObject(idle);
  socket.destroy();
});
