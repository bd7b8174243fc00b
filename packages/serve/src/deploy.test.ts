// The manifests are what Kubernetes takes, by its own schemas, and fit what the server does; so does the image.
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { Deployment } from "kubernetes-models/apps/v1";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1";
import { Service } from "kubernetes-models/v1";
import { describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { startServer } from "../test/server.ts";
import { openPaths } from "./http/openapi.ts";

const root = path.join(import.meta.dirname, "../../..");
const read = (file: string) => readFileSync(path.join(root, file), "utf8");
const manifests = parseAllDocuments(read("deploy/kubernetes.yaml")).map((document) => document.toJS());

function validate(manifest: { readonly kind: string }): void {
  const kinds = { Deployment, Service, PodDisruptionBudget } as const;
  const kind = kinds[manifest.kind as keyof typeof kinds];
  if (kind === undefined) throw new Error(`no schema for a ${manifest.kind}`);
  new kind(manifest as never).validate();
}

test("manifests fit the schemas of Kubernetes", () => {
  expect(manifests.map(({ kind }) => kind)).toEqual(["Deployment", "Service", "PodDisruptionBudget"]);
  for (const manifest of manifests) validate(manifest);
});

test("and the check sees what does not fit", () => {
  const broken = structuredClone(manifests[0]);
  broken.spec.template.spec.containers[0].ports[0].containerPort = "eighty";
  expect(() => validate(broken)).toThrow("containerPort");
});

test("probes need no key, and there is time to drain", () => {
  const { terminationGracePeriodSeconds: grace, containers } = manifests[0].spec.template.spec;
  const [container] = containers;
  const probes = [container.startupProbe, container.readinessProbe, container.livenessProbe];
  for (const { httpGet } of probes) expect(openPaths).toContain(httpGet.path);
  const timeout = Number(container.args[container.args.indexOf("--shutdown-timeout") + 1]);
  const sleep = Number(container.lifecycle.preStop.exec.command[1]);
  expect(grace).toBeGreaterThan(timeout + sleep);
  expect(container.resources.requests).toEqual({ cpu: expect.any(String), memory: expect.any(String) });
});

describe("the image", () => {
  /** Instructions in order, as `NAME rest`. */
  const instructions = read("deploy/Dockerfile")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  const all = (name: string) =>
    instructions.flatMap((line) => (line.startsWith(`${name} `) ? line.slice(name.length + 1) : []));
  const words = (name: string): string[] => JSON.parse(all(name)[0] ?? "");

  test("is built by programs and packages that there are", () => {
    const { scripts, devDependencies, engines } = JSON.parse(read("package.json"));
    const [, command = "", filter = "", target = ""] =
      /^npm run (\S+) && node_modules\/\.bin\/pnpm --filter (\S+) --prod --legacy deploy (\S+)$/.exec(
        all("RUN")[0] ?? "",
      ) ?? [];
    expect(scripts).toHaveProperty(command);
    expect(devDependencies).toHaveProperty("pnpm");
    const cli = JSON.parse(read("apps/cli/package.json"));
    expect(filter).toBe(cli.name);
    for (const base of all("FROM")) {
      const major = /^node:(\d+)-slim/.exec(base)?.[1];
      expect(Number(major)).toBeGreaterThan(Number.parseFloat(engines.node.replace(">=", "")));
    }
    expect(all("COPY").at(-1)).toBe(`--from=build ${target} ${target}`);
    // What is started is what the build of that package makes, and what it is published with.
    const [node, program = ""] = words("ENTRYPOINT");
    expect(node).toBe("node");
    const inPackage = path.relative(target, program);
    expect(cli.files).toContain(path.dirname(inPackage));
    expect(read(path.join("apps/cli", cli.bin.sisa))).toContain(`../${inPackage}`);
    // Nothing is left out that the build reads.
    const ignored = read("deploy/Dockerfile.dockerignore").split("\n");
    for (const file of ["tools/run.mjs", "pnpm-lock.yaml", "apps/cli/src/sisa.ts", "packages/core/src/index.ts"]) {
      expect(existsSync(path.join(root, file))).toBe(true);
      for (const pattern of ignored) expect(file.split("/")).not.toContain(pattern.replace("**/", ""));
    }
  });

  test("runs as the user and on the port that the manifests have", () => {
    const { containers, securityContext } = manifests[0].spec.template.spec;
    expect(all("USER")).toEqual([`${securityContext.runAsUser}:${securityContext.runAsGroup}`]);
    const port = String(containers[0].ports[0].containerPort);
    expect(all("EXPOSE")).toEqual([port]);
    expect(words("CMD")).toEqual(["serve", "/model", "--host", "0.0.0.0", "--port", port]);
    expect(containers[0].args.slice(0, 6)).toEqual(words("CMD"));
  });

  test("says whether it is well", async () => {
    const server = await startServer();
    const [program = "", ...rest] = JSON.parse(/CMD (.*)$/.exec(all("HEALTHCHECK")[0] ?? "")?.[1] ?? "");
    const check = () =>
      promisify(execFile)(program === "node" ? process.execPath : program, [
        ...rest.map((word: string) => word.replace(":8080/", `:${server.port}/`)),
      ]);
    await check();
    await server.close();
    await expect(check()).rejects.toMatchObject({ code: 1 });
  });
});
