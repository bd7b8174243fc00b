// The manifests are what Kubernetes takes, by its own schemas, and fit what the server does.
import { readFileSync } from "node:fs";
import { Deployment } from "kubernetes-models/apps/v1";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1";
import { Service } from "kubernetes-models/v1";
import { expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { openPaths } from "./http/openapi.ts";

const text = readFileSync(new URL("../../../deploy/kubernetes.yaml", import.meta.url), "utf8");
const manifests = parseAllDocuments(text).map((document) => document.toJS());

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
