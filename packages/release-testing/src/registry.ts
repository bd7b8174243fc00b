// A registry of our own for @sisa packages, on the loopback interface. All other packages come from where they always do.
import { readdir, readFile, writeFile } from "node:fs/promises";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { runServer } from "verdaccio";
import { environment, root } from "../../../tools/run.mjs";
import { run } from "./command.ts";

export interface LocalRegistry extends AsyncDisposable {
  /** Lines of an .npmrc that take @sisa packages from here. */
  readonly npmrc: string;
  /** The one file that was published of a package. */
  tarball(name: string): Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * Builds the workspace and publishes all its packages, by the command of a release, to a registry that keeps its files in a
 * folder.
 */
export async function localRegistry(folder: string): Promise<LocalRegistry> {
  const everybody = { access: "$all", publish: "$all", unpublish: "$all" };
  const storage = path.join(folder, "registry");
  const configuration = {
    self_path: path.join(folder, "registry.yaml"),
    configPath: path.join(folder, "registry.yaml"),
    storage,
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
  const npmrcFile = path.join(folder, "npmrc");
  await writeFile(npmrcFile, npmrc);
  await run(process.execPath, [path.join(root, "tools/run.mjs"), "build"], { cwd: root });
  const changesets = path.join(root, "node_modules/@changesets/cli/bin.js");
  await run(process.execPath, [changesets, "publish", "--no-git-tag"], {
    cwd: root,
    env: { ...environment(), "npm_config_@sisa:registry": url, npm_config_userconfig: npmrcFile },
  });
  return {
    npmrc,
    async tarball(name) {
      const files = (await readdir(path.join(storage, name))).filter((file) => file.endsWith(".tgz"));
      if (files.length !== 1) throw new Error(`${name}: expected one published file, got ${files.length}`);
      return new Uint8Array(await readFile(path.join(storage, name, files[0] ?? "")));
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
