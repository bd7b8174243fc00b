// What a path means in a browser: nothing. Chosen by the "#paths" import of package.json.
import { ConfigError } from "@sisa/core";
import type * as node from "./paths-node.ts";

function refuse(path: string): never {
  throw new ConfigError(`"${path}" is a path, and there are none in a browser; pass a Storage instead`);
}

/** @throws ConfigError always */
export const folderAt: typeof node.folderAt = refuse;

/** @throws ConfigError always */
export const saveModelAt: typeof node.saveModelAt = async (path) => refuse(path);
