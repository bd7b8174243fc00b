// A registry of our own for @sisa packages, on the loopback interface. All other packages come from where they always do.
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { runServer } from "verdaccio";
import { run } from "./command.ts";
import type { PackedPackage } from "./packed.ts";

export interface LocalRegistry extends AsyncDisposable {
  readonly url: string;
  /** Lines of an .npmrc that take @sisa packages from here. */
  readonly npmrc: string;
  publish(packages: readonly PackedPackage[]): Promise<void>;
}

/** Starts an empty registry that keeps its files in a folder. */
export async function localRegistry(folder: string): Promise<LocalRegistry> {
  const everybody = { access: "$all", publish: "$all", unpublish: "$all" };
  const configuration = {
    self_path: path.join(folder, "registry.yaml"),
    configPath: path.join(folder, "registry.yaml"),
    storage: path.join(folder, "registry"),
    uplinks: {},
    packages: { "@sisa/*": everybody },
    auth: { htpasswd: { file: path.join(folder, "htpasswd"), max_users: -1 } },
    security: { api: { legacy: true }, web: {} },
    max_body_size: "100mb",
    web: { enable: false },
    log: { type: "stdout", format: "pretty", level: "fatal" },
  };
  const server: Server = await runServer(configuration as unknown as string);
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const url = `http://${host}/`;
  // Anybody may publish, but the client insists on a token.
  const npmrc = `@sisa:registry=${url}\n//${host}/:_authToken=nobody\n`;
  return {
    url,
    npmrc,
    async publish(packages) {
      const env = { [`npm_config_//${host}/:_authToken`]: "nobody", npm_config_provenance: "false" };
      for (const { tarball } of packages) {
        await run("npm", ["publish", tarball, "--registry", url, "--access", "public"], { cwd: folder, env });
      }
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
