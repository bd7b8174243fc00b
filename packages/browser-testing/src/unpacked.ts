// The files of @sparticuz/chromium, unpacked once for each version into this package's own cache.

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const packageFolder = fileURLToPath(new URL("..", import.meta.url));

/** Time that unpacking 200 MB may take, in milliseconds. */
const unpackTimeoutMs = 120_000;

/** Where things lie once unpacked; absolute paths. */
export interface UnpackedChromium {
  readonly executable: string;
  /** libnss3 and its like, which Chromium needs and a bare machine lacks. */
  readonly libraries: string;
  /** A folder with a fonts.conf that knows one family, Open Sans. */
  readonly fontconfig: string;
  /** The Vulkan loader, libvulkan.so.1. */
  readonly vulkan: string;
  /** The file that leads the Vulkan loader to SwiftShader. */
  readonly vulkanDriver: string;
}

/**
 * Unpacks Chromium, its libraries and SwiftShader where this version is not unpacked yet. Processes may do so at once.
 * @throws Error on anything else than Linux x64, which the package is made for
 */
export async function unpackedChromium(): Promise<UnpackedChromium> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(`browser-testing: expected Linux on x64, got ${process.platform} on ${process.arch}`);
  }
  const cache = path.join(packageFolder, "node_modules", ".cache", "chromium");
  const folder = path.join(cache, installedVersion());
  if (!existsSync(folder)) {
    await mkdir(cache, { recursive: true });
    const making = await mkdtemp(path.join(cache, "unpacking-"));
    try {
      await unpackInto(making);
      await writeFile(path.join(making, "fonts", "fonts.conf"), fontsConf(path.join(folder, "fonts")));
      await rename(making, folder);
    } catch (error) {
      // Another process may have been faster: its folder is as good.
      if (!existsSync(folder)) throw error;
    } finally {
      await rm(making, { recursive: true, force: true });
    }
  }
  return {
    executable: path.join(folder, "chromium"),
    libraries: path.join(folder, "al2023", "lib"),
    fontconfig: path.join(folder, "fonts"),
    vulkan: path.join(folder, "libvulkan.so.1"),
    vulkanDriver: path.join(folder, "vk_swiftshader_icd.json"),
  };
}

function installedVersion(): string {
  // The package does not export its package.json.
  const entry = createRequire(import.meta.url).resolve("@sparticuz/chromium");
  const { version } = JSON.parse(readFileSync(path.join(entry, "../../../package.json"), "utf8"));
  return version;
}

/** In a process of its own, since the package reads where and what to unpack from the environment when it is loaded. */
async function unpackInto(folder: string): Promise<void> {
  const program = `import chromium from "@sparticuz/chromium"; await chromium.executablePath();`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: packageFolder,
    stdio: ["ignore", "ignore", "pipe"],
    timeout: unpackTimeoutMs,
    // The name of a runtime makes it unpack libnss3 too.
    env: { PATH: process.env.PATH, TMPDIR: folder, AWS_LAMBDA_JS_RUNTIME: "nodejs20.x" },
  });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (...ended) => resolve(ended));
  });
  if (code !== 0) throw new Error(`browser-testing: unpacking Chromium failed (${signal ?? code}): ${errors}`);
}

/** The package's own file looks for fonts in folders of the machine. */
function fontsConf(folder: string): string {
  return `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>${folder}</dir><cachedir>${folder}/cache</cachedir></fontconfig>
`;
}
